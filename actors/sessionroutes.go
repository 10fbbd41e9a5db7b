package actors

import (
	"fmt"
	"sync"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio"
	"github.com/bhome-bus/bhome/wire"
)

// onRouteMessage takes what the other actors say of routes.
func (s *session) onRouteMessage(c actor.Context, msg any) {
	switch m := msg.(type) {
	case *openRoute:
		s.openRoute(c, m)
		s.tellBusy(c)
	case *routeTopics:
		s.routeTopics(c, m)
	case *closeRoute:
		s.closeRoute(c, m)
		s.goOn(c)
		s.tellBusy(c)
	case *peerHalf:
		s.peerHalf(c, m)
		s.tellBusy(c)
	case *peerSegments:
		s.peerSegments(m)
	case *peerOver:
		s.peerOver(c, m.session)
	case *adoptRoute:
		s.adoptRoute(c, m)
	case *retell:
		if r := s.route(routeEnd{m.route, m.role}); r != nil && !s.detach {
			r.told, r.peer = false, m.asks
			s.conn.send(outFrame{typ: bhomev1.MsgType_MSG_TYPE_ROUTE_RETELL, body: &bhomev1.RouteRetell{Route: m.route, Role: m.role, Bell: m.bell}})
		}
	case *describe:
		c.Respond(s.describe())
	case *scanHeads:
		c.Respond(s.heads())
	case *scanRoutes:
		c.Respond(s.scan(m))
	case *auditSession:
		audited(c, func() any { return s.audit(m, c.Self().Id) })
	case *auditHeads:
		audited(c, func() any { return s.auditHeads() })
	case *auditWords:
		audited(c, func() any { return s.auditWords(m) })
	}
}

// nextGeneration numbers a frame that the node must have taken before it publishes again. The word is stored once the
// frame is queued: a publisher that sees it waits for the frame.
func (s *session) nextGeneration(role bhomev1.Role) uint64 {
	if role != bhomev1.Role_ROLE_WRITER {
		return 0
	}
	s.routeGen++
	return s.routeGen
}

func (s *session) storeGeneration(gen uint64) {
	if gen != 0 {
		s.link.RouteGeneration().Store(gen) // pairs with the publisher's load before each push
	}
}

func (s *session) openRoute(c actor.Context, m *openRoute) {
	o := m.open
	end := routeEnd{o.GetRoute(), o.GetRole()}
	if !s.detach && s.state == stateOnline {
		s.routes[end] = &sessionRoute{open: o, topics: topicNames(o.GetTopics()), peer: m.peer, since: monotonic()}
		s.sendOpen(o)
		if e, ok := s.early[end]; ok {
			delete(s.early, end)
			s.peerHalf(c, e.m)
		} else if m.lone {
			c.Send(m.peer, &retell{route: o.GetRoute(), role: bhomev1.Role_ROLE_WRITER, bell: !s.givenOf(o.GetPeerSession()).bell, asks: c.Self()})
		}
	}
	s.acknowledge(c, m.ack, m.op)
}

// ackPatience is how long who asks for a route waits at most for a node that doesn't read its socket.
const ackPatience = 20 * time.Millisecond

// acknowledge tells PubSub or Registry that the node will adopt what it was just told before it sends again. From when it is on
// the socket on, that holds although the center may die; but nobody waits for a node that is late.
func (s *session) acknowledge(c actor.Context, to *actor.PID, op uint64) {
	if to == nil {
		return
	}
	ack := &routeAck{op, s.id.Session}
	if s.detach || s.conn == nil || s.state != stateOnline {
		c.Send(to, ack)
		return
	}
	root := c.ActorSystem().Root
	once := sync.OnceFunc(func() { root.Send(to, ack) })
	late := time.AfterFunc(ackPatience, once)
	s.conn.send(outFrame{written: func() {
		late.Stop()
		once()
	}})
}

// sendOpen tells the node of a route; topics that don't fit the frame come after it.
func (s *session) sendOpen(o *bhomev1.RouteOpen) {
	pieces := splitTopics(o.GetTopics())
	first := o
	if len(pieces) > 1 {
		all := o.Topics
		o.Topics = nil
		first = proto.Clone(o).(*bhomev1.RouteOpen)
		o.Topics, first.Topics = all, pieces[0]
	}
	first.Generation = s.nextGeneration(o.GetRole())
	s.conn.send(outFrame{typ: bhomev1.MsgType_MSG_TYPE_ROUTE_OPEN, body: first})
	s.storeGeneration(first.GetGeneration())
	for i := 1; i < len(pieces); i++ {
		s.sendTopics(o.GetRole(), &bhomev1.RouteTopics{Route: o.GetRoute(), Added: pieces[i]})
	}
}

