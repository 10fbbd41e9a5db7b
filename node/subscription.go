package node

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"sync/atomic"
	"time"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio"
	"github.com/bhome-bus/bhome/wire"
)

// Defaults of a subscription.
const (
	DefaultDepth = 64
	DefaultHold  = 64
)

// Policy says what happens to messages for a subscriber whose queue is full.
type Policy = shmio.Policy

// The policies. Block waits only where the publisher consents (AllowBlock).
const (
	DropOldest = shmio.DropOldest
	DropNewest = shmio.DropNewest
	Block      = shmio.BlockOnFull
)

// SubOption changes how a subscription receives.
type SubOption func(*subOptions)

type subOptions struct {
	msg  bhomev1.Subscribe
	wait shmio.WaitStrategy
}

// Depth is how many messages of each publisher may wait unread: 1 to 65,536; DefaultDepth.
func Depth(n int) SubOption { return func(o *subOptions) { o.msg.Depth = uint32(max(n, 0)) } }

// Hold is how many messages of each publisher may be taken and not yet released: 1 to 65,536; DefaultHold. Nothing more
// is received from a publisher of whose messages so many are held. Short messages that came inline are this process's own
// copies: they don't count.
func Hold(n int) SubOption { return func(o *subOptions) { o.msg.Hold = uint32(max(n, 0)) } }

// OnFull is what happens when Depth messages wait; DropOldest by default.
func OnFull(p Policy) SubOption { return func(o *subOptions) { o.msg.OnFull = bhomev1.Policy(p) } }

// Expiry drops messages that are older than d when they would be received; 0: none.
func Expiry(d time.Duration) SubOption { return func(o *subOptions) { o.msg.ExpiryNs = int64(d) } }

// Quota is how many bytes of each publisher's memory this subscription may hold, unread and unreleased; 0: the bus's
// default. One message may be larger.
func Quota(bytes uint64) SubOption { return func(o *subOptions) { o.msg.Quota = bytes } }

// History asks each publisher that keeps some (Keep) for its last messages first: as many as fit Depth and Quota.
func History() SubOption { return func(o *subOptions) { o.msg.History = true } }

// Wait is how Receive waits; the node's strategy by default.
func Wait(s WaitStrategy) SubOption { return func(o *subOptions) { o.wait = s } }

// Subscription receives what is published on the topics that its pattern matches.
type Subscription struct {
	n          *Node
	msg        *bhomev1.Subscribe
	told       told // under n.mu
	inbox      *shmio.Inbox
	slots      slots
	expired    atomic.Uint64
	closed     atomic.Bool
	disallowed atomic.Pointer[error] // why a later center ended it; stored before closed, loaded by who finds that it is

	mu     sync.Mutex
	routes map[uint64]*inRoute
	past   uint64 // drops of routes that are over
}

// Subscribe receives all that is published on topics that match pattern: exact, `a.` and `a.>` (all below), `*` for one
// token. Everything published after it returned arrives, as far as depth and policy allow. Close it when done.
func (n *Node) Subscribe(ctx context.Context, pattern string, opts ...SubOption) (*Subscription, error) {
	if err := wire.ValidatePattern(pattern); err != nil {
		return nil, fmt.Errorf("subscribe: %w", err)
	}
	o := subOptions{wait: n.cfg.Wait}
	o.msg.Depth, o.msg.Hold = DefaultDepth, DefaultHold
	for _, f := range opts {
		f(&o)
	}
	if o.msg.Depth < 1 || o.msg.Depth > 65536 || o.msg.Hold < 1 || o.msg.Hold > 65536 {
		return nil, fmt.Errorf("subscribe to %q: %w: depth %d and hold %d must be 1 to 65536", pattern, ErrInvalid, o.msg.Depth, o.msg.Hold)
	}
	if o.msg.OnFull < 0 || o.msg.OnFull > 2 || o.msg.ExpiryNs < 0 {
		return nil, fmt.Errorf("subscribe to %q: %w: policy %d, expiry %d ns", pattern, ErrInvalid, o.msg.OnFull, o.msg.ExpiryNs)
	}
	s := &Subscription{n: n, inbox: shmio.NewInbox(o.wait), routes: map[uint64]*inRoute{}}
	s.msg = &bhomev1.Subscribe{Subscription: n.sinkSeq.Add(1), Pattern: pattern, Depth: o.msg.Depth, Hold: o.msg.Hold,
		OnFull: o.msg.OnFull, Quota: o.msg.Quota, ExpiryNs: o.msg.ExpiryNs, History: o.msg.History}
	s.slots.n = n
	if err := n.addSink(s.msg.Subscription, s); err != nil {
		return nil, fmt.Errorf("subscribe to %q: %w", pattern, err)
	}
	if err := n.tell(ctx, &s.told, func(lk *link) error { return s.subscribe(ctx, lk) }); err != nil {
		s.shut()
		return nil, fmt.Errorf("subscribe to %q: %w", pattern, err)
	}
	return s, nil
}

