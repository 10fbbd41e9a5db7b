package shmio

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

const (
	bellPipeSize = 4096
	pipefsMagic  = 0x50495045
)

// NewBell makes a bell that this process sleeps on: a pipe. read is for Reactor.WatchBell; write goes to the one who
// rings. Any uid may open it for writing once it has the descriptor, and nobody for reading.
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
	fd   *FD
	n    int
	rung atomic.Uint64
}

// OpenBell takes over write and reopens it: O_NONBLOCK belongs to the open file description, so on a shared one the
// sleeper could make the ringer block.
func OpenBell(write *FD) (*Bell, error) {
	defer write.Close()
	var fs unix.Statfs_t
	if err := unix.Fstatfs(write.Int(), &fs); err != nil || uint64(fs.Type)&0xFFFFFFFF != pipefsMagic {
		return nil, fmt.Errorf("open a bell: it is %s, not a pipe", describe(write.Int()))
	}
	n, err := unix.Open(filepath.Join("/proc/self/fd", strconv.Itoa(write.Int())), unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open a bell (needs /proc): %w", err)
	}
	return &Bell{fd: NewFD(n), n: n}, nil
}

// Ring wakes the sleeper, who takes hint as a hint. It never blocks: a full pipe is a bell that rings already, and one
// whose sleeper is gone wakes nobody.
func (b *Bell) Ring(hint uint32) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if b.fd == nil {
		return
	}
	var buf [4]byte
	binary.NativeEndian.PutUint32(buf[:], hint)
	for {
		_, err := unix.Write(b.n, buf[:])
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	b.rung.Add(1)
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
