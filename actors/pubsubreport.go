package actors

import (
	"slices"

	"github.com/asynkron/protoactor-go/actor"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
)

// reported takes one end of a route that outlived the center. With both ends it counts again; the Subscribe and the
// Advertise that follow then find it. Ends that don't agree are both closed.
func (p *pubSub) reported(c actor.Context, m *reportedRoute) {
	for _, t := range m.route.GetRoute().GetTopics() { // before its node publishes again
		if p.ids.keep(t.GetName(), t.GetId()) && !p.ids.inUse(t.GetName()) {
			p.ids.freed++
		}
	}
	h := p.reports.add(m)
	switch {
	case h == nil:
	case !h.both():
		p.lone(c, h)
	case p.routes[m.route.GetRoute().GetRoute()] != nil || !h.agree():
		h.close(c, endsDisagree)
	case !p.allows(h.writer, &h.reader.id):
		h.close(c, forbidden)
	case p.subs[subKeyOf(h)] == nil && p.reports.restored[h.reader.id.Session]:
		h.close(c, "the subscription was closed") // while there was no center
	default:
		s := p.reporter(h)
		p.adopt(c, h, s)
		h.adopt(c)
		// What the center before told the writer, and could not tell the reader any more.
		known := topicNames(h.reader.route.GetRoute().GetTopics())
		var missed []*bhomev1.TopicID
		for _, t := range h.writer.route.GetRoute().GetTopics() {
			if known[t.GetId()] == "" {
				missed = append(missed, t)
			}
		}
		if len(missed) > 0 {
			c.Send(h.reader.id.pidOf, &routeTopics{msg: &bhomev1.RouteTopics{Route: m.route.GetRoute().GetRoute(), Added: missed}, role: bhomev1.Role_ROLE_READER})
		}
		if p.reports.restored[h.writer.id.Session] {
			p.prune(c, h.writer.id.Session)
		}
	}
}

// restored hears that a node has said all that it kept: what others have kept of it without it is finished, or over.
func (p *pubSub) restored(c actor.Context, session uint64) {
	for _, h := range p.reports.complete(session) {
		p.lone(c, h)
	}
	for key, s := range p.adopted {
		if key.session == session { // it was closed while there was no center
			for _, r := range s.routes {
				p.close(c, r, "the subscription was closed", true, true)
			}
			delete(p.adopted, key)
		}
	}
	p.prune(c, session)
}

// prune takes the topics off a publisher's routes that it has closed while there was no center.
func (p *pubSub) prune(c actor.Context, session uint64) {
	pub := p.pubs[session]
	if pub == nil {
		return
	}
	closed := map[string]bool{}
	for _, r := range pub.routes {
		for topic := range r.topics {
			closed[topic] = pub.topics[topic] == nil
		}
	}
	for topic, is := range closed {
		if is {
			p.dropTopic(c, pub, topic)
		}
	}
}

func subKeyOf(h *halfReport) subKey {
	return subKey{h.reader.id.Session, h.reader.route.GetRoute().GetSubscription()}
}

// lone finishes a route that the center before had told only one end of. The writer may have sent on it: then its
// subscriber gets it now. If it was the reader, or the subscription is over, the route ends.
func (p *pubSub) lone(c actor.Context, h *halfReport) {
	// A reader that the writer knows has had it: it has heard of its end, or closed it.
	if h.writer != nil && !h.writer.route.GetJoined() {
		w := h.writer.route.GetRoute()
		s := p.subs[subKey{w.GetPeerSession(), w.GetSubscription()}]
		if s != nil && p.routes[w.GetRoute()] == nil && s.routes[fromKey{h.writer.id.Session, w.GetAccess()}] == nil && p.allows(h.writer, &s.party.id) && w.GetDepth() == s.msg.GetDepth() && w.GetPolicy() == s.msg.GetOnFull() {
			open := cloneOpen(w)
			open.Role, open.PeerSession, open.PeerProc, open.PeerPid = bhomev1.Role_ROLE_READER, h.writer.id.Session, h.writer.id.Name, h.writer.id.PID
			p.adopt(c, h, s)
			c.Send(s.party.pid, &openRoute{open: open, peer: h.writer.id.pidOf, lone: true})
			c.Send(h.writer.id.pidOf, &adoptRoute{open: w, peer: s.party.pid, lone: true})
			return
		}
	}
	h.close(c, "its other end is not there any more")
}

// allows reports whether a route that a writer has kept may go on to a reader: by the rules that hold now.
func (p *pubSub) allows(writer *reportedRoute, reader *Identity) bool {
	w := writer.route.GetRoute()
	for _, t := range w.GetTopics() {
		err := p.cfg.Access.refuses(&writer.id, actPublish, t.GetName())
		if err == nil {
			err = p.cfg.Access.refuses(reader, actSubscribe, t.GetName())
		}
		if err != nil || p.cfg.Access.group(actSubscribe, t.GetName()) != w.GetAccess() {
			return false
		}
	}
	return len(w.GetTopics()) > 0 || w.GetAccess() == ""
}

// reporter is the subscription of a route that both ends have reported, if need be one whose Subscribe is to come.
func (p *pubSub) reporter(h *halfReport) *subscription {
	key := subKeyOf(h)
	if s := p.subs[key]; s != nil {
		return s
	}
	s := p.adopted[key]
	if s == nil {
		s = &subscription{key: key, party: party{h.reader.id, h.reader.id.pidOf}, msg: &bhomev1.Subscribe{Quota: h.writer.route.GetRoute().GetQuota()}, routes: map[fromKey]*psRoute{}}
		p.adopted[key] = s
	}
	return s
}

// adopt records a route between a writer and a subscription.
func (p *pubSub) adopt(c actor.Context, h *halfReport, s *subscription) {
	w := h.writer.route.GetRoute()
	ws := h.writer.id.Session
	pub := p.pubs[ws]
	if pub == nil {
		pub = &publisher{party: party{h.writer.id, h.writer.id.pidOf}, topics: map[string]*bhomev1.Advertise{}, routes: map[toKey]*psRoute{}}
		p.pubs[ws] = pub
	}
	quota := min(w.GetQuota(), p.most())
	route := &psRoute{id: w.GetRoute(), pub: pub, sub: s, group: w.GetAccess(), topics: map[string]uint32{}, quota: quota, cost: quota + routeSpec(w).WriterSize()}
	for _, t := range w.GetTopics() {
		if p.ids.keep(t.GetName(), t.GetId()) {
			route.topics[t.GetName()] = t.GetId()
		}
	}
	p.record(route)
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
