package shmio

import (
	"errors"
	"fmt"
	"math/bits"
	"os"

	"golang.org/x/sys/unix"
)

// ErrUnsupported says that the kernel lacks something.
var ErrUnsupported = errors.New("not supported here")

// UnsupportedError names what is missing and which Linux has it; it is an ErrUnsupported.
type UnsupportedError struct {
	Feature string
	Since   string // the first Linux that has it
	Here    string // what this is
	Cause   error
}

func (e *UnsupportedError) Error() string {
	switch {
	case errors.Is(e.Cause, unix.EPERM) || errors.Is(e.Cause, unix.EACCES):
		// Older container runtimes answer so to system calls that they don't know.
		return fmt.Sprintf("%s is forbidden here (%v): a seccomp filter or a security module must allow it", e.Feature, e.Cause)
	case e.Since == "":
		return fmt.Sprintf("%s is missing; this is %s (%v)", e.Feature, e.Here, e.Cause)
	}
	return fmt.Sprintf("%s needs Linux %s or later; this is %s (%v)", e.Feature, e.Since, e.Here, e.Cause)
}

// Is makes errors.Is(err, ErrUnsupported) true.
func (e *UnsupportedError) Is(target error) bool { return target == ErrUnsupported }

// Unwrap is the kernel's answer.
func (e *UnsupportedError) Unwrap() error { return e.Cause }

// kernel is what Probe asks; tests put another in its place.
type kernel struct {
	memfd   func() error // create, map and seal one
	pidfd   func() error
	release func() string
	bits    int
}

// Probe tries what bhome needs of the kernel: sealed memfds (5.1) and pidfds (5.3). It costs some 20 µs; a program
// calls it once, at its start. Errors: ErrUnsupported, or what keeps it from trying (no descriptors, no memory).
func Probe() error { return realKernel().probe() }

func realKernel() kernel {
	return kernel{memfd: probeMemfd, pidfd: probePidfd, release: release, bits: bits.UintSize}
}

func (k kernel) probe() error {
	if k.bits != 64 {
		return &UnsupportedError{Feature: "a 64-bit program", Here: fmt.Sprintf("a %d-bit one", k.bits), Cause: errors.ErrUnsupported}
	}
	for _, f := range []struct {
		name, since string
		try         func() error
	}{
		{"a sealed memfd (memfd_create, F_SEAL_FUTURE_WRITE)", "5.1", k.memfd},
		{"a process descriptor (pidfd_open)", "5.3", k.pidfd},
	} {
		err := f.try()
		switch {
		case err == nil:
		case errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOMEM):
			return fmt.Errorf("try %s: %w", f.name, err) // nothing is said about the kernel
		default:
			return &UnsupportedError{Feature: f.name, Since: f.since, Here: k.release(), Cause: err}
		}
	}
	return nil
}

func probeMemfd() error {
	fd, err := createMemfd("bhome-probe")
	if err != nil {
		return err
	}
	defer fd.Close()
	mem, err := sealAndMap(fd.Int(), pageSize())
	if err != nil {
		return err
	}
	return unix.Munmap(mem)
}

func probePidfd() error {
	fd, err := PidfdOpen(os.Getpid())
	if err != nil {
		return err
	}
	return fd.Close()
}

func release() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "an unknown Linux"
	}
	return "Linux " + unix.ByteSliceToString(u.Release[:])
}
