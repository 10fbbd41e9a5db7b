package actors

import (
	"github.com/asynkron/protoactor-go/actor"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/wire"
)

// What the routes of services are like.
const (
	maxServeDepth = 4096
	maxServeHold  = 16384 // twice the depth may be unanswered; besides those, each worker may still have an abandoned one
	maxProviders  = 1024  // of one service: each of its clients has a route to each
	replyDepth    = 256
	replyHold     = 1024
	firstService  = 1 << 31 // service topics have ids of their own
)

// registry knows who serves what and who asks for it. Each client of a service has a request route to each of its
// providers, and one reply route from each provider's process, whatever it asks there.
type registry struct {
	cfg       Config
	router    router
	ids       topicIDs
	providers map[subKey]*provider
	services  map[string]*service
	clients   map[uint64]map[string]*serviceClient // by session and topic
	offline   map[uint64]bool
	routes    map[uint64]*svcRoute
	replies   map[pairKey]*svcRoute
	perNode   map[uint64]int // routes of a session
	reports   reports
	returns   returns
	kept      keeps
	serving   map[uint64]int // services of a session
	gauges    gauges
	refusals  refusals
	uids      uidUses
}

// pairKey names the reply route from a provider's process to a client's, for replies of an access group.
type pairKey struct {
	provider, client uint64 // sessions
	group            string
}

type service struct {
	topic     string
	providers map[subKey]*provider
	clients   map[uint64]*serviceClient
}

type provider struct {
	key    subKey
	party  party
	msg    *bhomev1.RegisterRPC
	routes map[uint64]*svcRoute // request routes, by client's session
}

type serviceClient struct {
	party party
	topic string
	quota uint64
}

type svcRoute struct {
	id      uint64
	kind    bhomev1.RouteKind
	w, r    party
	prov    *provider       // request routes
	topic   string          // request routes
	uses    map[uint64]bool // reply routes: the request routes that need it
	pair    pairKey         // a reply route's own, or that of the replies to a request route
	group   string          // the access group of what goes over it
	service subKey          // request routes that outlived a center: the service at the reader's end
	depth   uint32          // of those
	out     uint32          // of those
}

func newRegistry(cfg Config) *registry {
	g := &registry{cfg: cfg, router: newRouter(1), serving: map[uint64]int{}, providers: map[subKey]*provider{},
		services: map[string]*service{}, clients: map[uint64]map[string]*serviceClient{}, offline: map[uint64]bool{}, routes: map[uint64]*svcRoute{},
		refusals: newRefusals(cfg.Logger), uids: uidUses{}, replies: map[pairKey]*svcRoute{}, perNode: map[uint64]int{}, reports: newReports(), returns: newReturns(), kept: keeps{}}
	g.ids = newTopicIDs(firstService, cfg.Limits.Topics, func(topic string) bool { return g.services[topic] != nil })
	return g
}

// Receive is the actor.
func (g *registry) Receive(c actor.Context) {
	switch m := c.Message().(type) {
	case *busFrame:
		switch body := m.body.(type) {
		case *bhomev1.RegisterRPC:
			g.register(c, m, body)
		case *bhomev1.UnregisterRPC:
			g.unregister(c, subKey{m.id.Session, body.GetService()}, true, "the service was closed")
			commonReply(c, m.to, nil)
		case *bhomev1.ConnectService:
			g.connect(c, m, body)
		case *bhomev1.DisconnectService:
			g.disconnect(c, m.id.Session, body.GetTopic(), true)
			commonReply(c, m.to, nil)
		case *bhomev1.QueryTopic:
			g.query(c, m, body)
		}
	case *routeAck:
		g.router.onAck(c, m)
	case *routeClosed:
		if r := g.routes[m.route]; r != nil {
			m.log(&g.refusals, &r.w, &r.r)
			g.close(c, r, "the other end closed it: "+m.reason, true, true)
		}
	case *nodeState:
		g.onNodeState(c, m)
	case *reportedRoute:
		g.reported(c, m)
	case *resumes:
		g.returns.begin(m.session, monotonic())
	case *restored:
		g.restored(c, m.session)
		g.returns.end(c, &g.router, m.session, monotonic())
	case *tick:
		g.refusals.expire(m.now)
		for _, h := range g.reports.orphans() {
			h.orphan(c)
		}
		g.returns.expire(c, &g.router, m.now)
	case *sessionGone:
		g.gone(c, m.id.Session, m.alive)
		g.returns.end(c, &g.router, m.id.Session, monotonic())
	case *peerOver:
		c.Send(m.asks, m)
	case *topicRows:
		c.Respond(g.rows())
	case *auditRole:
		audited(c, func() any { return g.audit() })
	}
}

