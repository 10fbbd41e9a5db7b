package soak

import (
	"context"
	"sync"
)

// gate lets steps through, unless there is a pause.
type gate struct {
	mu      sync.Mutex
	paused  bool
	inside  int
	changed chan struct{} // closed and replaced when any of it changes
}

func (g *gate) change(f func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f()
	close(g.changed)
	g.changed = make(chan struct{})
}

// await waits until cond holds, and then does f; false: ctx ended first. Both are called with mu held.
func (g *gate) await(ctx context.Context, cond func() bool, f func()) bool {
	for {
		g.mu.Lock()
		ok, changed := cond(), g.changed
		if ok {
			f()
		}
		g.mu.Unlock()
		if ok {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

// enter begins a step, when there is no pause; leave ends it.
func (g *gate) enter(ctx context.Context) bool {
	return g.await(ctx, func() bool { return !g.paused }, func() { g.inside++ })
}

// tryEnter begins a step, unless there is a pause.
func (g *gate) tryEnter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.paused {
		g.inside++
	}
	return !g.paused
}

func (g *gate) leave() { g.change(func() { g.inside-- }) }

// pause keeps steps from beginning, and returns when none is under way.
func (g *gate) pause(ctx context.Context) bool {
	g.change(func() { g.paused = true })
	return g.await(ctx, func() bool { return g.inside == 0 }, func() {})
}

func (g *gate) resume() { g.change(func() { g.paused = false }) }
