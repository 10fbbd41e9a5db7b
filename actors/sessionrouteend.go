package actors

import (
	"fmt"

	"github.com/asynkron/protoactor-go/actor"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
)

// route is an end of a route that the node has, or of one that is over and whose other end isn't known yet.
func (s *session) route(end routeEnd) *sessionRoute {
	if r := s.routes[end]; r != nil {
		return r
	}
	return s.ending[end]
}

// closeRoute tells the node that a route is over. What was sent on it is read by a peer that comes to know the half yet: until
// both have been told of each other, the end is remembered, as long as both live.
func (s *session) closeRoute(c actor.Context, m *closeRoute) {
	for _, role := range []bhomev1.Role{bhomev1.Role_ROLE_WRITER, bhomev1.Role_ROLE_READER} {
		end := routeEnd{m.route, role}
		r := s.route(end)
		if r == nil {
			continue
		}
		again := s.routes[end] == nil
		delete(s.routes, end)
		delete(s.ending, end)
		if s.detach {
			continue
		}
		if m.alive && !r.acquainted() && !r.refused && r.peer != nil && len(s.ending) < maxEarly {
			s.ending[end] = r
			if !again {
				s.askOver(c, r.open.GetPeerSession())
			}
		}
		gen := s.nextGeneration(role)
		s.conn.send(outFrame{typ: bhomev1.MsgType_MSG_TYPE_ROUTE_CLOSE, body: &bhomev1.RouteClose{Route: m.route, Generation: gen, Reason: m.reason, PeerAlive: m.alive}})
		s.storeGeneration(gen)
	}
}

// acquainted reports whether both ends have been told of each other's half, as far as this session sees.
func (r *sessionRoute) acquainted() bool { return (r.told || r.joined) && (r.passed || r.joined) }

// acquaint forgets an end of a route that is over if nothing is to be passed on any more.
func (s *session) acquaint(end routeEnd) {
	if r := s.ending[end]; r != nil && r.acquainted() {
		delete(s.ending, end)
	}
}

// askOver has the center say when a session is gone. One question for each is under way at most.
func (s *session) askOver(c actor.Context, session uint64) {
	if s.asksOver[session] {
		return
	}
	if len(s.asksOver) >= s.cfg.Limits.RoutesPerNode {
		s.fault("PeerGone", fmt.Errorf("it asks for the ends of more than %d sessions", s.cfg.Limits.RoutesPerNode))
		return
	}
	s.asksOver[session] = true
	c.Send(s.roles.center, &peerOver{session: session, asks: c.Self()})
}

// peerOver hears that a session is gone, and that everything about it has been told.
func (s *session) peerOver(c actor.Context, session uint64) {
	for end, r := range s.ending {
		if r.open.GetPeerSession() == session {
			s.closeRoute(c, &closeRoute{route: end.id, reason: "its other end is gone"})
		}
	}
	delete(s.given, session)
	delete(s.asksOver, session)
	if !s.detach && s.state != stateGone {
		s.conn.send(outFrame{typ: bhomev1.MsgType_MSG_TYPE_PEER_GONE, body: &bhomev1.PeerGone{Session: session}})
	}
}

// onNodeClosesRoute passes on that the node has ended a route of its own accord. It may be over already: then the other end
// hears that it waits in vain for this one's half.
func (s *session) onNodeClosesRoute(c actor.Context, m *bhomev1.RouteClose) {
	var open *sessionRoute
	for _, role := range []bhomev1.Role{bhomev1.Role_ROLE_WRITER, bhomev1.Role_ROLE_READER} {
		end := routeEnd{m.GetRoute(), role}
		r := s.route(end)
		if r == nil || r.closing {
			continue
		}
		r.closing = true
		if !r.told && !r.joined && r.peer != nil { // it will not be: nobody may wait for it
			r.refused = true
			delete(s.ending, end)
			c.Send(r.peer, &closeRoute{route: m.GetRoute(), reason: "its other end can't be made"})
		}
		if open == nil {
			open = s.routes[end]
		}
	}
	if open == nil {
		return
	}
	to := s.roles.pubsub
	if open.open.GetKind() != bhomev1.RouteKind_ROUTE_KIND_PUBSUB {
		to = s.roles.registry
	}
	c.Send(to, &routeClosed{route: m.GetRoute(), session: s.id.Session, reason: told(m.GetReason())})
}
