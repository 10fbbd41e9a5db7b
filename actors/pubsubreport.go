package actors

import (
	"slices"

	"github.com/asynkron/protoactor-go/actor"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
)

// reported takes one end of a route that outlived the center. With both ends it counts again; the Subscribe and the
// Advertise that follow then find it. Ends that don't agree are both closed.
func (p *pubSub) reported(c actor.Context, m *reportedRoute) {
	o := m.route.GetRoute()
	h := p.halves[o.GetRoute()]
	if h == nil {
		if len(p.halves) > 1<<20 {
			return
		}
		h = &halfReport{}
		p.halves[o.GetRoute()] = h
	}
	for _, t := range o.GetTopics() { // before its node publishes again
		if p.ids.keep(t.GetName(), t.GetId()) && !p.ids.inUse(t.GetName()) {
			p.ids.freed++
		}
	}
	if o.GetRole() == bhomev1.Role_ROLE_WRITER {
		h.writer = m
	} else {
		h.reader = m
	}
	if h.writer == nil || h.reader == nil {
		return
	}
	delete(p.halves, o.GetRoute())
	w, r := h.writer.route.GetRoute(), h.reader.route.GetRoute()
	if p.routes[o.GetRoute()] != nil || !h.agree() {
		h.close(c)
		return
	}
	p.adopt(c, h, w, r)
}

// agree reports whether both ends mean the same route, and each other.
func (h *halfReport) agree() bool {
	w, r := h.writer.route.GetRoute(), h.reader.route.GetRoute()
	return w.GetSlots() == r.GetSlots() && w.GetDepth() == r.GetDepth() && w.GetOut() == r.GetOut() && w.GetPolicy() == r.GetPolicy() && w.GetKind() == r.GetKind() &&
		w.GetPeerSession() == h.reader.id.Session && r.GetPeerSession() == h.writer.id.Session
}

// close tells both ends that their route is over.
func (h *halfReport) close(c actor.Context) {
	for _, end := range []*reportedRoute{h.writer, h.reader} {
		c.Send(end.id.pidOf, &closeRoute{route: end.route.GetRoute().GetRoute(), reason: "the two ends report different things", alive: true})
	}
}

func (p *pubSub) adopt(c actor.Context, h *halfReport, w, r *bhomev1.RouteOpen) {
	ws := h.writer.id.Session
	key := subKey{h.reader.id.Session, r.GetSubscription()}
	pub := p.pubs[ws]
	if pub == nil {
		pub = &publisher{party: party{h.writer.id, h.writer.id.pidOf}, topics: map[string]*bhomev1.Advertise{}, routes: map[subKey]*psRoute{}}
		p.pubs[ws] = pub
	}
	s := p.adopted[key]
	if have := p.subs[key]; have != nil {
		s = have
	}
	if s == nil {
		s = &subscription{key: key, party: party{h.reader.id, h.reader.id.pidOf}, msg: &bhomev1.Subscribe{Quota: w.GetQuota()}, routes: map[uint64]*psRoute{}}
		p.adopted[key] = s // until its Subscribe comes
	}
	quota := min(w.GetQuota(), p.most())
	route := &psRoute{id: w.GetRoute(), pub: pub, sub: s, topics: map[string]uint32{}, quota: quota, cost: quota + routeSpec(w).WriterSize()}
	for _, t := range w.GetTopics() {
		if p.ids.keep(t.GetName(), t.GetId()) {
			route.topics[t.GetName()] = t.GetId()
		}
	}
	p.record(route)
	c.Send(h.writer.id.pidOf, &adoptRoute{open: w, peer: h.reader.id.pidOf})
	c.Send(h.reader.id.pidOf, &adoptRoute{open: r, peer: h.writer.id.pidOf})
	// What the center before told the writer, and could not tell the reader any more.
	known := topicNames(r.GetTopics())
	var missed []*bhomev1.TopicID
	for _, t := range w.GetTopics() {
		if known[t.GetId()] == "" {
			missed = append(missed, t)
		}
	}
	if len(missed) > 0 {
		c.Send(h.reader.id.pidOf, &routeTopics{msg: &bhomev1.RouteTopics{Route: route.id, Added: missed}, role: bhomev1.Role_ROLE_READER})
	}
}

// rows lists the topics, and the patterns that nobody publishes on.
func (p *pubSub) rows() *topicRowsR {
	res := &topicRowsR{routes: map[uint64]routePlace{}, names: map[uint32]string{}}
	at := map[string]int{}
	row := func(topic string) int {
		i, ok := at[topic]
		if !ok {
			i = len(res.rows)
			at[topic] = i
			res.rows = append(res.rows, &bhomev1.TopicRow{Topic: topic, Kind: "pubsub", TopicId: p.ids.ids[topic]})
		}
		return i
	}
	for topic, sessions := range p.byTopic {
		r := res.rows[row(topic)]
		for s := range sessions {
			r.Publishers = append(r.Publishers, p.pubs[s].party.id.Name)
		}
	}
	for _, s := range p.subs {
		if len(s.routes) == 0 {
			r := res.rows[row(s.msg.GetPattern())]
			r.Subscribers = append(r.Subscribers, s.party.id.Name)
		}
	}
	for id, r := range p.routes {
		topics := make([]string, 0, len(r.topics))
		for t := range r.topics {
			topics = append(topics, t)
		}
		slices.Sort(topics)
		for i, t := range topics {
			k := row(t)
			res.rows[k].Subscribers = append(res.rows[k].Subscribers, r.sub.party.id.Name)
			if i == 0 { // a route's counters are shown once, with its first topic
				res.routes[id] = routePlace{k, r.pub.party.id.Session}
			}
		}
	}
	for name, id := range p.ids.ids {
		res.names[id] = name
	}
	return res
}
