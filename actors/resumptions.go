package actors

import (
	"time"

	"github.com/asynkron/protoactor-go/actor"
)

// resumptions is what PubSub knows of nodes that have attached again and not yet said all that they kept. What such a node
// publishes isn't known: a newcomer's Subscribe is answered when it is, or what is published after that would not arrive.
type resumptions map[uint64]*resumption

type resumption struct {
	since int64    // monotonic, ns
	ops   []uint64 // the router's, that wait
}

// resumeTime is how long others wait for such a node. It says all at once, if it runs and means well.
const resumeTime = int64(2 * time.Second)

// begin hears that a session's node has attached again.
func (r resumptions) begin(session uint64) { r[session] = &resumption{since: monotonic()} }

// hold has an operation wait for all of them.
func (r resumptions) hold(id uint64, op *routeOp) {
	for session, x := range r {
		op.waits[session]++
		x.ops = append(x.ops, id)
	}
}

// end lets nobody wait for a session any longer.
func (r resumptions) end(c actor.Context, router *router, session uint64) {
	x := r[session]
	if x == nil {
		return
	}
	delete(r, session)
	for _, id := range x.ops {
		router.onAck(c, &routeAck{id, session})
	}
}

// expire ends those that have taken too long.
func (r resumptions) expire(c actor.Context, router *router, now int64) {
	for session, x := range r {
		if now-x.since > resumeTime {
			r.end(c, router, session)
		}
	}
}