func (g *registry) service(topic string) *service {
	s := g.services[topic]
	if s == nil {
		s = &service{topic: topic, providers: map[subKey]*provider{}, clients: map[uint64]*serviceClient{}}
		g.services[topic] = s
		g.gauges.add(gaugeTopics, 1)
	}
	return s
}

func (g *registry) dropService(s *service) {
	if len(s.providers)+len(s.clients) == 0 {
		delete(g.services, s.topic)
		g.ids.freed++
		g.gauges.add(gaugeTopics, -1)
	}
}

// register records a provider and connects the clients that wait for one.
func (g *registry) register(c actor.Context, f *busFrame, m *bhomev1.RegisterRPC) {
	key := subKey{f.id.Session, m.GetService()}
	var bad *bhomev1.ErrorMsg
	if err := wire.ValidateTopic(m.GetTopic()); err != nil {
		bad = errorMsg(bhomev1.ErrorCode_ERROR_CODE_INVALID_INPUT, "%v", err)
	} else if err := g.cfg.Access.refuses(&f.id, actServe, m.GetTopic()); err != nil {
		bad = err
	} else if m.GetDepth() < 1 || m.GetDepth() > maxServeDepth || m.GetHold() < 1 || m.GetHold() > maxServeHold {
		bad = errorMsg(bhomev1.ErrorCode_ERROR_CODE_INVALID_INPUT, "depth %d must be 1 to %d, hold %d 1 to %d", m.GetDepth(), maxServeDepth, m.GetHold(), maxServeHold)
	} else if g.providers[key] != nil {
		bad = errorMsg(bhomev1.ErrorCode_ERROR_CODE_INVALID_INPUT, "service %d exists already", m.GetService())
	} else if n := g.serving[f.id.Session]; n >= g.cfg.Limits.SubscriptionsPerNode {
		bad = tooMany("subscriptions_per_node", f.id.Name, n, g.cfg.Limits.SubscriptionsPerNode)
	} else if err := g.uids.over(&g.cfg.Limits, f.id.UID, uidUse{subscriptions: 1}); err != nil {
		bad = err
	} else if s := g.services[m.GetTopic()]; s != nil && len(s.providers) >= maxProviders {
		bad = tooMany("providers_per_service", m.GetTopic(), len(s.providers), maxProviders)
	} else if g.ids.of(m.GetTopic()) == 0 {
		bad = tooMany("topics", "bus", len(g.ids.ids), g.cfg.Limits.Topics)
	}
	if bad != nil {
		g.refusals.note(&f.id, bad, monotonic())
		commonReply(c, f.to, bad)
		return
	}
	p := &provider{key: key, party: partyOf(f), msg: m, routes: map[uint64]*svcRoute{}}
	g.providers[key] = p
	g.serving[key.session]++
	g.uids.add(p.party.id.UID, uidUse{subscriptions: 1})
	s := g.service(m.GetTopic())
	s.providers[key] = p
	for _, r := range g.kept[key] {
		g.resume(p, r)
	}
	id, op := g.router.begin(f.id.Session, func(c actor.Context) { commonReply(c, f.to, nil) })
	for _, cl := range s.clients {
		g.pair(c, cl, p, id, op)
	}
	g.router.settle(c, id)
	g.returns.came(c, &g.router, m.GetTopic())
}