func (s *Subscription) subscribe(ctx context.Context, lk *link) error {
	return lk.callInto(ctx, upBus, wire.SocketSub, bhomev1.MsgType_MSG_TYPE_SUBSCRIBE, s.msg, &bhomev1.CommonReply{}, s.Pattern())
}

// Pattern is what was subscribed to.
func (s *Subscription) Pattern() string { return s.msg.GetPattern() }

// Receive waits for the next message: the caller's, to Release. Several goroutines may receive; each message goes to one.
func (s *Subscription) Receive(ctx context.Context) (Message, error) {
	for {
		sl, r, err := s.slots.receive(ctx, s.inbox)
		if m, ok, err := s.took(sl, r, err); ok || err != nil {
			return m, err
		}
	}
}

// TryReceive is Receive that doesn't wait: false if there is nothing.
func (s *Subscription) TryReceive() (Message, bool, error) {
	for {
		sl, r, err := s.slots.tryReceive(s.inbox)
		if r == nil && err == nil {
			return Message{}, false, nil
		}
		if m, ok, err := s.took(sl, r, err); ok || err != nil {
			return m, ok, err
		}
	}
}

// took makes the message of what the inbox gave; neither ok nor an error: there was nothing for the caller in it.
func (s *Subscription) took(sl *slot, rd *shmio.Reader, err error) (Message, bool, error) {
	if err != nil {
		if rd != nil { // its sender spoiled it: that is between us and that sender
			rd.Tag().(*inRoute).spoiled(err)
			return Message{}, false, nil
		}
		if errors.Is(err, shmio.ErrInboxClosed) {
			err = s.n.whyClosed()
			if why := s.disallowed.Load(); why != nil {
				err = *why
			}
		}
		return Message{}, false, fmt.Errorf("receive on %q: %w", s.Pattern(), err)
	}
	r := rd.Tag().(*inRoute)
	ok := s.accept(r, sl)
	if r.ending.Load() {
		r.drained()
	}
	if !ok {
		sl.refuse()
		return Message{}, false, nil
	}
	if sl.rec.IsBlock() {
		r.peer.space.WillRead(sl.rec.Next, len(sl.rec.Payload)) // it comes while the caller reads this one
	}
	sl.alone().route = r
	return sl.message(), true, nil
}

// accept finds out what came in sl; false: it is nothing for the caller, and has been returned, or comes again.
func (s *Subscription) accept(r *inRoute, sl *slot) bool {
	t, err := r.read(&sl.received)
	if err != nil {
		if !errors.Is(err, errPutBack) {
			r.reject(err)
		}
		return false
	}
	expired := s.msg.GetExpiryNs() > 0 && sl.age() > time.Duration(s.msg.GetExpiryNs())
	if t != nil && !expired {
		sl.topic = &t.name
		return true
	}
	if sl.rec.IsBlock() {
		r.giveBackRecord(&sl.rec)
	}
	if expired {
		s.expired.Add(1)
	} else {
		s.n.badWord("a message of "+r.peer.name, fmt.Errorf("%w: topic id %d is not its route's", wire.ErrBadHeader, sl.rec.Head.Topic()))
	}
	return false
}