func (s *session) sendTopics(role bhomev1.Role, m *bhomev1.RouteTopics) {
	m.Generation = s.nextGeneration(role)
	s.conn.send(outFrame{typ: bhomev1.MsgType_MSG_TYPE_ROUTE_TOPICS, body: m})
	s.storeGeneration(m.GetGeneration())
}

// splitTopics cuts a list into what fits a frame each.
func splitTopics(topics []*bhomev1.TopicID) [][]*bhomev1.TopicID {
	const around = 8
	return wire.SplitFrames(topics, func(t *bhomev1.TopicID) int { return proto.Size(t) + around })
}

func topicNames(topics []*bhomev1.TopicID) map[uint32]string {
	names := make(map[uint32]string, len(topics))
	for _, t := range topics {
		names[t.GetId()] = t.GetName()
	}
	return names
}

func (s *session) routeTopics(c actor.Context, m *routeTopics) {
	if r := s.routes[routeEnd{m.msg.GetRoute(), m.role}]; r != nil && !s.detach {
		for _, t := range m.msg.GetAdded() {
			r.topics[t.GetId()] = t.GetName()
		}
		for _, id := range m.msg.GetRemoved() {
			delete(r.topics, id)
		}
		pieces := splitTopics(m.msg.GetAdded())
		for len(pieces) > 1 {
			s.sendTopics(m.role, &bhomev1.RouteTopics{Route: m.msg.GetRoute(), Added: pieces[0]})
			pieces = pieces[1:]
		}
		last := &bhomev1.RouteTopics{Route: m.msg.GetRoute(), Removed: m.msg.GetRemoved()}
		if len(pieces) > 0 {
			last.Added = pieces[0]
		}
		s.sendTopics(m.role, last)
	}
	s.acknowledge(c, m.ack, m.op)
}

// onRouteHalf passes on where the node's half is, with the descriptors that the other end needs.
func (s *session) onRouteHalf(c actor.Context, m *bhomev1.RouteHalf, bell *shmio.FD) {
	end := routeEnd{m.GetRoute(), m.GetRole()}
	r := s.route(end)
	if r == nil { // it was closed meanwhile
		closeFDs([]*shmio.FD{bell})
		return
	}
	if r.told || r.peer == nil { // else a node could flood its peer's socket
		s.fault("RouteHalf", fmt.Errorf("route %#x: the half has been told", m.GetRoute()))
		closeFDs([]*shmio.FD{bell})
		return
	}
	seg := s.control[m.GetHalf().GetSegment()]
	spec := routeSpec(r.open)
	size := spec.WriterSize()
	other := bhomev1.Role_ROLE_READER
	if m.GetRole() == bhomev1.Role_ROLE_READER {
		size, other = spec.ReaderSize(), bhomev1.Role_ROLE_WRITER
	}
	if m.GetRole() == bhomev1.Role_ROLE_READER && bell == nil {
		s.fault("RouteHalf", fmt.Errorf("route %#x: a reader without a bell", m.GetRoute()))
		return
	}
	if seg == nil {
		s.fault("RouteHalf", fmt.Errorf("segment %d is not known", m.GetHalf().GetSegment()))
		closeFDs([]*shmio.FD{bell})
		return
	}
	if _, err := seg.seg.Memory(m.GetHalf().GetOffset(), size); err != nil {
		s.fault("RouteHalf", err)
		closeFDs([]*shmio.FD{bell})
		return
	}
	r.half, r.told = m.GetHalf(), true
	msg := &peerHalf{route: m.GetRoute(), role: other, peerSession: s.id.Session, half: m.GetHalf(), bell: bell, resumed: s.adm.hello.GetResume() != 0}
	msg.segments = s.dupSegment(msg.segments, seg)
	if m.GetRole() == bhomev1.Role_ROLE_WRITER {
		msg.segments = s.dupData(msg.segments, r.open.GetAccess())
	}
	msg.pidfd = s.deathFD()
	c.Send(r.peer, msg)
	s.acquaint(end)
}