// connect records a client and opens routes to the providers there are. After a restart it waits for one to come back.
func (g *registry) connect(c actor.Context, f *busFrame, m *bhomev1.ConnectService) {
	refuse := func(err *bhomev1.ErrorMsg) {
		g.refusals.note(&f.id, err, monotonic())
		c.Send(f.to.session, &frameOut{to: f.to, typ: bhomev1.MsgType_MSG_TYPE_CONNECT_SERVICE_REPLY, body: &bhomev1.ConnectServiceReply{Errmsg: err}})
	}
	if err := wire.ValidateTopic(m.GetTopic()); err != nil {
		refuse(errorMsg(bhomev1.ErrorCode_ERROR_CODE_INVALID_INPUT, "%v", err))
		return
	}
	if err := g.cfg.Access.refuses(&f.id, actRequest, m.GetTopic()); err != nil {
		refuse(err)
		return
	}
	topicID := g.ids.of(m.GetTopic())
	if topicID == 0 {
		refuse(tooMany("topics", "bus", len(g.ids.ids), g.cfg.Limits.Topics))
		return
	}
	if most := g.cfg.Limits.RouteBytes; m.GetQuota() > most {
		refuse(&bhomev1.ErrorMsg{Code: bhomev1.ErrorCode_ERROR_CODE_NO_MEMORY, Limit: "route", Whose: f.id.Name, InUse: m.GetQuota(), Max: most})
		return
	}
	mine := g.clients[f.id.Session]
	if mine == nil {
		mine = map[string]*serviceClient{}
		g.clients[f.id.Session] = mine
	}
	if n := len(mine); n >= g.cfg.Limits.TopicsPerNode && mine[m.GetTopic()] == nil {
		refuse(tooMany("topics_per_node", f.id.Name, n, g.cfg.Limits.TopicsPerNode))
		return
	}
	if mine[m.GetTopic()] == nil {
		if err := g.uids.over(&g.cfg.Limits, f.id.UID, uidUse{topics: 1}); err != nil {
			refuse(err)
			return
		}
		g.uids.add(f.id.UID, uidUse{topics: 1})
	}
	s := g.service(m.GetTopic())
	cl := &serviceClient{party: partyOf(f), topic: m.GetTopic(), quota: m.GetQuota()}
	mine[m.GetTopic()], s.clients[f.id.Session] = cl, cl
	var over *bhomev1.ErrorMsg // why there is no route to any of the providers
	id, op := g.router.begin(f.id.Session, func(c actor.Context) {
		if over != nil {
			refuse(over)
			return
		}
		c.Send(f.to.session, &frameOut{to: f.to, typ: bhomev1.MsgType_MSG_TYPE_CONNECT_SERVICE_REPLY,
			body: &bhomev1.ConnectServiceReply{TopicId: topicID, Providers: uint32(len(s.providers))}})
	})
	reached := false
	for _, p := range s.providers {
		if err := g.pair(c, cl, p, id, op); err != nil {
			over = err
		}
		reached = reached || p.routes[f.id.Session] != nil
	}
	if reached {
		over = nil
	} else if over != nil {
		g.disconnect(c, f.id.Session, m.GetTopic(), true)
		g.router.settle(c, id)
		return
	}
	if len(s.providers) == 0 {
		g.returns.hold(f.id.Session, m.GetTopic(), id, op, monotonic())
	}
	g.router.settle(c, id)
}