// Messages receives until ctx ends or the subscription is closed; Err then says which. The caller releases each message.
func (s *Subscription) Messages(ctx context.Context) iter.Seq[Message] {
	return func(yield func(Message) bool) {
		for {
			m, err := s.Receive(ctx)
			if err != nil || !yield(m) {
				return
			}
		}
	}
}

// Err says why nothing more is received: nil while open, ErrClosed after Close, or what ended the node.
func (s *Subscription) Err() error {
	if err := s.n.Err(); err != nil {
		return err
	}
	if why := s.disallowed.Load(); why != nil {
		return *why
	}
	if s.closed.Load() {
		return ErrClosed
	}
	return nil
}

// SubStats is what a subscription has counted.
type SubStats struct {
	Received   uint64 // by Receive; what is being looked at counts until it is refused
	Dropped    uint64 // by policy, at the publishers: their word
	Expired    uint64 // older than Expiry
	Unread     uint64 // waiting
	Held       uint64 // received and not released
	Publishers int    // processes with a route to here
}

// Stats counts now.
func (s *Subscription) Stats() SubStats {
	st := SubStats{Received: s.received(), Expired: s.expired.Load(), Held: s.slots.held(s.inbox)}
	s.mu.Lock()
	defer s.mu.Unlock()
	st.Publishers, st.Dropped = len(s.routes), s.past
	for _, r := range s.routes {
		unread, dropped := r.counts()
		st.Unread += unread
		st.Dropped += dropped
	}
	return st
}

// Close ends the subscription. Messages held stay valid until they are released.
func (s *Subscription) Close(ctx context.Context) error {
	if !s.shut() {
		return nil
	}
	lk := s.n.link.Load()
	if lk == nil {
		return nil // the next center never hears of it
	}
	err := lk.settle(ctx)
	if err == nil {
		err = s.unsubscribe(ctx, lk)
	}
	if err != nil && !errors.Is(err, ErrDisconnected) {
		return fmt.Errorf("unsubscribe from %q: %w", s.Pattern(), err)
	}
	return nil
}

func (s *Subscription) unsubscribe(ctx context.Context, lk *link) error {
	return lk.callInto(ctx, upBus, wire.SocketSub, bhomev1.MsgType_MSG_TYPE_UNSUBSCRIBE,
		&bhomev1.Unsubscribe{Subscription: s.msg.GetSubscription()}, &bhomev1.CommonReply{}, s.Pattern())
}

// shut is Close within this process; false if it was closed.
func (s *Subscription) shut() bool {
	if !s.closed.CompareAndSwap(false, true) {
		return false
	}
	s.n.removeSink(s.msg.GetSubscription())
	s.inbox.Close()
	s.mu.Lock()
	routes := make([]*inRoute, 0, len(s.routes))
	for _, r := range s.routes {
		routes = append(routes, r)
	}
	s.mu.Unlock()
	for _, r := range routes {
		r.abandon()
	}
	return true
}

func (s *Subscription) queue() *shmio.Inbox { return s.inbox }

func (s *Subscription) places() *slots { return &s.slots }

func (s *Subscription) received() uint64 { return s.slots.received(s.inbox) }

func (s *Subscription) refused(*inRoute, *received) {}

func (s *Subscription) routeAdded(r *inRoute) {
	s.mu.Lock()
	s.routes[r.id] = r
	s.mu.Unlock()
	if s.closed.Load() { // shut may have missed it
		r.abandon()
	}
}

func (s *Subscription) routeOver(r *inRoute) {
	s.mu.Lock()
	if s.routes[r.id] == r {
		delete(s.routes, r.id)
		_, dropped := r.counts()
		s.past += dropped
	}
	s.mu.Unlock()
}
