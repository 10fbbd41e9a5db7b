package actors

import (
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/bhome-bus/bhome/shmio"
)

// idleTicks is how many seconds lie between two looks at the hearts of those that aren't busy.
func idleTicks(offlineAfter time.Duration) uint64 {
	return uint64(min(5, max(1, offlineAfter/(4*time.Second))))
}

// look counts the node's heartbeats.
func (a *admitted) look(now int64) {
	if n, open := a.heart.CounterUntilClose(shmio.CounterBeats); open && n != a.beats { // any change will do
		a.beats, a.beat = n, now
	}
}

// onTick is the second's work: the sweep, the heartbeats, the public counters.
func (c *center) onTick(ctx actor.Context) {
	if c.cfg.hooks.ownTicks {
		return
	}
	c.tickAll(ctx, monotonic())
}

// tickAll tells whom it concerns that it is now.
func (c *center) tickAll(ctx actor.Context, now int64) {
	c.refusals.expire(now)
	// Busy sessions are told. The others are woken only if their nodes fall silent: 1,000 idle ones cost 1,000 loads now and then. A node's heart
	// beats three times in OfflineAfter.
	c.ticks++
	look := c.ticks%idleTicks(c.cfg.OfflineAfter) == 0
	for _, a := range c.sessions {
		if !a.busy && !look {
			continue
		}
		a.look(now)
		if a.busy || now-a.beat > int64(c.cfg.OfflineAfter*2/3) {
			ctx.Send(a.pid, &tick{now: now, beat: a.beat})
		}
	}
	if c.living == nil {
		c.living = make(map[uint64]struct{}, len(c.sessions))
		for id := range c.sessions {
			c.living[id] = struct{}{}
		}
	}
	ctx.Send(c.roles.pubsub, &tick{now: now})
	ctx.Send(c.roles.registry, &tick{now: now})
	ctx.Send(c.roles.procs, &tick{now: now})
	living := c.living
	ctx.Send(c.roles.msgs, &tick{now: now, public: c.public, sessions: len(living), alive: func(s uint64) bool { _, ok := living[s]; return ok }})
}