// pair opens the routes between a client and a provider that is online, unless there are some. The error is the limit that
// they would exceed.
func (g *registry) pair(c actor.Context, cl *serviceClient, p *provider, id uint64, op *routeOp) *bhomev1.ErrorMsg {
	cs, ps := cl.party.id.Session, p.key.session
	if g.offline[ps] || p.routes[cs] != nil {
		return nil
	}
	if err := g.roomForPair(cl, p); err != nil {
		prov := &p.party.id
		g.refusals.warn("a client gets no route to a provider", &cl.party.id, monotonic(),
			append([]any{"provider", prov.Name, "provider_pid", prov.PID, "provider_uid", prov.UID, "topic", cl.topic}, limitAttrs(err)...)...)
		return err
	}
	replyQuota := min(g.cfg.Limits.DefaultQuota, g.cfg.Limits.RouteBytes)
	quota := cl.quota
	if quota == 0 {
		quota = replyQuota
	}
	key := pairKey{ps, cs, g.cfg.Access.group(actRequest, cl.topic)}
	group := g.cfg.Access.group(actServe, cl.topic)
	rep := g.replies[key]
	if rep == nil {
		rep = &svcRoute{id: g.router.routeID(), kind: bhomev1.RouteKind_ROUTE_KIND_REPLY, w: p.party, r: cl.party, uses: map[uint64]bool{}, pair: key, group: key.group}
		g.record(rep)
		g.replies[key] = rep
		g.router.open(c, &bhomev1.RouteOpen{Route: rep.id, Kind: rep.kind, Slots: slotsFor(replyDepth), Depth: replyDepth, Out: replyDepth + replyHold,
			Policy: bhomev1.Policy_POLICY_BLOCK, Quota: replyQuota, Access: key.group}, p.party, cl.party, 0, nil)
	}
	req := &svcRoute{id: g.router.routeID(), kind: bhomev1.RouteKind_ROUTE_KIND_REQUEST, w: cl.party, r: p.party, prov: p, topic: cl.topic, pair: key, group: group}
	g.record(req)
	p.routes[cs] = req
	rep.uses[req.id] = true
	g.router.open(c, &bhomev1.RouteOpen{Route: req.id, Kind: req.kind, Slots: slotsFor(p.msg.GetDepth()), Depth: p.msg.GetDepth(), Out: p.msg.GetDepth() + p.msg.GetHold(),
		Policy: bhomev1.Policy_POLICY_BLOCK, Quota: quota, Access: group, ReplyAccess: key.group, Subscription: p.key.number, Topics: []*bhomev1.TopicID{{Id: g.ids.of(cl.topic), Name: cl.topic}}},
		cl.party, p.party, id, op)
	return nil
}

// roomForPair says which limit a client's routes to a provider, for requests and for replies, would exceed; nil: none.
func (g *registry) roomForPair(cl *serviceClient, p *provider) *bhomev1.ErrorMsg {
	for _, id := range []*Identity{&cl.party.id, &p.party.id} {
		if n := g.perNode[id.Session]; n >= g.cfg.Limits.RoutesPerNode {
			return tooMany("routes_per_node", id.Name, n, g.cfg.Limits.RoutesPerNode)
		}
		if err := g.uids.over(&g.cfg.Limits, id.UID, uidUse{routes: 2}); err != nil {
			return err
		}
	}
	return nil
}

func (g *registry) record(r *svcRoute) {
	g.routes[r.id] = r
	g.gauges.route(1)
	g.uids.route(r.w.id.UID, r.r.id.UID, 1)
	g.perNode[r.w.id.Session]++
	g.perNode[r.r.id.Session]++
}

// close ends a route, and the reply route when no request route needs it any more. A reply route of living processes
// stays a while longer: answers to what is in hand still come. It goes with either process.
func (g *registry) close(c actor.Context, r *svcRoute, reason string, readerAlive, writerAlive bool) {
	if g.routes[r.id] == nil {
		return
	}
	delete(g.routes, r.id)
	g.gauges.route(-1)
	g.uids.route(r.w.id.UID, r.r.id.UID, -1)
	for _, s := range []uint64{r.w.id.Session, r.r.id.Session} {
		if g.perNode[s]--; g.perNode[s] <= 0 {
			delete(g.perNode, s)
		}
	}
	if r.prov != nil && r.prov.routes[r.w.id.Session] == r {
		delete(r.prov.routes, r.w.id.Session)
	}
	g.kept.remove(r)
	if r.kind == bhomev1.RouteKind_ROUTE_KIND_REPLY {
		delete(g.replies, r.pair)
	} else if rep := g.replies[r.pair]; rep != nil {
		delete(rep.uses, r.id)
	}
	c.Send(r.w.pid, &closeRoute{route: r.id, reason: reason, alive: readerAlive})
	c.Send(r.r.pid, &closeRoute{route: r.id, reason: reason, alive: writerAlive})
}

