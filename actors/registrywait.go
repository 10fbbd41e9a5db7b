package actors

import (
	"time"

	"github.com/asynkron/protoactor-go/actor"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
)

// returns is what Registry knows of the time after a restart, while nodes attach again one by one: whoever asks for a
// service that nobody provides is answered when its provider is back, or when no more are to be expected.
type returns struct {
	first    int64               // when the first node attached again, monotonic, ns; 0: none has
	resuming map[uint64]int64    // sessions that have attached again and not yet said what they serve: since when
	waiting  map[string][]uint64 // operations, by the topic that has no provider
}

// returnTime is how long after the first node others are expected to attach again: their pauses between two tries are
// shorter. A node that resumes later is waited for just as long, from its own attaching on.
const returnTime = int64(2 * time.Second)

// nobody is the session for which such operations wait; none has that id.
const nobody = 0

func newReturns() returns {
	return returns{resuming: map[uint64]int64{}, waiting: map[string][]uint64{}}
}

// begin hears that a session's node has attached again.
func (r *returns) begin(session uint64, now int64) {
	if r.first == 0 {
		r.first = now
	}
	r.resuming[session] = now
}

// hold has an operation of a client wait for a provider of topic, if one may come back. A client that is being restored
// itself doesn't wait: it may be the provider that another one waits for.
func (r *returns) hold(client uint64, topic string, id uint64, op *routeOp, now int64) {
	if _, self := r.resuming[client]; self || !r.expected(now) {
		return
	}
	op.waits[nobody]++
	r.waiting[topic] = append(r.waiting[topic], id)
}

// expected reports whether nodes may still come back.
func (r *returns) expected(now int64) bool {
	return r.first != 0 && now-r.first < returnTime || len(r.resuming) > 0
}

// came answers those that wait for a provider of topic.
func (r *returns) came(c actor.Context, router *router, topic string) {
	ids := r.waiting[topic]
	delete(r.waiting, topic)
	for _, id := range ids {
		router.onAck(c, &routeAck{id, nobody})
	}
}

// end hears that a session's node has said all, or is gone.
func (r *returns) end(c actor.Context, router *router, session uint64, now int64) {
	delete(r.resuming, session)
	r.expire(c, router, now)
}

// expire answers everybody once no provider is to be expected any more.
func (r *returns) expire(c actor.Context, router *router, now int64) {
	for session, since := range r.resuming {
		if now-since > returnTime {
			delete(r.resuming, session)
		}
	}
	if r.expected(now) {
		return
	}
	for topic := range r.waiting {
		r.came(c, router, topic)
	}
}

// keeps are request routes that outlived the center, by the service at their reader's end, until it is registered again.
type keeps map[subKey]map[uint64]*svcRoute

func (k keeps) add(r *svcRoute) {
	if k[r.service] == nil {
		k[r.service] = map[uint64]*svcRoute{}
	}
	k[r.service][r.id] = r
}

func (k keeps) remove(r *svcRoute) {
	delete(k[r.service], r.id)
	if len(k[r.service]) == 0 {
		delete(k, r.service)
	}
}

// resume gives a provider that is known again the request route that it had with a client, unless it is now another kind
// of service: then the client gets a new route, and this one ends when its provider has said all.
func (g *registry) resume(p *provider, r *svcRoute) {
	cs := r.w.id.Session
	if r.topic != p.msg.GetTopic() || r.depth != p.msg.GetDepth() || r.out != p.msg.GetDepth()+p.msg.GetHold() || p.routes[cs] != nil {
		return
	}
	g.kept.remove(r)
	r.prov = p
	p.routes[cs] = r
	if rep := g.replies[r.pair]; rep != nil {
		rep.uses[r.id] = true
	}
}

// keep records a request route that both ends have reported.
func (g *registry) keep(r *svcRoute, w *bhomev1.RouteOpen) {
	r.depth, r.out = w.GetDepth(), w.GetOut()
	if len(w.GetTopics()) == 1 {
		r.topic = w.GetTopics()[0].GetName()
	}
	g.kept.add(r)
	if p := g.providers[r.service]; p != nil {
		g.resume(p, r)
	}
}
