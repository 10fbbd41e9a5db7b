package shmio

import (
	"fmt"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// FD owns one descriptor. Close is idempotent; all methods are safe for concurrent use, as long as nobody uses Int
// while another closes. One that is lost is closed by the garbage collector.
type FD struct {
	mu      sync.Mutex
	n       int
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
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.n
}

// Dup is another descriptor of the same open file description, owned by the caller.
func (f *FD) Dup() (*FD, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := unix.FcntlInt(uintptr(f.n), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("duplicate descriptor %d: %w", f.n, err)
	}
	return NewFD(n), nil
}

// Close closes the descriptor, once.
func (f *FD) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.n < 0 {
		return nil
	}
	n := f.n
	f.n = -1
	f.cleanup.Stop()
	if err := unix.Close(n); err != nil {
		return fmt.Errorf("close descriptor %d: %w", n, err)
	}
	return nil
}

// take gives up ownership: the caller has the descriptor now. -1 if it was closed.
func (f *FD) take() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.n
	f.n = -1
	f.cleanup.Stop()
	return n
}

func closeAll(fds []*FD) {
	for _, f := range fds {
		_ = f.Close() // nothing depends on how it ends
	}
}
