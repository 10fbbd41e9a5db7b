package node

import (
	"maps"
	"slices"
	"sync/atomic"

	"github.com/bhome-bus/bhome/shmio"
)

// counters are this node's own; those of its routes are in the routes until they end.
type counters struct {
	loans, asked      atomic.Uint64
	misused, badWords atomic.Uint64
	pastReceived      atomic.Uint64 // of subscriptions and services that are closed
	pastSent          atomic.Uint64 // of routes that are over
	pastDropped       atomic.Uint64
}

// addRoute keeps the counts of a route that ends.
func (c *counters) addRoute(w *shmio.Writer) {
	c.pastSent.Add(w.Sent())
	c.pastDropped.Add(w.Dropped())
}

// Stats is what a node has counted since it attached.
type Stats struct {
	Sent         uint64 // messages pushed to routes: one to three subscribers counts three
	Received     uint64 // messages that subscriptions gave out, and requests served
	Dropped      uint64 // by policy, at this end
	Loans        uint64
	Asked        uint64 // loans for which the center was asked
	Misused      uint64 // releases and sends of what was released or sent
	BadWords     uint64 // rubbish from peers
	Held         int    // messages received and not released
	Granted      int    // blocks this node has, wherever they are
	SegmentBytes uint64 // of this node's own segments
	RoutesIn     int
	RoutesOut    int
}

// Stats counts now.
func (n *Node) Stats() Stats {
	c := &n.stats
	st := Stats{Sent: c.pastSent.Load(), Dropped: c.pastDropped.Load(), Loans: c.loans.Load(), Asked: c.asked.Load(),
		Misused: c.misused.Load(), BadWords: c.badWords.Load(), SegmentBytes: n.mem.bytes()}
	for _, o := range n.outRoutes() {
		o.mu.Lock()
		if !o.freed {
			st.Sent += o.w.Sent()
			st.Dropped += o.w.Dropped()
		}
		o.mu.Unlock()
		st.RoutesOut++
	}
	n.mu.Lock()
	st.Received = c.pastReceived.Load()
	sinks := slices.Collect(maps.Values(n.sinks))
	st.RoutesIn = len(n.in)
	for _, k := range n.heldOf() {
		st.Held += k
	}
	n.mu.Unlock()
	for _, s := range sinks { // which takes its queue's lock: not under n.mu
		st.Received += s.received()
	}
	n.mag.mu.Lock()
	st.Granted = len(n.mag.grants)
	n.mag.mu.Unlock()
	return st
}

// exportCounters makes the counters readable from segment 0 (docs/abi.md section 7).
func (n *Node) exportCounters() {
	st := n.Stats()
	seg := n.mem.segment0
	for i, v := range map[int]uint64{0: st.Sent, 1: st.Received, 2: st.Dropped, 5: st.Loans, 6: st.Asked, 9: st.Misused, 10: st.BadWords,
		11: uint64(st.RoutesIn), 12: uint64(st.RoutesOut)} {
		seg.Counter(i).Store(v) // pairs with whoever reads the mapping; each counter stands for itself
	}
}
