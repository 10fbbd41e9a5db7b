package node

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/bhome-bus/bhome/shmio"
)

// coarseClock gives messages their stamps. Reading the machine's clock costs some 50 ns, a quarter of sending a small
// message: under load a goroutine reads it every few milliseconds for all, as CLOCK_MONOTONIC_COARSE would. A lone
// message is stamped exactly.
type coarseClock struct {
	now     atomic.Uint64 // 0: nobody keeps it; pairs with keep's stores
	reads   atomic.Uint32 // since the last look at them
	since   atomic.Uint64 // when that was
	keeping atomic.Bool   // a goroutine is at it; pairs with its end
}

const (
	clockTick = 2 * time.Millisecond
	clockBusy = 256 // reads within a tick from which on it pays
)

// stamp is ns of CLOCK_MONOTONIC, at most a few milliseconds old. nth is the message's number on its topic, 0 if it is
// for many.
func (c *coarseClock) stamp(n *Node, nth uint64) uint64 {
	if now := c.now.Load(); now != 0 {
		const sample = 16 // a locked instruction for each would cost as much as the rest
		if nth%sample == 0 {
			c.reads.Add(sample)
		}
		return now
	}
	now := shmio.CoarseNow()
	if c.reads.Add(1) < clockBusy {
		return now
	}
	c.reads.Store(0)
	if since := c.since.Swap(now); now-since < uint64(clockTick) && c.keeping.CompareAndSwap(false, true) {
		c.now.Store(now)
		n.background(c.keep)
	}
	return now
}

// keep reads the clock for all until there is no load.
func (c *coarseClock) keep(ctx context.Context) {
	defer c.keeping.Store(false)
	defer c.now.Store(0)
	t := time.NewTicker(clockTick)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		c.now.Store(shmio.CoarseNow())
		if c.reads.Swap(0) < clockBusy/4 {
			return
		}
	}
}
