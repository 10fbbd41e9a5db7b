package actors

import (
	"cmp"
	"slices"

	"github.com/asynkron/protoactor-go/actor"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/wire"
)

// pubSub knows who subscribes to what and who publishes what, and opens a route from each publisher to each of its
// subscriptions. Both directions are looked up in tries: neither a Subscribe nor an Advertise walks what doesn't match.
type pubSub struct {
	cfg      Config
	router   router
	ids      topicIDs
	patterns topicTrie[subKey]
	topics   topicTrie[string]
	subs     map[subKey]*subscription
	pubs     map[uint64]*publisher          // by session
	byTopic  map[string]map[uint64]struct{} // who publishes a topic
	routes   map[uint64]*psRoute
	reports  reports
	resuming resumptions
	adopted  map[subKey]*subscription // of adopted routes whose Subscribe hasn't come yet
	bySub    map[uint64]int           // subscriptions of a session
	gauges   gauges
	refusals refusals
	uids     uidUses
}

type subKey struct{ session, number uint64 }

// A publisher has a route to a subscription for each access group that topics of both belong to, a subscription one from
// each publisher: what one process gets lies in no memory that others may read.
type (
	toKey struct {
		sub   subKey
		group string
	}
	fromKey struct {
		session uint64
		group   string
	}
)

type subscription struct {
	key    subKey
	party  party
	msg    *bhomev1.Subscribe
	routes map[fromKey]*psRoute
}

type publisher struct {
	party  party
	topics map[string]*bhomev1.Advertise
	routes map[toKey]*psRoute
	cost   uint64 // of its routes
}

type psRoute struct {
	id     uint64
	pub    *publisher
	sub    *subscription
	group  string
	topics map[string]uint32
	quota  uint64
	cost   uint64 // what it may take of the publisher's memory: quota and its half
}

// halfReport is one end of a route that outlived the center; the other end's report makes it whole.
func newPubSub(cfg Config) *pubSub {
	p := &pubSub{cfg: cfg, router: newRouter(0), subs: map[subKey]*subscription{},
		pubs: map[uint64]*publisher{}, byTopic: map[string]map[uint64]struct{}{}, routes: map[uint64]*psRoute{}, reports: newReports(), bySub: map[uint64]int{}, adopted: map[subKey]*subscription{}, resuming: resumptions{}, refusals: newRefusals(cfg.Logger), uids: uidUses{}}
	p.ids = newTopicIDs(0, cfg.Limits.Topics, func(topic string) bool { return len(p.byTopic[topic]) > 0 })
	return p
}

// Receive is the actor.
func (p *pubSub) Receive(c actor.Context) {
	switch m := c.Message().(type) {
	case *busFrame:
		switch body := m.body.(type) {
		case *bhomev1.Subscribe:
			p.subscribe(c, m, body)
		case *bhomev1.Unsubscribe:
			p.unsubscribe(c, subKey{m.id.Session, body.GetSubscription()}, true, "unsubscribed")
			commonReply(c, m.to, nil)
		case *bhomev1.Advertise:
			p.advertise(c, m, body)
		case *bhomev1.Unadvertise:
			p.unadvertise(c, m.id.Session, body.GetTopic())
			commonReply(c, m.to, nil)
		}
	case *routeAck:
		p.router.onAck(c, m)
	case *routeClosed:
		if r := p.routes[m.route]; r != nil {
			m.log(&p.refusals, &r.pub.party, &r.sub.party)
			p.close(c, r, "the other end closed it: "+m.reason, true, true)
		}
	case *reportedRoute:
		p.reported(c, m)
	case *resumes:
		p.resuming.begin(m.session)
	case *restored:
		p.restored(c, m.session)
		p.resuming.end(c, &p.router, m.session)
	case *tick:
		p.resuming.expire(c, &p.router, m.now)
		p.refusals.expire(m.now)
		for _, h := range p.reports.orphans() {
			h.orphan(c)
		}
	case *sessionGone:
		p.gone(c, m.id.Session, m.alive)
	case *peerOver:
		c.Send(m.via, m)
	case *topicRows:
		c.Respond(p.rows())
	case *auditRole:
		audited(c, func() any { return p.audit() })
	}
}

