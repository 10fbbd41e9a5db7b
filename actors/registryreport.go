package actors

import (
	"github.com/asynkron/protoactor-go/actor"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
)

// reported takes one end of a route that outlived the center; with both ends it is adopted, until the service and its
// client are known again.
func (g *registry) reported(c actor.Context, m *reportedRoute) {
	h := g.reports.add(m)
	switch {
	case h == nil:
	case !h.both():
		g.lone(c, h)
	case g.routes[m.route.GetRoute().GetRoute()] != nil || !h.agree():
		h.close(c, endsDisagree)
	case !g.allows(h):
		h.close(c, forbidden)
	default:
		g.adopt(c, h)
	}
}

// restored hears that a node has said all that it kept. New routes are opened where the center before had told only one
// end; a request that was sent there has had no provider.
func (g *registry) restored(c actor.Context, session uint64) {
	for _, h := range g.reports.complete(session) {
		g.lone(c, h)
	}
	for key, routes := range g.kept {
		if key.session == session {
			for _, r := range routes {
				g.close(c, r, closedService, true, true)
			}
		}
	}
}

// lone finishes a route that the center before had told only one end of. A provider may have answered over its end of a
// reply route: its client gets the answers now. Any other route ends.
func (g *registry) lone(c actor.Context, h *halfReport) {
	if h.writer != nil && !h.writer.route.GetJoined() && h.writer.route.GetRoute().GetKind() == bhomev1.RouteKind_ROUTE_KIND_REPLY {
		w := h.writer.route.GetRoute()
		for _, cl := range g.clients[w.GetPeerSession()] { // any of its services with such replies
			if g.cfg.Access.group(actRequest, cl.topic) != w.GetAccess() {
				continue
			}
			open := cloneOpen(w)
			open.Role, open.PeerSession, open.PeerProc, open.PeerPid = bhomev1.Role_ROLE_READER, h.writer.id.Session, h.writer.id.Name, h.writer.id.PID
			g.outlived(w, 0, party{h.writer.id, h.writer.id.pidOf}, cl.party)
			c.Send(cl.party.pid, &openRoute{open: open, peer: h.writer.id.pidOf, lone: true})
			c.Send(h.writer.id.pidOf, &adoptRoute{open: w, peer: cl.party.pid, lone: true})
			return
		}
	}
	h.close(c, loneRoute)
}

// outlived records a route that outlived the center; service is the provider's number of what a request route leads to.
func (g *registry) outlived(w *bhomev1.RouteOpen, service uint64, writer, reader party) {
	route := &svcRoute{id: w.GetRoute(), kind: w.GetKind(), w: writer, r: reader, group: w.GetAccess(), uses: map[uint64]bool{}}
	if w.GetKind() == bhomev1.RouteKind_ROUTE_KIND_REPLY {
		route.pair = pairKey{writer.id.Session, reader.id.Session, route.group}
		if g.replies[route.pair] == nil {
			g.replies[route.pair] = route
		}
	} else {
		route.pair = pairKey{reader.id.Session, writer.id.Session, w.GetReplyAccess()}
		route.service = subKey{reader.id.Session, service}
		g.keep(route, w)
	}
	g.record(route)
}

// allows reports whether a route that both ends have kept may go on, by the rules that hold now. What a reply route is for is
// known once its client asks again: nothing of the provider's goes over it before.
func (g *registry) allows(h *halfReport) bool {
	w := h.writer.route.GetRoute()
	if w.GetKind() == bhomev1.RouteKind_ROUTE_KIND_REPLY {
		return g.repliesTo(&h.reader.id, w.GetAccess())
	}
	for _, t := range w.GetTopics() {
		if g.cfg.Access.refuses(&h.writer.id, actRequest, t.GetName()) != nil || g.cfg.Access.refuses(&h.reader.id, actServe, t.GetName()) != nil ||
			g.cfg.Access.group(actServe, t.GetName()) != w.GetAccess() || g.cfg.Access.group(actRequest, t.GetName()) != w.GetReplyAccess() ||
			w.GetReplyAccess() != h.reader.route.GetRoute().GetReplyAccess() {
			return false
		}
	}
	return true
}

// repliesTo reports whether a process may read replies of an access group.
func (g *registry) repliesTo(id *Identity, group string) bool {
	if group == "" {
		return true
	}
	for i := range g.cfg.Access.Rules {
		if r := &g.cfg.Access.Rules[i]; r.Request != nil && r.groupOf(actRequest) == group {
			return r.Request.admits(id)
		}
	}
	return false // a rule that isn't there any more, or another list
}

const (
	loneRoute     = "its other end is not there any more"
	closedService = "the service was closed"
)

func (g *registry) adopt(c actor.Context, h *halfReport) {
	w := h.writer.route.GetRoute()
	for _, t := range w.GetTopics() {
		g.ids.keep(t.GetName(), t.GetId())
	}
	// Its service, and the client's asking for it, are told after this: they find it.
	g.outlived(w, h.reader.route.GetRoute().GetSubscription(), party{h.writer.id, h.writer.id.pidOf}, party{h.reader.id, h.reader.id.pidOf})
	h.adopt(c)
	if r := g.routes[w.GetRoute()]; g.reports.restored[h.reader.id.Session] && g.kept[r.service][r.id] != nil {
		g.close(c, r, closedService, true, true)
	}
}

func (g *registry) rows() *topicRowsR {
	res := &topicRowsR{routes: map[uint64]routePlace{}, names: map[uint32]string{}}
	for topic, s := range g.services {
		row := &bhomev1.TopicRow{Topic: topic, Kind: "service", TopicId: g.ids.ids[topic]}
		for key, p := range s.providers {
			name := p.party.id.Name
			if g.offline[key.session] {
				name += " (unresponsive)"
			}
			row.Providers = append(row.Providers, name)
			for cs, r := range p.routes {
				res.routes[r.id] = routePlace{len(res.rows), cs}
			}
		}
		for _, cl := range s.clients {
			row.Publishers = append(row.Publishers, cl.party.id.Name)
		}
		res.rows = append(res.rows, row)
	}
	for name, id := range g.ids.ids {
		res.names[id] = name
	}
	return res
}