// deathFD is a pidfd of the node for one peer, an open file description of its own: the kernel lets at most 500 epoll
// instances that are watched themselves (each process has one) watch the same description.
func (s *session) deathFD() *shmio.FD {
	fd, err := shmio.PidfdOpen(int(s.id.PID))
	if err == nil {
		// The pid is the node's as long as the pidfd of its attaching shows it alive, asked after the opening.
		poll := []unix.PollFd{{Fd: int32(s.adm.pidfd.Int()), Events: unix.POLLIN}}
		if n, err := unix.Poll(poll, 0); n == 0 && err == nil {
			return fd
		}
		closeFDs([]*shmio.FD{fd})
	}
	if fd, err = s.adm.pidfd.Share(); err != nil {
		s.log.Error("a pidfd can't be passed on", "session", s.id.Session, "error", err)
		return nil
	}
	return fd
}

func (s *session) dupSegment(to []segmentFD, n *nodeSegment) []segmentFD {
	fd, err := n.fd.Share()
	if err != nil {
		s.log.Error("a segment can't be passed on", "session", s.id.Session, "error", err)
		return to
	}
	return append(to, segmentFD{n.ref, fd})
}

// dupData adds the data segments of an access group: nothing else of the node's is for who reads a route of that group.
func (s *session) dupData(to []segmentFD, group string) []segmentFD {
	for _, d := range s.data {
		if d.ref.GetAccess() == group {
			to = s.dupSegment(to, d)
		}
	}
	return to
}

// givenOf is what our node has got of a peer.
func (s *session) givenOf(peer uint64) *givenTo {
	g := s.given[peer]
	if g == nil {
		g = &givenTo{control: map[uint32]bool{}, data: map[segmentPlace]bool{}}
		s.given[peer] = g
	}
	return g
}

// lacking drops the segments that our node has already.
func (g *givenTo) lacking(segs []segmentFD) (lack []segmentFD) {
	for _, sf := range segs {
		var had bool
		if shmio.Kind(sf.ref.GetKind()) == shmio.KindData {
			p := segmentPlace{sf.ref.GetBase(), sf.ref.GetGeneration()}
			had, g.data[p] = g.data[p], true
		} else {
			had, g.control[sf.ref.GetNumber()] = g.control[sf.ref.GetNumber()], true
		}
		if had {
			closeFDs([]*shmio.FD{sf.fd})
			continue
		}
		lack = append(lack, sf)
	}
	return lack
}

// peerHalf tells the node of the other end, in as many frames as its descriptors take.
func (s *session) peerHalf(c actor.Context, m *peerHalf) {
	end := routeEnd{m.route, m.role}
	if s.detach || s.state == stateGone {
		m.close()
		return
	}
	r := s.route(end)
	if r == nil {
		// The other end was told first, and its node may have answered before we were told. Or it is closed already.
		if len(s.early) < maxEarly {
			s.early[end] = earlyHalf{m, monotonic()}
		} else {
			m.close()
		}
		return
	}
	g := s.givenOf(m.peerSession)
	if m.role == bhomev1.Role_ROLE_READER && m.bell == nil && !g.bell && m.resumed {
		// The writer believes that its bell has arrived; the center that had it is gone. The half goes ahead: its node may die.
		if r.peer != nil {
			c.Send(r.peer, &retell{route: m.route, role: bhomev1.Role_ROLE_WRITER, bell: true, asks: c.Self()})
		}
	}
	g.bell = g.bell || m.role == bhomev1.Role_ROLE_READER && (m.bell != nil || !m.resumed)
	segs := g.lacking(m.segments)
	if g.pidfd {
		closeFDs([]*shmio.FD{m.pidfd})
		m.pidfd = nil
	}
	// Data segments that don't fit go ahead; the frame with the half comes last.
	for len(segs) > shmio.MaxDescriptors-2 {
		var first []segmentFD
		var rest []segmentFD
		for _, sf := range segs {
			if shmio.Kind(sf.ref.GetKind()) == shmio.KindData && len(first) < shmio.MaxDescriptors {
				first = append(first, sf)
			} else {
				rest = append(rest, sf)
			}
		}
		s.sendSegments(m.peerSession, first, nil)
		segs = rest
	}
	msg := &bhomev1.RoutePeer{Route: m.route, Role: m.role, PeerSession: m.peerSession, Half: m.half, HasBell: m.bell != nil, HasPidfd: m.pidfd != nil}
	var fds []*shmio.FD
	for _, sf := range segs {
		msg.Segments = append(msg.Segments, sf.ref)
		fds = append(fds, sf.fd)
	}
	if m.bell != nil {
		fds = append(fds, m.bell)
	}
	if m.pidfd != nil {
		fds = append(fds, m.pidfd)
		g.pidfd = true
	}
	s.conn.send(outFrame{typ: bhomev1.MsgType_MSG_TYPE_ROUTE_PEER, body: msg, fds: fds})
	r.passed = true
	s.acquaint(end)
}