// subscribe records a subscription and opens a route from every publisher that matches; the reply goes when all of
// them will adopt theirs before they publish again.
func (p *pubSub) subscribe(c actor.Context, f *busFrame, m *bhomev1.Subscribe) {
	key := subKey{f.id.Session, m.GetSubscription()}
	if err := p.checkSubscribe(f, m); err != nil {
		p.refusals.note(&f.id, err, monotonic())
		commonReply(c, f.to, err)
		return
	}
	s := &subscription{key: key, party: partyOf(f), msg: m, routes: map[fromKey]*psRoute{}}
	if m.Quota == 0 {
		m.Quota = max(1, min(p.cfg.Limits.DefaultQuota, p.most()/defaultShare, p.cfg.Limits.RouteBytes))
	}
	matches := map[fromKey][]string{} // publisher → topics
	fresh := map[uint64]int{}         // publisher → routes to come
	told := map[string]bool{}         // of rules that keep topics from it
	p.topics.matchPattern(m.GetPattern(), func(topic string) {
		if err := p.cfg.Access.refuses(&f.id, actSubscribe, topic); err != nil {
			if !told[err.GetRule()] { // the subscription is good for others
				told[err.GetRule()] = true
				p.refusals.note(&f.id, err, monotonic())
			}
			return
		}
		group := p.cfg.Access.group(actSubscribe, topic)
		for session := range p.byTopic[topic] {
			from := fromKey{session, group}
			if matches[from] == nil && p.pubs[session].routes[toKey{key, group}] == nil {
				fresh[session]++
			}
			matches[from] = append(matches[from], topic)
		}
	})
	if err := p.roomForAll(s, fresh); err != nil {
		p.refusals.note(&f.id, err, monotonic())
		commonReply(c, f.to, err)
		return
	}
	if a := p.adopted[key]; a != nil { // its routes outlived a center
		delete(p.adopted, key)
		a.msg, a.party = m, s.party
		s = a
	}
	p.subs[key] = s
	p.bySub[key.session]++
	p.uids.add(s.party.id.UID, uidUse{subscriptions: 1})
	p.patterns.add(m.GetPattern(), key)
	id, op := p.router.begin(f.id.Session, func(c actor.Context) { commonReply(c, f.to, nil) })
	if p.resuming[key.session] == nil { // else they would wait for each other
		p.resuming.hold(id, op)
	}
	for from, topics := range matches {
		p.connect(c, p.pubs[from.session], s, from.group, m.GetQuota(), topics, id, op)
	}
	p.router.settle(c, id)
}

func (p *pubSub) checkSubscribe(f *busFrame, m *bhomev1.Subscribe) *bhomev1.ErrorMsg {
	if err := wire.ValidatePattern(m.GetPattern()); err != nil {
		return errorMsg(bhomev1.ErrorCode_ERROR_CODE_INVALID_INPUT, "%v", err)
	}
	if err := p.cfg.Access.refusesPattern(&f.id, m.GetPattern()); err != nil {
		return err
	}
	if m.GetDepth() < 1 || m.GetDepth() > 65536 || m.GetHold() < 1 || m.GetHold() > 65536 || m.GetOnFull() > bhomev1.Policy_POLICY_BLOCK || m.GetOnFull() < 0 || m.GetExpiryNs() < 0 {
		return errorMsg(bhomev1.ErrorCode_ERROR_CODE_INVALID_INPUT, "depth %d and hold %d must be 1 to 65536, policy %d 0 to 2, expiry %d ns not negative", m.GetDepth(), m.GetHold(), m.GetOnFull(), m.GetExpiryNs())
	}
	if most := min(p.most(), p.cfg.Limits.RouteBytes); m.GetQuota() > most {
		return &bhomev1.ErrorMsg{Code: bhomev1.ErrorCode_ERROR_CODE_NO_MEMORY, Limit: "route", Whose: f.id.Name, InUse: m.GetQuota(), Max: most,
			Message: "no publisher may use so much; ask for a smaller Quota"}
	}
	if p.subs[subKey{f.id.Session, m.GetSubscription()}] != nil {
		return errorMsg(bhomev1.ErrorCode_ERROR_CODE_INVALID_INPUT, "subscription %d exists already", m.GetSubscription())
	}
	if n := p.bySub[f.id.Session]; n >= p.cfg.Limits.SubscriptionsPerNode {
		return tooMany("subscriptions_per_node", f.id.Name, n, p.cfg.Limits.SubscriptionsPerNode)
	}
	return p.uids.over(&p.cfg.Limits, f.id.UID, uidUse{subscriptions: 1})
}

