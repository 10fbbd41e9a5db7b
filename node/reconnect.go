package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio"
	"github.com/bhome-bus/bhome/wire"
)

const (
	backoffFirst = 10 * time.Millisecond
	backoffMost  = 300 * time.Millisecond
)

// hurryAfterLoss is how long after the loss of a center lost wake-ups are looked for often.
const hurryAfterLoss = 10 * time.Second

// keepLink replaces the link whenever it is lost, until the node closes.
func (n *Node) keepLink() {
	for {
		lk := n.link.Load()
		if lk == nil { // Close came first
			return
		}
		select {
		case <-lk.dead:
		case <-n.ctx.Done():
			return
		}
		n.reactor.Hurry(hurryAfterLoss) // others wait for what this node has to tell the next center
		n.state.CompareAndSwap(int32(StateOnline), int32(StateReconnecting))
		n.link.Store(nil)
		n.linked.Fire()
		n.changed.Fire()
		lk.close() // drains what the old center still said
		n.mag.dropLink(lk)
		if n.ctx.Err() != nil || n.Err() != nil {
			return
		}
		if n.cfg.NoReconnect {
			n.fail(lk.cause, StateClosed)
			return
		}
		n.log.Info("the center is gone; established routes go on", "cause", lk.cause)
		if !n.reconnect() {
			return
		}
		n.log.Info("attached again", "session", n.Session())
		if lk := n.link.Load(); lk != nil {
			lk.askAboutTheDead()
		}
	}
}

// reconnect tries until there is a center; false if the node is over.
func (n *Node) reconnect() bool {
	for wait := backoffFirst; ; wait = min(2*wait, backoffMost) {
		ctx, cancel := context.WithTimeout(n.ctx, n.cfg.AttachTimeout)
		err := n.establish(ctx)
		cancel()
		switch {
		case err == nil:
			return true
		case n.ctx.Err() != nil || n.Err() != nil:
			return false
		case errors.Is(err, ErrIncompatibleABI), errors.Is(err, ErrNotAllowed) && !errors.Is(err, ErrNoDaemon), errors.Is(err, ErrNameInUse):
			n.fail(fmt.Errorf("attach again: %w", err), StateClosed)
			return false
		}
		n.log.Debug("attach again", "error", err)
		select {
		case <-time.After(wait):
		case <-n.ctx.Done():
			return false
		}
	}
}

// report tells a new center what this node holds: its segments, its grants and its routes. It is the sole truth.
func (lk *link) report() error {
	n := lk.n
	n.endClosedPeers()
	control, data := n.mem.segments()
	for _, s := range append(append([]*shmio.Segment(nil), control...), data[1:]...) {
		if err := lk.announce(s); err != nil {
			return fmt.Errorf("report segments: %w", err)
		}
	}
	var msg bhomev1.Report
	size := 0
	send := func() error {
		err := lk.sendSocket(bhomev1.MsgType_MSG_TYPE_REPORT, &msg)
		msg, size = bhomev1.Report{}, 0
		return err
	}
	add := func(item proto.Message, to func()) error {
		n := proto.Size(item) + frameItem
		if size > 0 && size+n > wire.FrameShare {
			if err := send(); err != nil {
				return err
			}
		}
		size += n
		to()
		return nil
	}
	type grant struct {
		g     wire.Grant
		class uint8
	}
	var grants []grant
	n.mag.report(func(g wire.Grant, class uint8) { grants = append(grants, grant{g, class}) })
	for _, g := range grants {
		m := &bhomev1.Grant{Id: uint64(g.g), Class: uint32(g.class)}
		if err := add(m, func() { msg.Grants = append(msg.Grants, m) }); err != nil {
			return fmt.Errorf("report grants: %w", err)
		}
	}
	for _, p := range n.knownPeers() {
		if err := add(p, func() { msg.Peers = append(msg.Peers, p) }); err != nil {
			return fmt.Errorf("report peers: %w", err)
		}
	}
	for _, r := range n.reportRoutes() {
		if err := add(r, func() { msg.Routes = append(msg.Routes, r) }); err != nil {
			return fmt.Errorf("report routes: %w", err)
		}
	}
	msg.End = true
	if err := send(); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}

// frameItem is what an item of a list in a frame takes besides its own bytes.
const frameItem = 8

// knownPeers is what we have got of others: the new center passes on what the old one did not come to.
func (n *Node) knownPeers() []*bhomev1.KnownPeer {
	n.mu.Lock()
	defer n.mu.Unlock()
	known := make([]*bhomev1.KnownPeer, 0, len(n.peers))
	for _, p := range n.peers {
		k := &bhomev1.KnownPeer{Session: p.session}
		p.mu.Lock()
		k.Bell, k.Pidfd = p.bell.Load() != nil, p.pidWatch != nil
		for number := range p.control {
			k.Segments = append(k.Segments, &bhomev1.SegmentRef{Kind: uint32(shmio.KindControl), Number: number})
		}
		p.mu.Unlock()
		for _, s := range p.space.Segments() {
			k.Segments = append(k.Segments, segmentRef(s))
		}
		known = append(known, k)
	}
	return known
}

