package node

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/bhome-bus/bhome/shmio"
)

const (
	seatAgain = 2                // waits for a peer without a seat at its bell, after it had to be given up
	maxSeats  = 8                // of a node: each is a descriptor
	seatIdle  = 10 * time.Second // after which others may have it
)

// seating is who waits for a peer to ring: one that waits alone sleeps at the bell itself, in Go's netpoller, so that a ring wakes it and
// nobody else; more than one leave the bell to the reactor. It is under the peer's mu.
type seating struct {
	seat    *seat
	without int // so many waits more have no seat
	waiting int // goroutines
}

// seat is a seat, and what its sleeper needs: made once, as waiting allocates nothing.
type seat struct {
	*shmio.Seat
	kick    func()
	taken   bool            // somebody is on it
	used    uint64          // when somebody last sat down, by shmio.CoarseNow
	watched <-chan struct{} // the context whose end kicks; its sleeper's
	unwatch func() bool
	seats   *atomic.Int32 // the node's
}

// sit is called by who is about to wait for p: the seat to sleep on, nil if it is to wait for the reactor. rise must follow.
func (p *peer) sit() *seat {
	p.mu.Lock()
	defer p.mu.Unlock()
	g := &p.seating
	g.waiting++
	switch {
	case g.waiting > 1:
		if g.seat != nil && !g.seat.taken {
			g.drop()
		}
		return nil
	case g.seat == nil && (p.deaf || p.bellWatch == nil):
		return nil
	case g.seat == nil:
		if g.without > 0 {
			g.without--
			return nil
		}
		if p.n.seats.Add(1) > maxSeats {
			p.n.seats.Add(-1)
			return nil
		}
		s, err := p.bellWatch.TakeSeat()
		if err != nil { // no descriptor is left: the reactor goes on to hear it
			p.n.seats.Add(-1)
			g.without = seatAgain
			return nil
		}
		g.seat = &seat{Seat: s, kick: s.Kick, seats: &p.n.seats}
	}
	g.seat.taken, g.seat.used = true, shmio.CoarseNow()
	return g.seat
}

// clearSeats gives up the seats that nobody has used for longer than idle: there are few, and others may wait more often.
func (n *Node) clearSeats(idle time.Duration) {
	if n.seats.Load() == 0 {
		return
	}
	n.mu.Lock()
	peers := make([]*peer, 0, len(n.peers))
	for _, p := range n.peers {
		peers = append(peers, p)
	}
	n.mu.Unlock()
	now := shmio.CoarseNow()
	for _, p := range peers {
		p.mu.Lock()
		if g := &p.seating; g.seat != nil && !g.seat.taken && int64(now-g.seat.used) >= int64(idle) {
			g.drop()
			g.without = 0
		}
		p.mu.Unlock()
	}
}

// rise ends what sit began. spoiled: nobody will ring the bell any more.
func (p *peer) rise(s *seat, spoiled bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	g := &p.seating
	g.waiting--
	if s == nil {
		return
	}
	s.taken = false
	switch {
	case g.seat != s: // it was dropped meanwhile
		s.forget()
	case spoiled || g.waiting > 0: // the others wait for the reactor
		g.drop()
	}
}

// drop gives the bell back to the reactor.
func (g *seating) drop() {
	s := g.seat
	if s == nil {
		return
	}
	g.seat, g.without = nil, seatAgain
	s.Leave()
	s.seats.Add(-1)
	if !s.taken { // else its sleeper does
		s.forget()
	}
}

// forget lets go of the context that was watched last.
func (s *seat) forget() {
	if s.unwatch != nil {
		s.unwatch()
		s.unwatch = nil
	}
}

// sleep waits on s for w to be woken, until ctx ends, or until then (zero: no limit); false: nobody will ring any more.
func (s *seat) sleep(ctx context.Context, w *shmio.Writer, until time.Time) (ok bool) {
	if done := ctx.Done(); done != s.watched { // senders tend to come again with the same one
		s.forget()
		if done != nil {
			s.unwatch = context.AfterFunc(ctx, s.kick)
		}
		s.watched = done
	}
	s.Prepare(until)
	w.SetAlarm(&s.kick)
	select {
	case <-w.SpaceC():
		ok = true
	default:
		ok = ctx.Err() != nil || s.Sleep()
	}
	w.SetAlarm(nil)
	s.Tell()
	return ok
}
