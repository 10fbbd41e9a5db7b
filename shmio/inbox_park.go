package shmio

import (
	"context"
	"time"
)

// park waits until a bell rings or somebody signals. Called with mu held, and returns with it.
func (in *Inbox) park(ctx context.Context) error {
	in.waiters++
	adaptive := in.spin.strategy == Adaptive && !in.spinning
	var start time.Time
	if adaptive {
		start = time.Now()
	}
	var err error
	if r := in.rung; r != nil && (in.rings >= favourAfter || in.favourite == nil) && r != in.favourite && !in.leading {
		in.favour(r)
	}
	if in.favourite != nil && !in.leading && !in.spinning {
		err = in.lead(ctx)
	} else {
		in.mu.Unlock()
		select {
		case <-in.signal:
		case <-in.done:
		case <-ctx.Done():
			err = ctx.Err()
		}
		in.mu.Lock()
	}
	in.waiters--
	if adaptive && !in.spinning {
		in.spin.parked(time.Since(start))
	}
	return err
}

// lead sleeps at the favourite's bell. Called with mu held, and returns with it.
func (in *Inbox) lead(ctx context.Context) error {
	if done := ctx.Done(); done != in.watched { // receivers tend to come again with the same one
		if in.unwatch != nil {
			in.unwatch()
			in.unwatch = nil
		}
		if done != nil {
			in.unwatch = context.AfterFunc(ctx, in.kickLeader)
		}
		in.watched = done
	}
	if err := ctx.Err(); err != nil {
		return err // then nobody may have been there to be kicked
	}
	in.leading = true
	r, bed := in.favourite, in.bed
	in.mu.Unlock()
	ok := bed.sleep()
	in.mu.Lock()
	in.leading = false
	switch {
	case in.bed != bed: // removed meanwhile
	case !ok:
		in.unfavour() // its writer is gone; the reactor hears how it ends
	default:
		if bed.rang && !r.heardRing() {
			in.unfavour()
		}
		if r.place.hot < 0 {
			in.heat(r)
		}
	}
	if bed.rang {
		in.rung, in.rings = nil, 0
	}
	return ctx.Err()
}

// kickLeader has the leader look at its context.
func (in *Inbox) kickLeader() {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.leading && in.bed != nil {
		in.bed.kick()
	}
}