// reportRoutes is our ends of all routes, those with many topics in pieces.
func (n *Node) reportRoutes() []*bhomev1.ReportedRoute {
	n.mu.Lock()
	defer n.mu.Unlock()
	var routes []*bhomev1.ReportedRoute
	report := func(open *bhomev1.RouteOpen, topics []*bhomev1.TopicID, r *bhomev1.ReportedRoute) {
		pieces := wire.SplitFrames(topics, func(t *bhomev1.TopicID) int { return proto.Size(t) + frameItem })
		last := len(pieces) - 1
		for i := 0; i < last; i++ {
			some := &bhomev1.RouteOpen{Route: open.GetRoute(), Role: open.GetRole(), Topics: pieces[i]}
			routes = append(routes, &bhomev1.ReportedRoute{Route: some, More: true})
		}
		r.Route = proto.Clone(open).(*bhomev1.RouteOpen)
		r.Route.Topics = nil
		if last >= 0 {
			r.Route.Topics = pieces[last]
		}
		routes = append(routes, r)
	}
	for _, o := range n.out {
		if o.over {
			continue
		}
		var topics []*bhomev1.TopicID
		for id, name := range o.topics {
			topics = append(topics, &bhomev1.TopicID{Id: id, Name: name})
		}
		report(o.open, topics, &bhomev1.ReportedRoute{Half: o.half.proto(), Joined: o.w.Joined()})
	}
	for _, r := range n.in {
		if r.done.Load() || r.ending.Load() {
			continue
		}
		var topics []*bhomev1.TopicID
		r.topicsMu.RLock()
		for id, t := range r.topics {
			topics = append(topics, &bhomev1.TopicID{Id: id, Name: t.name})
		}
		r.topicsMu.RUnlock()
		report(r.open, topics, &bhomev1.ReportedRoute{Half: r.half.proto(), Joined: r.r.PeerKnown()})
	}
	return routes
}

// restore tells a new center what this process publishes, subscribes to, serves and asks. Nothing the first time.
func (n *Node) restore(ctx context.Context, lk *link) error {
	n.mu.Lock()
	n.restored = lk
	var pubs []*topicPub
	for _, tp := range n.pubs {
		if tp.users > 0 && tp.told.known { // else tell is at it, and waits for us
			pubs = append(pubs, tp)
		}
	}
	var subs []*Subscription
	var services []*Service
	for _, s := range n.sinks {
		switch s := s.(type) {
		case *Subscription:
			if s.told.known || s.told.asked && !s.closed.Load() {
				subs = append(subs, s)
			}
		case *Service:
			if (s.told.known || s.told.asked) && !s.closed.Load() {
				services = append(services, s)
			}
		}
	}
	var clients []*serviceClient
	for _, c := range n.clients {
		clients = append(clients, c)
	}
	n.mu.Unlock()
	for _, tp := range pubs {
		err := tp.advertise(ctx, lk, tp.adv.Load().Advertise)
		if errors.Is(err, ErrNotAllowed) { // its rules are others: all else goes on
			tp.disallow(err)
		} else if err != nil {
			return fmt.Errorf("publish on %q again: %w", tp.topic, err)
		}
	}
	for _, s := range subs {
		err := n.retell(&s.told, s.subscribe(ctx, lk))
		if errors.Is(err, ErrNotAllowed) {
			s.disallow(err)
		} else if err != nil {
			return fmt.Errorf("subscribe to %q again: %w", s.Pattern(), err)
		}
	}
	for _, s := range services {
		err := n.retell(&s.told, s.register(ctx, lk))
		if errors.Is(err, ErrNotAllowed) {
			s.disallow(err)
		} else if err != nil {
			return fmt.Errorf("serve %q again: %w", s.topic, err)
		}
	}
	for _, c := range clients {
		if c.connected.Load() == nil {
			continue
		}
		var r bhomev1.ConnectServiceReply
		if err := lk.callInto(ctx, upBus, wire.SocketClient, bhomev1.MsgType_MSG_TYPE_CONNECT_SERVICE,
			&bhomev1.ConnectService{Topic: c.topic}, &r, c.topic); errors.Is(err, ErrNotAllowed) || errors.As(err, new(*LimitError)) {
			continue // the next request is told
		} else if err != nil {
			return fmt.Errorf("connect to service %q again: %w", c.topic, err)
		}
		if r.GetProviders() > 0 || len(*c.routes.Load()) > 0 { // else its provider may not be back yet: the next request asks once more
			c.connected.Store(lk)
		}
	}
	if !lk.resumed {
		return nil
	}
	f, err := n.frame(uint32(bhomev1.MsgType_MSG_TYPE_RESTORED), "", lk.session, 0, nil)
	if err == nil {
		err = lk.sendFrame(ctx, upBus, wire.SocketNode, f)
	}
	if err != nil {
		return fmt.Errorf("say that all is restored: %w", err)
	}
	return nil
}

// retell judges what a center answered to restore. What no center had answered before it may refuse: then tell asks it, and
// has the refusal for its caller. The routes that the one before had opened for it live on only if it is told here.
func (n *Node) retell(t *told, err error) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case t.known:
		return err
	case err == nil:
		t.known, t.restored = true, true
	case errors.Is(err, ErrDisconnected):
		return err
	}
	return nil
}
