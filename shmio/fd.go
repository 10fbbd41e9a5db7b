package shmio

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// FD owns one descriptor. Close is idempotent; all methods are safe for concurrent use. One that is lost is closed by
// the garbage collector, sooner or later: who uses the number that Int gives must keep the FD reachable (and open) as
// long as that.
type FD struct {
	mu      sync.RWMutex // held for reading while the descriptor is in use, so that its number can't be reused
	n       int          // -1 once closed
	shared  *shared      // set by Share: the descriptor is closed with the last of its handles
	late    bool         // whoever closes it last may have to wait; fixed once others know f
	cleanup runtime.Cleanup
}

// shared is a descriptor with several handles.
type shared struct {
	n    int
	refs atomic.Int64 // handles; pairs with itself: the one that takes it to zero closes
}

func (s *shared) release() error {
	if s.refs.Add(-1) > 0 {
		return nil
	}
	return unix.Close(s.n)
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

// Share is another handle of the same descriptor, owned by the caller: it costs no descriptor, and stays usable when f is
// closed. Error: os.ErrClosed.
func (f *FD) Share() (*FD, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.n < 0 {
		return nil, fmt.Errorf("share a descriptor: %w", os.ErrClosed)
	}
	if f.shared == nil {
		f.shared = &shared{n: f.n}
		f.shared.refs.Store(1)
		f.cleanup.Stop()
		f.cleanup = runtime.AddCleanup(f, (*shared).drop, f.shared)
	}
	f.shared.refs.Add(1)
	g := &FD{n: f.n, shared: f.shared}
	g.cleanup = runtime.AddCleanup(g, (*shared).drop, f.shared)
	return g, nil
}

func (s *shared) drop() { _ = s.release() } // the last resort against leaks: nobody is left to tell

// Close closes the descriptor, once. It can take long with one that another process made (a lingering socket, FUSE).
func (f *FD) Close() error {
	f.mu.Lock()
	n, shared := f.n, f.shared
	f.n = -1
	f.mu.Unlock()
	if n < 0 {
		return nil
	}
	f.cleanup.Stop()
	runtime.KeepAlive(f) // until here the clean-up could have closed it too
	closeIt := func() error { return unix.Close(n) }
	if shared != nil {
		closeIt = shared.release
	} else if f.late {
		closeIt = func() error { return closeLate(n) }
	}
	if err := closeIt(); err != nil {
		return fmt.Errorf("close descriptor %d: %w", n, err)
	}
	return nil
}

// closeLate closes n, and leaves it to a goroutine of its own to be the last who has that description open.
func closeLate(n int) error {
	if dup, err := unix.FcntlInt(uintptr(n), unix.F_DUPFD_CLOEXEC, 0); err == nil {
		time.AfterFunc(lateBy, func() { _ = unix.Close(dup) }) // nothing depends on how it ends
	}
	return unix.Close(n)
}

// lateBy is more than it takes those who sleep at a bell that is closed to leave it.
const lateBy = time.Second

func closeAll(fds []*FD) {
	for _, f := range fds {
		_ = f.Close() // nothing depends on how it ends
	}
}
