package soak

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/bhome-bus/bhome/node"
)

// subSpec is one subscription of a process.
type subSpec struct {
	Pattern     string
	Policy      node.Policy
	Depth, Hold int
	Quota       uint64
	Expiry      time.Duration
	History     bool
	Batch       bool          // ReceiveBatch
	Stall       time.Duration // how long it holds or sleeps, at most
}

// track is what a subscription has had of one publisher.
type track struct {
	Member, Slot uint32
	First        uint64 // position of the first
	Next         uint64 // after the last
	Count        uint64
	Lossless     bool
	Lost, LostAt uint64 // though nothing may be: how many, and the first
	seq          uint64
}

// subReport is how a subscription stands.
type subReport struct {
	Gen    int
	Stats  node.SubStats
	Tracks []track
}

type subscriber struct {
	w     *worker
	index int
	spec  subSpec
	r     *rand.Rand
	slot  slot
	held  []node.Message

	mu     sync.Mutex // below, which reports read
	sub    *node.Subscription
	gen    int
	tracks map[[2]uint32]*track
}

func (s *subscriber) open(ctx context.Context) error {
	w := s.w
	if s.slot == nil {
		w.slots.Lock()
		_, slot, err := w.j.add(slotSub, s.index)
		w.slots.Unlock()
		if err != nil {
			return err
		}
		s.slot = slot
	}
	opts := []node.SubOption{node.OnFull(s.spec.Policy), node.Depth(s.spec.Depth), node.Hold(s.spec.Hold), node.Quota(s.spec.Quota), node.Expiry(s.spec.Expiry)}
	if s.spec.History {
		opts = append(opts, node.History())
	}
	sub, err := w.n.Subscribe(ctx, s.spec.Pattern, opts...)
	if err != nil {
		return err
	}
	s.mu.Lock()
	gen := s.gen
	s.sub, s.tracks = sub, map[[2]uint32]*track{}
	s.mu.Unlock()
	w.emit(ctx, evSubscribed, subscribedEvent{s.index, gen})
	return nil
}

func (s *subscriber) run(ctx context.Context) error {
	defer s.releaseAll()
	into := make([]node.Message, 32)
	for {
		n, err := s.receive(ctx, into)
		if err != nil {
			return err
		}
		for _, m := range into[:n] {
			err := s.take(m)
			if s.w.cfg.Inject == Double && err == nil && s.slot.get(cBegun) > injectAt {
				err = s.take(m)
			}
			if err != nil {
				return fmt.Errorf("subscription %+v (generation %d): %w", s.spec, s.gen, err)
			}
		}
		if n == 0 || len(s.held) >= s.spec.Hold/2 || s.r.IntN(8) == 0 {
			if n > 0 && s.r.IntN(64) == 0 {
				s.w.stall(ctx, time.Duration(s.r.Int64N(int64(s.spec.Stall)+1)))
			}
			s.w.maybeExit()
			if err := s.releaseAll(); err != nil {
				return err
			}
		}
		if s.w.cfg.Churn && s.r.IntN(20000) < n {
			if err := s.renew(ctx); err != nil {
				return err
			}
		}
	}
}

// idle is how long it waits for another message while it holds some.
const idle = 20 * time.Millisecond

// receive takes what there is; nothing within idle, while messages are held, is no error.
func (s *subscriber) receive(ctx context.Context, into []node.Message) (int, error) {
	bound := ctx
	if len(s.held) > 0 {
		var cancel context.CancelFunc
		bound, cancel = context.WithTimeout(ctx, idle)
		defer cancel()
	}
	var n int
	var err error
	if s.spec.Batch {
		n, err = s.sub.ReceiveBatch(bound, into)
	} else if into[0], err = s.sub.Receive(bound); err == nil {
		n = 1
	}
	if err != nil && ctx.Err() == nil && bound.Err() != nil && errors.Is(err, context.DeadlineExceeded) {
		return 0, nil
	}
	return n, err
}

// take checks one message and keeps it for a while.
func (s *subscriber) take(m node.Message) error {
	s.held = append(s.held, m)
	h, err := parse(m.Bytes())
	if err != nil {
		return fmt.Errorf("a message of %s on %q: %w", m.Publisher(), m.Topic(), err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	key := [2]uint32{h.Member, h.Slot}
	t := s.tracks[key]
	if t == nil {
		t = &track{Member: h.Member, Slot: h.Slot, First: h.Position, Next: h.Position, Lossless: s.spec.Policy == node.Block && h.Flags == lossless}
		s.tracks[key] = t
	}
	switch {
	case h.Position < t.Next:
		return fmt.Errorf("message %d (number %d) of member %d, slot %d, on %q, came doubled or out of order: before it came %d to %d, %d messages, the last with number %d",
			h.Position, m.Seq(), h.Member, h.Slot, m.Topic(), t.First, t.Next-1, t.Count, t.seq)
	case h.Position > t.Next && t.Lossless:
		if t.Lost == 0 {
			t.LostAt = t.Next
		}
		t.Lost += h.Position - t.Next
	}
	if m.Seq() <= t.seq {
		return fmt.Errorf("message %d of member %d, slot %d, has the number %d, the one before had %d", h.Position, h.Member, h.Slot, m.Seq(), t.seq)
	}
	t.Next, t.seq = h.Position+1, m.Seq()
	t.Count++
	s.slot.add(cBegun, 1)
	s.slot.add(cBytes, uint64(len(m.Bytes())))
	return nil
}

// releaseAll gives back what is held, in any order.
func (s *subscriber) releaseAll() error {
	s.r.Shuffle(len(s.held), func(i, j int) { s.held[i], s.held[j] = s.held[j], s.held[i] })
	err := node.ReleaseBatch(s.held)
	clear(s.held)
	s.held = s.held[:0]
	return err
}

// renew closes the subscription, holding messages across it, and opens another.
func (s *subscriber) renew(ctx context.Context) error {
	if !s.w.gate.tryEnter() { // others wait for what it holds
		return nil
	}
	defer s.w.gate.leave()
	if err := s.sub.Close(ctx); err != nil {
		return err
	}
	for _, m := range s.held { // what is held stays valid
		if _, err := parse(m.Bytes()); err != nil {
			return fmt.Errorf("held across Close: %w", err)
		}
	}
	s.mu.Lock()
	s.gen++
	s.mu.Unlock()
	return s.open(ctx)
}

func (s *subscriber) report() subReport {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := subReport{Gen: s.gen, Stats: s.sub.Stats()}
	for _, t := range s.tracks {
		r.Tracks = append(r.Tracks, *t)
	}
	return r
}

// forget drops the tracks of all but the living.
func (s *subscriber) forget(living []uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key := range s.tracks {
		if !slices.Contains(living, key[0]) {
			delete(s.tracks, key)
		}
	}
}
