package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio"
	"github.com/bhome-bus/bhome/wire"
)

// replies is where all replies to this process arrive.
type replies struct {
	n     *Node
	inbox *shmio.Inbox
	slots slots

	turn   *places                     // one: who has it receives, for all
	wanted chan struct{}               // receive has to look
	spare  atomic.Pointer[pendingCall] // one to use again; pairs with itself: whoever swaps it out has it

	mu         sync.Mutex
	calls      callTable
	unattended int // calls that nobody waits for in await
}

func newReplies(n *Node) *replies {
	rs := &replies{n: n, inbox: shmio.NewInbox(n.cfg.Wait), turn: newPlaces(1), wanted: make(chan struct{}, 1)}
	rs.slots.n = n
	return rs
}

// call is a new call that somebody will wait for in await.
func (rs *replies) call() *pendingCall {
	if c := rs.spare.Swap(nil); c != nil {
		return c
	}
	return &pendingCall{came: make(chan replied, 1)}
}

func (rs *replies) register(c *pendingCall) uint64 {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if c.done != nil {
		rs.unattended++
		rs.look()
	}
	return rs.calls.add(c)
}

func (rs *replies) take(corr uint64) *pendingCall {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	c := rs.calls.get(corr)
	rs.forget(corr, c)
	return c
}

// forget drops a call, which may be nil; rs.mu is held.
func (rs *replies) forget(corr uint64, c *pendingCall) {
	if c == nil {
		return
	}
	rs.calls.remove(corr)
	if c.done != nil {
		rs.unattended--
	}
}

// cancel gives a call up and tells its provider; false if its answer was there first.
func (rs *replies) cancel(corr uint64) bool {
	c := rs.take(corr)
	if c == nil {
		return false
	}
	n := rs.n
	n.mu.Lock()
	sc := n.clients[*c.topic]
	n.mu.Unlock()
	for _, r := range *sc.routes.Load() {
		if r.o.peer.session == c.session() {
			// The next request goes behind it: the provider has room for that one only now.
			r.o.pending.send(message{in: wire.Inline{Kind: wire.KindCancel, Topic: r.topicID, HasCorr: true, Corr: corr}}, func(error) { c.over() })
			return true
		}
	}
	c.over()
	return true
}

// receive is the goroutine that hands replies to those that don't wait for them, until the node closes; else it leaves that
// to those that do.
func (rs *replies) receive(ctx context.Context) {
	for {
		select {
		case <-rs.wanted:
		case <-ctx.Done():
			return
		}
		if !rs.waitForTurn(ctx) {
			return
		}
		for {
			sl, rd, err := rs.takeUnattended(ctx)
			if more, _ := rs.next(sl, rd, err, nil); !more {
				break
			}
		}
		rs.turn.leave()
	}
}

// waitForTurn takes the turn; false: ctx ended first.
func (rs *replies) waitForTurn(ctx context.Context) bool {
	defer rs.turn.done()
	if rs.turn.await() {
		return true
	}
	select {
	case <-rs.turn.handed:
		return true
	case <-ctx.Done():
		return false
	}
}

// takeUnattended waits for a reply if somebody asked who doesn't wait, else takes what there is.
func (rs *replies) takeUnattended(ctx context.Context) (*slot, *shmio.Reader, error) {
	rs.mu.Lock()
	wait := rs.unattended > 0
	rs.mu.Unlock()
	if wait {
		return rs.slots.receive(ctx, rs.inbox)
	}
	return rs.slots.tryReceive(rs.inbox)
}

// look has the goroutine look whether something has come that nobody waits for.
func (rs *replies) look() {
	select {
	case rs.wanted <- struct{}{}:
	default:
	}
}

// replied is what came of a request.
type replied struct {
	r   *Reply
	err error
}

// await waits for c's answer; false: ctx ended first. Of those that wait, one receives for all: an answer that comes to who
// receives itself needs no other goroutine to wake up.
func (rs *replies) await(ctx context.Context, c *pendingCall) (replied, bool) {
	if !rs.turn.try() {
		if a, ok, over := rs.answerOrTurn(ctx, c); over {
			return a, ok
		}
	}
	defer rs.turn.leave()  // to another that waits
	for len(c.came) == 0 { // it may have come while we waited for our turn
		sl, rd, err := rs.slots.receive(ctx, rs.inbox)
		more, a := rs.next(sl, rd, err, c)
		if a.r != nil || a.err != nil {
			return a, true
		}
		if !more {
			break
		}
	}
	if len(c.came) == 0 {
		if ctx.Err() != nil {
			return replied{}, false
		}
		// The node closes, and says so to all.
	}
	return <-c.came, true
}

