package node

import (
	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio"
)

// keep remembers a message for subscribers that come late, and takes over a reference to it; tp.mu is held.
func (tp *topicPub) keep(b *block) {
	tp.history = append(tp.history, b)
	if over := len(tp.history) - int(tp.adv.Load().GetKeep()); over > 0 {
		for _, old := range tp.history[:over] {
			old.unref(1)
		}
		tp.history = append(tp.history[:0], tp.history[over:]...)
	}
}

// forget drops the history; tp.mu is held.
func (tp *topicPub) forget() {
	for _, b := range tp.history {
		b.unref(1)
	}
	tp.history = nil
}

// giveHistory gives a route the history of topics that are new on it. It doesn't wait for a publisher that is sending: that one
// does it when it is done, before its next message.
func (n *Node) giveHistory(o *outRoute, added []*bhomev1.TopicID) {
	n.mu.Lock()
	var tps []*topicPub
	if o.kind == bhomev1.RouteKind_ROUTE_KIND_PUBSUB {
		for _, t := range added {
			if tp := n.pubs[t.GetName()]; tp != nil {
				tps = append(tps, tp)
			}
		}
	}
	n.mu.Unlock()
	for _, tp := range tps {
		if tp.due.Load() && tp.mu.TryLock() {
			tp.unlock()
		}
	}
	n.changed.Fire()
}

// unlock ends a send; it first serves routes that have come meanwhile and wait for their history.
func (tp *topicPub) unlock() {
	for {
		if tp.due.Load() {
			tp.serveHistory()
		}
		tp.mu.Unlock()
		// One that came between the two lines found the lock taken.
		if !tp.due.Load() || !tp.mu.TryLock() {
			return
		}
	}
}

// serveHistory gives the kept messages, in order, to the routes that wait for them; tp.mu is held, so nothing newer has
// gone there before. A route gets the last that it has room for: none is waited for, and none of those between is missing.
func (tp *topicPub) serveHistory() {
	tp.n.mu.Lock()
	routes := tp.dueRoutes
	tp.dueRoutes = nil
	tp.due.Store(false)
	tp.n.mu.Unlock()
	for _, o := range routes {
		o.pushHistory(tp.history)
	}
}

// pushHistory pushes the last of kept that there is room for.
func (o *outRoute) pushHistory(kept []*block) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.over || o.reclaim() != nil {
		return
	}
	spec := o.w.Spec()
	room, bytes := min(int(spec.Depth)-o.w.Unread(), int(spec.Out)-o.w.Out()), o.w.OutBytes()
	first := len(kept)
	for first > 0 && len(kept)-first < room {
		b := kept[first-1]
		alone := first == len(kept) && o.w.Out() == 0
		if bytes += uint64(b.size); spec.Quota > 0 && bytes > spec.Quota && !alone {
			break
		}
		if b.group != o.group { // of before the rules changed: it lies where others may read
			break
		}
		first--
	}
	for _, b := range kept[first:] {
		b.ref(1)
		m := message{b: b, held: 1}
		out, err := o.stage(&m, false, reclaimEvery)
		m.release() // if it had no room after all
		if err != nil || out != shmio.Sent {
			break
		}
	}
	o.w.Commit()
}
