package shmio

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// bedside is a bell that a receiver sleeps at itself: its socket is in Go's netpoller, and a ring makes the kernel wake the
// thread that runs the receiver, with nobody in between. That is not only a goroutine less: the kernel wakes a socket's
// sleeper on the core of the one who rings, but not through a second epoll set (4 µs there and back against 57 on two
// virtual cores; docs/decisions/0007).
type bedside struct {
	file *os.File
	raw  syscall.RawConn
	poll func(fd uintptr) bool // made once: waiting allocates nothing
	buf  []byte
	n    int  // what of it the last sleep has heard
	rang bool // and whether it was ended by a ring,
	over bool // or by the deadline, or a kick, which is one

	guarded bool
}

// newBedside uses a bell's description, and leaves bell to the caller.
func newBedside(bell *FD) (*bedside, error) {
	b := &bedside{buf: make([]byte, bellChunk), guarded: !bell.late}
	err := bell.with(func(n int) error {
		dup, err := unix.FcntlInt(uintptr(n), unix.F_DUPFD_CLOEXEC, 0)
		if err == nil {
			b.file = os.NewFile(uintptr(dup), "bhome-bell")
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("sleep at a bell: %w", err)
	}
	if b.raw, err = b.file.SyscallConn(); err == nil {
		err = b.file.SetReadDeadline(time.Time{}) // it tells whether the netpoller has it
	}
	if err != nil {
		_ = b.file.Close() // the error that matters is err
		return nil, fmt.Errorf("sleep at a bell: %w", err)
	}
	b.poll = func(fd uintptr) bool {
		n, err := hear(int(fd), b.buf, b.guarded)
		// Any other error, and the end of all ringers, end the sleep: Go's netpoller is told of each change once.
		b.n, b.rang = n, n > 0
		return b.rang || err != unix.EAGAIN && err != unix.EINTR
	}
	return b, nil
}

// sleep waits until the bell rings, or somebody kicks, or it is closed; false: nobody will ring any more. One goroutine
// at a time.
func (b *bedside) sleep() (ok bool) {
	b.rang, b.over = false, false
	switch err := b.raw.Read(b.poll); {
	case errors.Is(err, os.ErrDeadlineExceeded):
		_ = b.file.SetReadDeadline(time.Time{}) // it fails once closed: the next sleep tells
		b.over = true
		return true
	case err != nil:
		return false
	}
	return b.rang
}

// kick ends a sleep, this one or the next.
func (b *bedside) kick() { _ = b.file.SetReadDeadline(time.Unix(1, 0)) } // it fails once closed: then nobody sleeps

func (b *bedside) close() { _ = b.file.Close() } // it ends a sleep; a bell has nothing to lose
