package node

import (
	"context"
	"sync"
	"time"
)

// jobContext is what a handler gets: its service's context, which the end of the request ends, too. Most handlers never look at
// it, so that what context needs is made only once somebody does. Safe for concurrent use.
type jobContext struct {
	parent context.Context

	mu     sync.Mutex
	over   bool
	cause  error
	own    context.Context // nil: nobody has looked
	finish context.CancelCauseFunc
}

// look makes the context proper.
func (c *jobContext) look() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.own == nil {
		c.own, c.finish = context.WithCancelCause(c.parent)
		if c.over {
			c.finish(c.cause)
		}
	}
	return c.own
}

// cancel ends it; the first cause stays.
func (c *jobContext) cancel(cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return
	}
	c.over, c.cause = true, cause
	if c.finish != nil {
		c.finish(cause)
	}
}

// why is context.Cause of it.
func (c *jobContext) why() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.own != nil {
		return context.Cause(c.own)
	}
	switch {
	case !c.over:
		return context.Cause(c.parent)
	case c.cause != nil:
		return c.cause
	}
	return context.Canceled
}

func (c *jobContext) err() error {
	if c.over {
		return context.Canceled
	}
	return c.parent.Err()
}

// Deadline implements context.Context.
func (c *jobContext) Deadline() (time.Time, bool) { return c.parent.Deadline() }

// Done implements context.Context.
func (c *jobContext) Done() <-chan struct{} { return c.look().Done() }

// Value implements context.Context. What package context itself asks for is there, and so are context.Cause and children at no
// goroutine's cost.
func (c *jobContext) Value(key any) any { return c.look().Value(key) }

// Err implements context.Context.
func (c *jobContext) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.own != nil {
		return c.own.Err()
	}
	return c.err()
}