func (g *registry) unregister(c actor.Context, key subKey, alive bool, reason string) {
	p := g.providers[key]
	if p == nil {
		return
	}
	delete(g.providers, key)
	if g.serving[key.session]--; g.serving[key.session] == 0 {
		delete(g.serving, key.session)
	}
	g.uids.add(p.party.id.UID, uidUse{subscriptions: -1})
	s := g.services[p.msg.GetTopic()]
	delete(s.providers, key)
	g.dropService(s)
	for _, r := range p.routes {
		g.close(c, r, reason, alive, true)
	}
}

func (g *registry) disconnect(c actor.Context, session uint64, topic string, alive bool) {
	if g.clients[session][topic] == nil {
		return
	}
	g.uids.add(g.clients[session][topic].party.id.UID, uidUse{topics: -1})
	delete(g.clients[session], topic)
	if len(g.clients[session]) == 0 {
		delete(g.clients, session)
	}
	s := g.services[topic]
	delete(s.clients, session)
	for _, p := range s.providers {
		if r := p.routes[session]; r != nil {
			g.close(c, r, "the client is gone", true, alive)
		}
	}
	g.dropService(s)
}

// onNodeState takes a provider out of its clients' choice while it is unresponsive, and back in.
func (g *registry) onNodeState(c actor.Context, m *nodeState) {
	if g.offline[m.session] == !m.online {
		return
	}
	if m.online {
		delete(g.offline, m.session)
	} else {
		g.offline[m.session] = true
	}
	id, op := g.router.begin(0, func(actor.Context) {})
	for key, p := range g.providers {
		if key.session != m.session {
			continue
		}
		if !m.online {
			for _, r := range p.routes {
				g.close(c, r, "the provider is unresponsive", true, true)
			}
			continue
		}
		for _, cl := range g.services[p.msg.GetTopic()].clients {
			g.pair(c, cl, p, id, op)
		}
	}
	g.router.settle(c, id)
}

func (g *registry) gone(c actor.Context, session uint64, alive bool) {
	for key := range g.providers {
		if key.session == session {
			g.unregister(c, key, alive, "the provider is gone")
		}
	}
	for topic := range g.clients[session] {
		g.disconnect(c, session, topic, alive)
	}
	if g.perNode[session] > 0 {
		for _, r := range g.routes { // reply routes, and such as were adopted
			if r.w.id.Session == session || r.r.id.Session == session {
				g.close(c, r, "one end is gone", alive || r.r.id.Session != session, alive || r.w.id.Session != session)
			}
		}
	}
	delete(g.offline, session)
	g.reports.sessionGone(session)
	g.router.sessionGone(c, session)
}

func (g *registry) query(c actor.Context, f *busFrame, m *bhomev1.QueryTopic) {
	reply := &bhomev1.QueryTopicReply{}
	if err := wire.ValidateTopic(m.GetTopic()); err != nil {
		reply.Errmsg = errorMsg(bhomev1.ErrorCode_ERROR_CODE_INVALID_INPUT, "%v", err)
	} else if err := g.cfg.Access.refuses(&f.id, actRequest, m.GetTopic()); err != nil { // it is for those who would ask there
		g.refusals.note(&f.id, err, monotonic())
		reply.Errmsg = err
	} else if s := g.services[m.GetTopic()]; s != nil {
		for _, p := range s.providers {
			if len(reply.Providers) == 256 {
				reply.Errmsg = nil // the first 256 do
				break
			}
			reply.Providers = append(reply.Providers, &bhomev1.Provider{ProcId: p.party.id.Name, Session: p.key.session, Pid: p.party.id.PID, Online: !g.offline[p.key.session]})
		}
	}
	c.Send(f.to.session, &frameOut{to: f.to, typ: bhomev1.MsgType_MSG_TYPE_QUERY_TOPIC_REPLY, body: reply})
}
