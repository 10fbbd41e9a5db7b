package shmio

import (
	"fmt"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// FD owns one descriptor. Close is idempotent; all methods are safe for concurrent use. One that is lost is closed by
// the garbage collector, sooner or later: who uses the number that Int gives must keep the FD reachable (and open) as
// long as that.
type FD struct {
	mu      sync.RWMutex // held for reading while the descriptor is in use, so that its number can't be reused
	n       int          // -1 once closed
	cleanup runtime.Cleanup
}

// NewFD takes over descriptor n.
func NewFD(n int) *FD {
	f := &FD{n: n}
	f.cleanup = runtime.AddCleanup(f, func(n int) { _ = unix.Close(n) }, n) // the last resort against leaks: nobody is left to tell
	return f
}

// Int is the descriptor, still owned by f; -1 once closed.
func (f *FD) Int() int {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.n
}

// with calls use, which must not wait for anything, with the descriptor; os.ErrClosed if there is none any more.
func (f *FD) with(use func(n int) error) error {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.n < 0 {
		return os.ErrClosed
	}
	return use(f.n)
}

// Dup is another descriptor of the same open file description, owned by the caller. Error: os.ErrClosed.
func (f *FD) Dup() (dup *FD, err error) {
	err = f.with(func(n int) error {
		d, err := unix.FcntlInt(uintptr(n), unix.F_DUPFD_CLOEXEC, 0)
		if err == nil {
			dup = NewFD(d)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("duplicate a descriptor: %w", err)
	}
	return dup, nil
}

// Close closes the descriptor, once. It can take long with one that another process made (a lingering socket, FUSE).
func (f *FD) Close() error {
	f.mu.Lock()
	n := f.n
	f.n = -1
	f.mu.Unlock()
	if n < 0 {
		return nil
	}
	f.cleanup.Stop()
	runtime.KeepAlive(f) // until here the clean-up could have closed it too
	if err := unix.Close(n); err != nil {
		return fmt.Errorf("close descriptor %d: %w", n, err)
	}
	return nil
}

func closeAll(fds []*FD) {
	for _, f := range fds {
		_ = f.Close() // nothing depends on how it ends
	}
}