// maxEarly and earlyFor bound the halves of routes that a session hasn't been told of.
const (
	maxEarly = 4096
	earlyFor = 10 * time.Second
)

type earlyHalf struct {
	m  *peerHalf
	at int64
}

func (m *peerHalf) close() {
	for _, sf := range m.segments {
		closeFDs([]*shmio.FD{sf.fd})
	}
	closeFDs([]*shmio.FD{m.bell, m.pidfd})
}

// dropEarly forgets halves whose route was not opened after all; now 0: all of them.
func (s *session) dropEarly(now int64) {
	for end, e := range s.early {
		if now == 0 || now-e.at > int64(earlyFor) {
			delete(s.early, end)
			e.m.close()
		}
	}
}

func (s *session) peerSegments(m *peerSegments) {
	if s.detach || s.state == stateGone {
		for _, sf := range m.added {
			closeFDs([]*shmio.FD{sf.fd})
		}
		return
	}
	g := s.givenOf(m.peerSession)
	if m.all {
		for place := range g.data {
			if !m.kept[place] {
				m.dropped = append(m.dropped, &bhomev1.SegmentRef{Kind: uint32(shmio.KindData), Base: place.base, Generation: place.generation})
			}
		}
	}
	for _, ref := range m.dropped {
		delete(g.data, segmentPlace{ref.GetBase(), ref.GetGeneration()})
	}
	added := g.lacking(m.added)
	for len(added) > shmio.MaxDescriptors {
		s.sendSegments(m.peerSession, added[:shmio.MaxDescriptors], nil)
		added = added[shmio.MaxDescriptors:]
	}
	s.sendSegments(m.peerSession, added, m.dropped)
}

// adoptRoute goes on with a route that both ends have kept over the loss of the center. What that one did not come to
// pass on between them is passed on now.
func (s *session) adoptRoute(c actor.Context, m *adoptRoute) {
	end := routeEnd{m.open.GetRoute(), m.open.GetRole()}
	r := s.routes[end]
	if r == nil {
		return
	}
	r.peer = m.peer
	g := s.givenOf(m.open.GetPeerSession())
	if !r.joined && !m.lone {
		ask := &retell{route: m.open.GetRoute(), role: bhomev1.Role_ROLE_READER, asks: c.Self()}
		if end.role == bhomev1.Role_ROLE_READER {
			ask.role, ask.bell = bhomev1.Role_ROLE_WRITER, !g.bell
		}
		c.Send(m.peer, ask)
	}
	group := r.open.GetAccess()
	if end.role == bhomev1.Role_ROLE_WRITER && !g.synced[group] {
		msg := &peerSegments{peerSession: s.id.Session, added: s.dupData(nil, group), all: g.synced == nil}
		if msg.all { // whatever their group: others' routes to that peer may follow
			g.synced, msg.kept = map[string]bool{}, make(map[segmentPlace]bool, len(s.data))
			for place := range s.data {
				msg.kept[place] = true
			}
		}
		g.synced[group] = true
		c.Send(m.peer, msg)
	}
}

func (s *session) sendSegments(peer uint64, added []segmentFD, dropped []*bhomev1.SegmentRef) {
	if len(added)+len(dropped) == 0 {
		return
	}
	msg := &bhomev1.RouteSegments{PeerSession: peer, Dropped: dropped}
	var fds []*shmio.FD
	for _, sf := range added {
		msg.Added = append(msg.Added, sf.ref)
		fds = append(fds, sf.fd)
	}
	s.conn.send(outFrame{typ: bhomev1.MsgType_MSG_TYPE_ROUTE_SEGMENTS, body: msg, fds: fds})
}

// readers are the sessions of those who receive from this node what is of an access group, each once.
func (s *session) readers(group string) []*actor.PID {
	seen := map[string]bool{}
	var pids []*actor.PID
	for end, r := range s.routes {
		if end.role == bhomev1.Role_ROLE_WRITER && r.peer != nil && r.open.GetAccess() == group && !seen[r.peer.Id] {
			seen[r.peer.Id] = true
			pids = append(pids, r.peer)
		}
	}
	return pids
}

func routeSpec(o *bhomev1.RouteOpen) shmio.RouteSpec {
	return shmio.RouteSpec{ID: o.GetRoute(), Slots: o.GetSlots(), Depth: o.GetDepth(), Out: o.GetOut(), Policy: shmio.Policy(o.GetPolicy()), Quota: o.GetQuota()}
}
