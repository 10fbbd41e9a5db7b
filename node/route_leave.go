package node

import (
	"context"
	"errors"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio"
)

// leaveRoutes ends what others send to a node that is over, so that nobody waits for it. What the program holds it holds
// on, and what it sent is read.
func (lk *link) leaveRoutes() {
	n := lk.n
	n.mu.Lock()
	routes := make([]*inRoute, 0, len(n.in))
	for _, r := range n.in {
		if r.kind != bhomev1.RouteKind_ROUTE_KIND_REPLY {
			routes = append(routes, r)
		}
	}
	n.mu.Unlock()
	for _, r := range routes {
		r.abandon()
		// If the socket is gone its end has ended the routes.
		_ = lk.sendSocket(bhomev1.MsgType_MSG_TYPE_ROUTE_CLOSE, &bhomev1.RouteClose{Route: r.id, Reason: n.Err().Error()})
	}
}

// spoiled ends a route whose sender writes rubbish into it.
func (r *inRoute) spoiled(err error) {
	r.n.badWord("the queue of "+r.peer.name, err)
	r.giveUp()
	r.n.background(func(context.Context) { r.n.cut(r.id, err) })
}

// giveUp ends a route that can't be received from: what waits there, nobody takes any more. Its sender may live, and sees that we
// let go of our half.
func (r *inRoute) giveUp() {
	r.gone.Store(true)
	r.mu.Lock()
	first := !r.done.Load()
	if first {
		r.inbox.Remove(r.r) // see drained
		r.doneAt.Store(int64(shmio.CoarseNow()))
		r.done.Store(true)
	}
	r.mu.Unlock()
	if first {
		r.sink.routeOver(r)
		r.n.beginWaiting(r.peer)
	}
}

// refuse gives what waits unread back to its sender. Only after done.
func (r *inRoute) refuse() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.freed {
		return
	}
	if r.r.Aside() > 0 {
		r.r.Resume() // nothing is waited for any more
	}
	var m received
	for {
		ok, err := r.r.TryReceive(&m.rec)
		if err != nil || !ok {
			return
		}
		if err := r.resolve(&m); err != nil {
			if errors.Is(err, errNotYet) {
				r.giveBackRecord(&m.rec)
			}
			continue
		}
		r.sink.refused(r, &m)
		if m.rec.IsBlock() {
			r.giveBackRecord(&m.rec)
		}
	}
}

// letGo reports whether the sender looks at our half no more.
func (r *inRoute) letGo() bool {
	if r.gone.Load() || r.peer.dead.Load() || r.r.WriterClosed() {
		return true
	}
	at := r.doneAt.Load()
	return !r.r.PeerKnown() && at != 0 && int64(shmio.CoarseNow())-at > int64(unjoinedFor)
}

// reap frees the routes that are over and of which nothing is held; false if some have to wait. Our half stays until the
// writer has let go of it, for it reads there what we returned; the writer's until we have left, for we read there.
func (n *Node) reap() (done bool) {
	done = true
	n.mu.Lock()
	var ending, waiting, over []*inRoute
	for _, r := range n.in {
		switch {
		case r.done.Load() && !r.gone.Load():
			waiting = append(waiting, r)
		case r.ending.Load() && !r.done.Load():
			ending = append(ending, r)
			done = false
		}
	}
	n.mu.Unlock()
	for _, r := range ending {
		r.drained()
	}
	for _, r := range waiting {
		r.leave()
	}
	n.mu.Lock()
	for _, r := range n.in {
		if !r.done.Load() {
			continue
		}
		if r.r.HeldCount() == 0 && r.letGo() {
			over = append(over, r)
		} else {
			done = false
		}
	}
	n.mu.Unlock()
	for _, r := range over {
		r.mu.Lock()
		r.freed = true // before it is no route any more: then the peer may be forgotten, and its memory with it
		r.r.Close()
		r.mu.Unlock()
		n.mu.Lock()
		delete(n.in, r.id)
		delete(r.peer.in, r.id)
		n.mu.Unlock()
		r.closeBell()
		n.freeHalf(r.half)
		n.forgetPeer(r.peer)
	}
	return done
}

// leave tells the sender that we look at its half no more, once it has pushed its last and we have refused that.
func (r *inRoute) leave() {
	last := r.r.WriterOver()
	r.refuse() // the sender may have pushed before it heard
	if last {
		r.mu.Lock()
		defer r.mu.Unlock()
		if !r.freed {
			r.r.Leave()
		}
	}
}
