package shmio

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

const (
	// bellRoom is how many bytes a bell has room for at least: who hears that many takes it that more didn't fit.
	bellRoom = 64
	// bellBuffer is for that: the kernel counts up to 1 KiB for each ring, and doubles it.
	bellBuffer = 16 << 10
	// bellChunk is how many bytes are taken out of a bell at once: all, unless the ringer has enlarged it.
	bellChunk = 512
	// soPassRights is SO_PASSRIGHTS of Linux 6.16, asm-generic/socket.h.
	soPassRights = 83
)

var (
	// ErrNotBell refuses a descriptor that isn't the ringer's end of a bell.
	ErrNotBell = errors.New("not a bell")
	// errBellSpoiled says that something besides rings came through a bell.
	errBellSpoiled = errors.New("descriptors came through the bell")
)

// NewBell makes a bell that this process sleeps on: a pair of connected sockets. read is for Reactor.WatchBell; write goes
// to the one who rings, and serves nobody else.
func NewBell() (read, write *FD, err error) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a bell: %w", err)
	}
	read, write = NewFD(p[0]), NewFD(p[1])
	// Whoever rings could send descriptors as well, and closing those can take long.
	read.late = unix.SetsockoptInt(p[0], unix.SOL_SOCKET, soPassRights, 0) != nil
	// Smaller than usual, to save memory of the kernel's.
	if err := unix.SetsockoptInt(p[1], unix.SOL_SOCKET, unix.SO_SNDBUF, bellBuffer); err != nil {
		closeAll([]*FD{read, write})
		return nil, nil, fmt.Errorf("make a bell: %w", err)
	}
	return read, write, nil
}

// Bell rings another process. Safe for concurrent use.
type Bell struct {
	mu   sync.RWMutex // Close against Ring
	fd   *FD          // nil once closed
	n    int          // fd's
	rung atomic.Uint64
}

// OpenBell takes over write. Errors: ErrNotBell.
func OpenBell(write *FD) (*Bell, error) {
	defer write.Close()
	err := CheckBell(write)
	if err != nil {
		return nil, fmt.Errorf("open a bell: %w", err)
	}
	own, err := write.Dup()
	if err != nil {
		return nil, fmt.Errorf("open a bell: %w", err)
	}
	return &Bell{fd: own, n: own.Int()}, nil
}

// CheckBell says what is wrong with a descriptor as a bell, and closes the way back to us, for good. Errors: ErrNotBell.
func CheckBell(write *FD) error { return write.with(checkBell) }

// checkBell lets pass what can be rung without ever waiting: sending on a local socket takes no lock that the other end
// can hold, and MSG_DONTWAIT is ours where O_NONBLOCK would be everybody's who has the descriptor.
func checkBell(fd int) error {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return fmt.Errorf("%w: it is %s", ErrNotBell, describe(fd))
	}
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil || domain != unix.AF_UNIX || kind != unix.SOCK_STREAM {
		return fmt.Errorf("%w: it is a socket of domain %d and type %d, not of AF_UNIX and SOCK_STREAM", ErrNotBell, domain, kind)
	}
	// What has a name is some service, which we mustn't be made to speak to.
	named, err := hasPeerName(fd)
	if err != nil {
		return fmt.Errorf("%w: it is a socket that is not connected: %w", ErrNotBell, err)
	}
	if named {
		return fmt.Errorf("%w: it is a socket whose other end has a name", ErrNotBell)
	}
	// Nothing may wait in it for us: descriptors there are closed with it, and that can take long.
	if err := unix.Shutdown(fd, unix.SHUT_RD); err != nil {
		return fmt.Errorf("%w: the way back can't be closed: %w", ErrNotBell, err)
	}
	var b [1]byte
	switch n, _, err := quickPeek(fd, b[:]); {
	case n > 0:
		return fmt.Errorf("%w: something waits in it for the ringer", ErrNotBell)
	case err != nil && err != unix.ECONNRESET:
		return fmt.Errorf("%w: whether something waits in it can't be told: %w", ErrNotBell, err)
	}
	return nil
}

// Ring wakes the sleeper, who takes hint as a hint. It never blocks and allocates nothing: a full bell is one that
// rings already, and one whose sleeper is gone wakes nobody. After Close it does nothing.
func (b *Bell) Ring(hint uint32) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if b.fd == nil {
		return
	}
	var buf [4]byte
	binary.NativeEndian.PutUint32(buf[:], hint)
	for {
		// EAGAIN: it rings already. EPIPE: the sleeper is gone; its pidfd tells.
		if _, err := quickSend(b.n, buf[:]); err != unix.EINTR {
			break
		}
	}
	b.rung.Add(1)
	runtime.KeepAlive(b)
}

// Rung counts the rings.
func (b *Bell) Rung() uint64 { return b.rung.Load() }

// Close gives the bell up.
func (b *Bell) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fd == nil {
		return nil
	}
	fd := b.fd
	b.fd = nil
	return fd.Close()
}

// hear takes up to len(buf) bytes of rings out of a bell; guarded: the kernel keeps descriptors out of it. 0 and nil:
// nobody can ring any more. Errors: unix.EAGAIN, unix.EINTR; errBellSpoiled, for good: taking those descriptors in would
// mean to close them.
func hear(fd int, buf []byte, guarded bool) (n int, err error) {
	theCrowd.glance()
	if !guarded {
		n, besides, err := quickPeek(fd, buf)
		if besides {
			return 0, errBellSpoiled
		}
		if n == 0 || err != nil {
			return 0, err
		}
		buf = buf[:n]
	}
	return quickReceive(fd, buf)
}