// connect opens a route for topics of an access group, or adds them to the one there is.
func (p *pubSub) connect(c actor.Context, pub *publisher, s *subscription, group string, quota uint64, topics []string, id uint64, op *routeOp) {
	var added []*bhomev1.TopicID
	to := toKey{s.key, group}
	if pub.routes[to] == nil {
		// A route that outlived the center, of which the subscriber hasn't heard: it has reported what it had before it
		// subscribed. A second one beside it would double what is published.
		for _, h := range p.reports.between(pub.party.id.Session, s.key) {
			p.lone(c, h)
		}
	}
	r := pub.routes[to]
	fresh := r == nil
	if fresh {
		r = &psRoute{id: p.router.routeID(), pub: pub, sub: s, group: group, topics: map[string]uint32{}, quota: quota, cost: quota + halfSize(s)}
		p.record(r)
	}
	for _, t := range topics {
		if r.topics[t] == 0 {
			r.topics[t] = p.ids.of(t)
			added = append(added, &bhomev1.TopicID{Id: r.topics[t], Name: t})
		}
	}
	switch {
	case fresh:
		p.router.open(c, p.openMsg(r, added), pub.party, s.party, id, op)
	case len(added) > 0:
		c.Send(s.party.pid, &routeTopics{msg: &bhomev1.RouteTopics{Route: r.id, Added: added}, role: bhomev1.Role_ROLE_READER})
		op.waits[pub.party.id.Session]++
		c.Send(pub.party.pid, &routeTopics{msg: &bhomev1.RouteTopics{Route: r.id, Added: added}, role: bhomev1.Role_ROLE_WRITER, ack: c.Self(), op: id})
	}
}

func (p *pubSub) record(r *psRoute) {
	p.routes[r.id] = r
	r.pub.routes[toKey{r.sub.key, r.group}] = r
	r.sub.routes[fromKey{r.pub.party.id.Session, r.group}] = r
	r.pub.cost += r.cost
	p.gauges.route(1)
	p.uids.route(r.pub.party.id.UID, r.sub.party.id.UID, 1)
}

func (p *pubSub) openMsg(r *psRoute, topics []*bhomev1.TopicID) *bhomev1.RouteOpen {
	m := r.sub.msg
	return &bhomev1.RouteOpen{Route: r.id, Kind: bhomev1.RouteKind_ROUTE_KIND_PUBSUB, Slots: slotsFor(m.GetDepth()), Depth: m.GetDepth(),
		Out: m.GetDepth() + m.GetHold(), Policy: m.GetOnFull(), Quota: r.quota, ExpiryNs: m.GetExpiryNs(), History: m.GetHistory(),
		Topics: topics, Subscription: r.sub.key.number, Access: r.group}
}

// advertise records a publisher's topic and opens routes to every subscription that matches.
func (p *pubSub) advertise(c actor.Context, f *busFrame, m *bhomev1.Advertise) {
	refuse := func(err *bhomev1.ErrorMsg) {
		p.refusals.note(&f.id, err, monotonic())
		c.Send(f.to.session, &frameOut{to: f.to, typ: bhomev1.MsgType_MSG_TYPE_ADVERTISE_REPLY, body: &bhomev1.AdvertiseReply{Errmsg: err}})
	}
	topic := m.GetTopic()
	if err := wire.ValidateTopic(topic); err != nil {
		refuse(errorMsg(bhomev1.ErrorCode_ERROR_CODE_INVALID_INPUT, "%v", err))
		return
	}
	if err := p.cfg.Access.refuses(&f.id, actPublish, topic); err != nil {
		refuse(err)
		return
	}
	group := p.cfg.Access.group(actSubscribe, topic)
	pub := p.pubs[f.id.Session]
	if pub == nil {
		pub = &publisher{party: partyOf(f), topics: map[string]*bhomev1.Advertise{}, routes: map[toKey]*psRoute{}}
	}
	pub.party = partyOf(f)
	if n := len(pub.topics); n >= p.cfg.Limits.TopicsPerNode {
		refuse(tooMany("topics_per_node", f.id.Name, n, p.cfg.Limits.TopicsPerNode))
		return
	}
	fresh := pub.topics[topic] == nil
	if fresh {
		if err := p.uids.over(&p.cfg.Limits, f.id.UID, uidUse{topics: 1}); err != nil {
			refuse(err)
			return
		}
	}
	topicID := p.ids.of(topic)
	if topicID == 0 {
		refuse(tooMany("topics", "bus", len(p.ids.ids), p.cfg.Limits.Topics))
		return
	}
	var subs []*subscription
	seen := map[subKey]bool{}
	p.patterns.matchTopic(topic, func(k subKey) {
		if !seen[k] {
			seen[k] = true
			if s := p.subs[k]; p.cfg.Access.refuses(&s.party.id, actSubscribe, topic) == nil {
				subs = append(subs, s)
			}
		}
	})
	// The small ones first: there is room for more of them.
	slices.SortStableFunc(subs, func(a, b *subscription) int {
		return cmp.Compare(a.msg.GetQuota()+halfSize(a), b.msg.GetQuota()+halfSize(b))
	})
	p.pubs[f.id.Session] = pub
	pub.topics[topic] = m
	if fresh {
		p.uids.add(f.id.UID, uidUse{topics: 1})
	}
	if p.byTopic[topic] == nil {
		p.gauges.add(gaugeTopics, 1)
		p.byTopic[topic] = map[uint64]struct{}{}
		p.topics.add(topic, topic)
	}
	p.byTopic[topic][f.id.Session] = struct{}{}
	id, op := p.router.begin(f.id.Session, func(c actor.Context) {
		c.Send(f.to.session, &frameOut{to: f.to, typ: bhomev1.MsgType_MSG_TYPE_ADVERTISE_REPLY, body: &bhomev1.AdvertiseReply{TopicId: topicID, Access: group}})
	})
	for _, s := range subs {
		if quota, ok := p.share(pub, s, group); ok {
			p.connect(c, pub, s, group, quota, []string{topic}, id, op)
		}
	}
	p.router.settle(c, id)
}

