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
	Feature, Since, Here string
	Cause                error
}

func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("%s needs Linux %s or later; this is %s (%v)", e.Feature, e.Since, e.Here, e.Cause)
}

// Is makes errors.Is(err, ErrUnsupported) true.
func (e *UnsupportedError) Is(target error) bool { return target == ErrUnsupported }

// kernel is what Probe asks; tests put another in its place.
type kernel struct {
	memfd  func() error // create, map and seal one
	pidfd  func() error
	procfd func() error
	bits   int
}

// Probe tries what bhome needs of the kernel: sealed memfds (5.1), pidfds (5.3), /proc. It costs some 20 µs.
func Probe() error { return realKernel().probe() }

func realKernel() kernel {
	return kernel{
		memfd: func() error {
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
		},
		pidfd: func() error {
			fd, err := PidfdOpen(os.Getpid())
			if err != nil {
				return err
			}
			return fd.Close()
		},
		procfd: func() error { return unix.Access("/proc/self/fd", unix.X_OK) },
		bits:   bits.UintSize,
	}
}

func (k kernel) probe() error {
	if k.bits != 64 {
		return fmt.Errorf("%w: bhome needs a 64-bit machine", ErrUnsupported)
	}
	for _, f := range []struct {
		name, since string
		try         func() error
	}{
		{"a sealed memfd (memfd_create, F_SEAL_FUTURE_WRITE)", "5.1", k.memfd},
		{"a process descriptor (pidfd_open)", "5.3", k.pidfd},
		{"/proc/self/fd (a mounted /proc)", "2.2", k.procfd},
	} {
		if err := f.try(); err != nil {
			return &UnsupportedError{Feature: f.name, Since: f.since, Here: release(), Cause: err}
		}
	}
	return nil
}

func release() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return "Linux " + unix.ByteSliceToString(u.Release[:])
}
