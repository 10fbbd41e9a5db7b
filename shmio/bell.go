package shmio

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// bellPipeSize is as small as pipes get; the kernel rounds it up to a page.
const bellPipeSize = 4096

// ErrNotBell refuses a descriptor that isn't the writing end of a pipe.
var ErrNotBell = errors.New("not a bell")

// NewBell makes a bell that this process sleeps on: a pipe. read is for Reactor.WatchBell; write goes to the one who
// rings. Any uid that has the descriptor can reopen it for writing, and none but ours for reading.
func NewBell() (read, write *FD, err error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, nil, fmt.Errorf("make a bell: %w", err)
	}
	read, write = NewFD(p[0]), NewFD(p[1])
	// A smaller pipe only saves memory; a kernel that refuses (the uid's pipe limit) has made it small already.
	_, _ = unix.FcntlInt(uintptr(p[1]), unix.F_SETPIPE_SZ, bellPipeSize)
	if err := unix.Fchmod(p[1], 0o622); err != nil {
		closeAll([]*FD{read, write})
		return nil, nil, fmt.Errorf("make a bell: let others ring it: %w", err)
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

// OpenBell takes over write and reopens it: O_NONBLOCK belongs to the open file description, so on a shared one the
// sleeper could make the ringer block. Errors: ErrNotBell.
func OpenBell(write *FD) (*Bell, error) {
	defer write.Close()
	var n int
	err := write.with(func(fd int) (err error) {
		if err := checkBell(fd); err != nil {
			return err
		}
		n, err = unix.Open(procPath(fd), unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open a bell: %w", err)
	}
	return &Bell{fd: NewFD(n), n: n}, nil
}

// CheckBell says what is wrong with a descriptor as a bell; it neither opens nor closes it. Errors: ErrNotBell.
func CheckBell(write *FD) error { return write.with(checkBell) }

func checkBell(fd int) error {
	// By the name, since opening anything else, and even asking its file system, could block.
	if !strings.HasPrefix(fdTarget(fd), "pipe:") {
		return fmt.Errorf("%w: it is %s, or /proc isn't mounted", ErrNotBell, describe(fd))
	}
	// Nor may a reading end make us write to what its owner can't write to.
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err != nil || flags&unix.O_ACCMODE == unix.O_RDONLY {
		return fmt.Errorf("%w: it is the reading end of a pipe", ErrNotBell)
	}
	return nil
}

// Ring wakes the sleeper, who takes hint as a hint. It never blocks and allocates nothing: a full pipe is a bell that
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
		if _, err := unix.Write(b.n, buf[:]); err != unix.EINTR {
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