func (p *pubSub) unadvertise(c actor.Context, session uint64, topic string) {
	pub := p.pubs[session]
	if pub == nil || pub.topics[topic] == nil {
		return
	}
	p.forgetTopic(pub, topic)
	p.dropTopic(c, pub, topic)
}

// dropTopic takes a topic off a publisher's routes, and ends those on which nothing comes any more.
func (p *pubSub) dropTopic(c actor.Context, pub *publisher, topic string) {
	session := pub.party.id.Session
	for _, r := range pub.routes {
		id := r.topics[topic]
		if id == 0 {
			continue
		}
		delete(r.topics, topic)
		if len(r.topics) == 0 {
			p.close(c, r, "no topic is left", true, true)
			continue
		}
		c.Send(pub.party.pid, &routeTopics{msg: &bhomev1.RouteTopics{Route: r.id, Removed: []uint32{id}}, role: bhomev1.Role_ROLE_WRITER})
	}
	if len(pub.topics)+len(pub.routes) == 0 {
		delete(p.pubs, session)
	}
}

func (p *pubSub) forgetTopic(pub *publisher, topic string) {
	delete(pub.topics, topic)
	p.uids.add(pub.party.id.UID, uidUse{topics: -1})
	delete(p.byTopic[topic], pub.party.id.Session)
	if len(p.byTopic[topic]) == 0 {
		delete(p.byTopic, topic)
		p.ids.freed++
		p.gauges.add(gaugeTopics, -1)
		p.topics.remove(topic, topic)
	}
}

// unsubscribe ends a subscription. alive: its process goes on, and returns what it holds.
func (p *pubSub) unsubscribe(c actor.Context, key subKey, alive bool, reason string) {
	s := p.subs[key]
	if s == nil {
		return
	}
	delete(p.subs, key)
	if p.bySub[key.session]--; p.bySub[key.session] == 0 {
		delete(p.bySub, key.session)
	}
	p.uids.add(s.party.id.UID, uidUse{subscriptions: -1})
	p.patterns.remove(s.msg.GetPattern(), key)
	for _, r := range s.routes {
		p.close(c, r, reason, alive, true)
	}
}

// close ends a route at both ends. pubAlive and subAlive tell each end whether the other's process goes on.
func (p *pubSub) close(c actor.Context, r *psRoute, reason string, subAlive, pubAlive bool) {
	delete(p.routes, r.id)
	delete(r.pub.routes, toKey{r.sub.key, r.group})
	delete(r.sub.routes, fromKey{r.pub.party.id.Session, r.group})
	r.pub.cost -= r.cost
	p.gauges.route(-1)
	p.uids.route(r.pub.party.id.UID, r.sub.party.id.UID, -1)
	c.Send(r.pub.party.pid, &closeRoute{route: r.id, reason: reason, alive: subAlive})
	c.Send(r.sub.party.pid, &closeRoute{route: r.id, reason: reason, alive: pubAlive})
}

// gone ends all that a session published and subscribed to.
func (p *pubSub) gone(c actor.Context, session uint64, alive bool) {
	p.resuming.end(c, &p.router, session)
	if pub := p.pubs[session]; pub != nil {
		for topic := range pub.topics {
			p.forgetTopic(pub, topic)
		}
		for _, r := range pub.routes {
			p.close(c, r, "the publisher is gone", true, alive)
		}
		delete(p.pubs, session)
	}
	if p.bySub[session] > 0 {
		for key := range p.subs {
			if key.session == session {
				p.unsubscribe(c, key, alive, "the subscriber is gone")
			}
		}
	}
	for key, s := range p.adopted {
		if key.session == session {
			for _, r := range s.routes {
				p.close(c, r, "the subscriber is gone", alive, true)
			}
			delete(p.adopted, key)
		}
	}
	p.reports.sessionGone(session)
	p.router.sessionGone(c, session)
}
