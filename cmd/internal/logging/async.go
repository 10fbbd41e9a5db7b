package logging

import (
	"fmt"
	"io"
	"sync"
)

// Async writes to another writer from a goroutine of its own, so that whoever logs never waits for whoever reads the log: a
// pipe that nobody empties must not stop a daemon. What doesn't fit the buffer is dropped, counted, and told once there is
// room again. Safe for concurrent use. Close it to write what is buffered.
type Async struct {
	w       io.Writer
	mu      sync.Mutex
	wake    *sync.Cond
	lines   [][]byte
	size    int
	limit   int
	dropped int
	closed  bool
	done    chan struct{}
}

// NewAsync buffers up to limit bytes for w.
func NewAsync(w io.Writer, limit int) *Async {
	a := &Async{w: w, limit: limit, done: make(chan struct{})}
	a.wake = sync.NewCond(&a.mu)
	go a.run()
	return a
}

// Write takes one line; it never waits and never fails.
func (a *Async) Write(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed || a.size+len(p) > a.limit {
		a.dropped++
		return len(p), nil
	}
	a.lines = append(a.lines, append([]byte(nil), p...))
	a.size += len(p)
	a.wake.Signal()
	return len(p), nil
}

func (a *Async) run() {
	defer close(a.done)
	for {
		a.mu.Lock()
		for len(a.lines) == 0 && !a.closed {
			a.wake.Wait()
		}
		lines, dropped := a.lines, a.dropped
		a.lines, a.dropped = nil, 0
		over := a.closed && len(lines) == 0
		a.mu.Unlock()
		for _, l := range lines {
			_, _ = a.w.Write(l) // there is nowhere to complain
			a.mu.Lock()
			a.size -= len(l) // only now is there room again
			a.mu.Unlock()
		}
		if dropped > 0 {
			_, _ = fmt.Fprintf(a.w, "%d lines of the log were dropped: its reader is too slow\n", dropped)
		}
		if over {
			return
		}
	}
}

// Close writes what is buffered and returns once it has, or when giveUp is readable: a reader may be stuck for ever.
func (a *Async) Close(giveUp <-chan struct{}) {
	a.mu.Lock()
	a.closed = true
	a.wake.Signal()
	a.mu.Unlock()
	select {
	case <-a.done:
	case <-giveUp:
	}
}
