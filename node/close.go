package node

import (
	"context"
	"time"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/wire"
)

// Close leaves the bus. It ends the services (their handlers see their context end), sends what waits for room for 3 s at
// most, waits until the program has released the messages and replies it holds, and then lets everything go; ctx bounds
// all of that. What could not be sent, or is still held, is a *NotSentError. The bytes of held messages stay valid until
// they are released: until then the process keeps its link, without a name, a topic or a service, and lets go after it.
// What was sent before is still delivered. Further calls return nil.
func (n *Node) Close(ctx context.Context) error {
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		return nil
	}
	n.closed = true
	var services []*Service
	var subs []*Subscription
	for _, s := range n.sinks {
		switch s := s.(type) {
		case *Service:
			services = append(services, s)
		case *Subscription:
			subs = append(subs, s)
		}
	}
	n.mu.Unlock()
	for _, s := range services {
		// The center learns it from Unregister at the latest.
		_ = s.Close(ctx)
	}
	var result NotSentError
	result.Messages = n.flush(ctx)
	for _, s := range subs {
		s.shut()
	}
	result.Held = n.awaitReleases(ctx)
	n.end(ErrClosed, StateClosed)
	// Senders take back what a session holds when it ends: it must outlive what the program holds of theirs.
	linger := result.Held > 0 && n.Stats().Held > 0
	if lk := n.link.Load(); lk != nil {
		bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		if linger {
			for _, s := range subs {
				_ = s.unsubscribe(bound, lk)
			}
		}
		// A center that doesn't answer sees the Bye, or the end of the process.
		_, _ = lk.call(bound, upCenter, wire.SocketNode, bhomev1.MsgType_MSG_TYPE_UNREGISTER, &bhomev1.Unregister{})
		cancel()
	}
	if linger {
		go n.linger()
	} else {
		n.leave()
	}
	if result.Messages > 0 || result.Held > 0 {
		return &result
	}
	return nil
}

// linger leaves once the program has released the last message. There is nobody to wait for it.
func (n *Node) linger() {
	for wait := time.Millisecond; n.Stats().Held > 0; wait = min(2*wait, time.Second) {
		time.Sleep(wait)
	}
	n.leave()
}

func (n *Node) leave() {
	if lk := n.link.Load(); lk != nil {
		_ = lk.sendSocket(bhomev1.MsgType_MSG_TYPE_BYE, &bhomev1.Bye{})
	}
	n.teardown()
}

// flush sends what waits for room, and returns how much it couldn't.
func (n *Node) flush(ctx context.Context) (left int) {
	ctx, cancel := context.WithTimeout(ctx, flushAtClose)
	defer cancel()
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		left = 0
		for _, o := range n.outRoutes() {
			left += o.pending.len()
		}
		if left == 0 {
			return 0
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return left
		}
	}
}

// awaitReleases waits until the program holds no message and no loan, and returns how many it does.
func (n *Node) awaitReleases(ctx context.Context) int {
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		held := n.Stats().Held + int(n.mag.loaned.Load())
		if held == 0 {
			return 0
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			if n.cfg.Debug {
				n.log.Warn("messages are not released", "count", held)
			}
			return held
		}
	}
}

// teardown ends the goroutines and frees what can be freed.
func (n *Node) teardown() {
	n.stop()
	if lk := n.link.Swap(nil); lk != nil {
		lk.close()
		n.mag.dropLink(lk)
	}
	n.replies.inbox.Close()
	for _, o := range n.outRoutes() { // ends what waits for room
		o.mu.Lock()
		o.over = true
		o.mu.Unlock()
		o.w.WakeSpace()
	}
	n.wg.Wait()
	n.life.Lock()
	n.mu.Lock()
	n.torn = true
	pubs := make([]*topicPub, 0, len(n.pubs))
	for _, tp := range n.pubs {
		pubs = append(pubs, tp)
	}
	n.mu.Unlock()
	n.life.Unlock()
	for _, tp := range pubs { // from here on nobody sends
		tp.mu.Lock()
		tp.closed = true
		tp.forget()
		tp.mu.Unlock()
	}
	n.work.Wait()
	n.mu.Lock()
	held := len(n.heldOf()) > 0 || n.mag.loaned.Load() > 0
	calls := n.replies
	peers, in, out := n.peers, n.in, n.out
	n.peers, n.in, n.out = map[uint64]*peer{}, map[uint64]*inRoute{}, map[uint64]*outRoute{}
	n.listOut()
	for _, p := range peers {
		clear(p.in)
	}
	n.mu.Unlock()
	calls.mu.Lock()
	waiting := calls.calls
	calls.calls = callTable{}
	calls.mu.Unlock()
	waiting.all(func(_ uint64, c *pendingCall) { c.finish(replied{err: ErrClosed}) })
	for _, o := range out {
		// The halves stay as they are: what waits in them is still read, from the mappings of its receivers.
		o.mu.Lock()
		o.freed = true
		o.closeBell()
		o.mu.Unlock()
		o.pending.fail(ErrClosed)
	}
	if !held {
		for _, r := range in {
			r.mu.Lock()
			r.freed = true // who has just received the last looks whether the route is drained
			r.done.Store(true)
			r.r.Close()
			r.mu.Unlock()
			r.closeBell()
		}
		for _, p := range peers {
			p.close()
		}
	}
	n.reactor.Close()
	n.mu.Lock()
	links := n.oldLinks
	n.oldLinks = nil
	n.mu.Unlock()
	for _, s := range links {
		s.Close()
	}
	if !held {
		n.mem.close()
	}
}
