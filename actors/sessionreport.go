package actors

import (
	"fmt"

	"github.com/asynkron/protoactor-go/actor"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio"
)

// onKnownPeer takes what the node has got of a peer. If that isn't so, the node itself goes without.
func (s *session) onKnownPeer(m *bhomev1.KnownPeer) {
	if s.given[m.GetSession()] == nil && len(s.given) >= s.cfg.Limits.RoutesPerNode {
		s.fault("Report", fmt.Errorf("more than %d peers", s.cfg.Limits.RoutesPerNode))
		return
	}
	g := s.givenOf(m.GetSession())
	g.bell, g.pidfd = m.GetBell(), m.GetPidfd()
	for _, ref := range m.GetSegments() {
		if len(g.data)+len(g.control) >= 2*s.cfg.Limits.SegmentsPerNode {
			s.fault("Report", fmt.Errorf("more than %d segments of a peer", 2*s.cfg.Limits.SegmentsPerNode))
			return
		}
		if shmio.Kind(ref.GetKind()) == shmio.KindData {
			g.data[segmentPlace{ref.GetBase(), ref.GetGeneration()}] = true
		} else {
			g.control[ref.GetNumber()] = true
		}
	}
}

// onReportedRoute takes an end of a route that the node kept over the loss of the center.
func (s *session) onReportedRoute(c actor.Context, r *bhomev1.ReportedRoute) {
	o := r.GetRoute()
	end := routeEnd{o.GetRoute(), o.GetRole()}
	if r.GetMore() {
		if s.reporting += len(o.GetTopics()); s.reporting > s.cfg.Limits.TopicsPerNode {
			s.fault("Report", fmt.Errorf("more than %d topics of routes whose rest doesn't come", s.cfg.Limits.TopicsPerNode))
			return
		}
		if s.pieces == nil {
			s.pieces = map[routeEnd][]*bhomev1.TopicID{}
		}
		s.pieces[end] = append(s.pieces[end], o.GetTopics()...)
		return
	}
	if some := s.pieces[end]; some != nil {
		delete(s.pieces, end)
		s.reporting -= len(some)
		o.Topics = append(some, o.GetTopics()...)
	}
	if routeSpec(o).Validate() != nil || len(s.routes) >= s.cfg.Limits.RoutesPerNode {
		s.fault("Report", fmt.Errorf("route %#x can't be", o.GetRoute()))
		return
	}
	s.routes[end] = &sessionRoute{open: o, topics: topicNames(o.GetTopics()), half: r.GetHalf(), joined: r.GetJoined(), since: monotonic()}
	to := s.roles.pubsub
	if o.GetKind() != bhomev1.RouteKind_ROUTE_KIND_PUBSUB {
		to = s.roles.registry
	}
	id := s.id
	id.pidOf = c.Self()
	c.Send(to, &reportedRoute{id: id, route: r})
}