// answerOrTurn waits for c's answer or the turn; over: the answer it was, or ctx ended.
func (rs *replies) answerOrTurn(ctx context.Context, c *pendingCall) (a replied, ok, over bool) {
	defer rs.turn.done()
	if rs.turn.await() {
		return a, false, false
	}
	select {
	case a := <-c.came:
		return a, true, true
	case <-rs.turn.handed:
		return a, false, false
	case <-ctx.Done():
		return a, false, true
	}
}

// next does with what was received what is to be done; false: nothing was. An answer to own it returns. Only who has the turn
// calls it.
func (rs *replies) next(sl *slot, rd *shmio.Reader, err error, own *pendingCall) (more bool, a replied) {
	if rd == nil {
		return errors.Is(err, shmio.ErrNudged), a
	}
	r := rd.Tag().(*inRoute)
	if err != nil {
		r.spoiled(err)
		return true, a
	}
	end := sl.rec.End() // what the half says may be unmapped by now: the node may be closing, and holds nothing
	if _, err = r.read(&sl.received); err != nil {
		if !errors.Is(err, errPutBack) {
			r.reject(err)
		}
		sl.refuse()
	} else {
		a = rs.deliver(r, sl, own)
	}
	r.settled.Store(end) // who has the turn alone moves it
	if r.ending.Load() {
		r.drained()
	}
	return true, a
}

// deliver tells a call of its answer; if it is own's, the caller.
func (rs *replies) deliver(r *inRoute, sl *slot, own *pendingCall) (a replied) {
	sl.alone().route = r
	rs.mu.Lock()
	c := rs.calls.get(sl.rec.Corr)
	if c != nil && c.session() == r.peer.session { // nobody answers for another
		rs.forget(sl.rec.Corr, c)
	} else {
		c = nil
	}
	rs.mu.Unlock()
	if c == nil {
		sl.discard() // late: the caller has given up
		return a
	}
	c.over()
	sl.topic = c.topic
	switch sl.rec.Head.Kind() {
	case wire.KindReply:
		a.r = &Reply{m: sl.message()}
	case wire.KindErrorReply:
		var e bhomev1.ErrorMsg
		err := error(&HandlerError{Topic: *c.topic, Message: "the handler failed and its error could not be told"})
		if perr := proto.Unmarshal(append([]byte(nil), sl.rec.Payload...), &e); perr == nil {
			if told := fromErrorMsg(&e, *c.topic); told != nil {
				err = told
			}
		}
		sl.discard()
		a.err = fmt.Errorf("request %q to %q: %w", *c.topic, r.peer.name, err)
	default:
		sl.discard()
		a.err = fmt.Errorf("request %q to %q: %w: message kind %d", *c.topic, r.peer.name, wire.ErrBadHeader, sl.rec.Head.Kind())
	}
	if c == own {
		return a
	}
	c.finish(a)
	return replied{}
}

func (rs *replies) routeAdded(*inRoute) {}

func (rs *replies) refused(*inRoute, *received) {}

// routeOver hears that all replies of a provider that come over a route have been taken. If it is gone, what is unanswered stays
// so; so does what was asked over a route that is over, too: there is no other way for an answer.
func (rs *replies) routeOver(r *inRoute) {
	gone := r.gone.Load()
	rs.fail(func(c *pendingCall) bool {
		return c.session() == r.peer.session && c.o.open.GetReplyAccess() == r.open.GetAccess() && (gone || c.o.hasEnded())
	}, r.peer)
}

// failAll tells the callers of a provider that it is gone.
func (rs *replies) failAll(p *peer) {
	rs.fail(func(c *pendingCall) bool { return c.session() == p.session }, p)
}

// fail ends some of the calls to a provider.
func (rs *replies) fail(which func(*pendingCall) bool, p *peer) {
	rs.mu.Lock()
	var gone []*pendingCall
	rs.calls.all(func(corr uint64, c *pendingCall) {
		if which(c) {
			gone = append(gone, c)
			rs.forget(corr, c)
		}
	})
	rs.mu.Unlock()
	if len(gone) > 0 {
		defer rs.inbox.Nudge() // one of them may be who receives
	}
	for _, c := range gone {
		c.over()
		c.finish(replied{err: fmt.Errorf("request %q to %q: %w", *c.topic, p.name, ErrProviderGone)})
	}
}
