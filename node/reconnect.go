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
	backoffMost  = time.Second
)

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
		case errors.Is(err, ErrIncompatibleABI), errors.Is(err, ErrNotAllowed), errors.Is(err, ErrNameInUse):
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

// reportBatch is how many grants go into one report frame.
const reportBatch = 2000

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
	flush := func(force bool) error {
		if !force && len(msg.Grants) < reportBatch && len(msg.Routes) < 64 && len(msg.Peers) < 64 {
			return nil
		}
		err := lk.sendSocket(bhomev1.MsgType_MSG_TYPE_REPORT, &msg)
		msg = bhomev1.Report{}
		return err
	}
	type grant struct {
		g     wire.Grant
		class uint8
	}
	var grants []grant
	n.mag.report(func(g wire.Grant, class uint8) { grants = append(grants, grant{g, class}) })
	for _, g := range grants {
		msg.Grants = append(msg.Grants, &bhomev1.Grant{Id: uint64(g.g), Class: uint32(g.class)})
		if err := flush(false); err != nil {
			return fmt.Errorf("report grants: %w", err)
		}
	}
	for _, p := range n.knownPeers() {
		msg.Peers = append(msg.Peers, p)
		if err := flush(false); err != nil {
			return fmt.Errorf("report peers: %w", err)
		}
	}
	for _, r := range n.reportRoutes() {
		msg.Routes = append(msg.Routes, r)
		if err := flush(false); err != nil {
			return fmt.Errorf("report routes: %w", err)
		}
	}
	msg.End = true
	if err := flush(true); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}

// knownPeers is what we have got of others: the new center passes on what the old one did not come to.
func (n *Node) knownPeers() []*bhomev1.KnownPeer {
	n.mu.Lock()
	defer n.mu.Unlock()
	known := make([]*bhomev1.KnownPeer, 0, len(n.peers))
	for _, p := range n.peers {
		k := &bhomev1.KnownPeer{Session: p.session}
		p.mu.Lock()
		k.Bell, k.Pidfd = p.bell != nil, p.pidWatch != nil
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

func (n *Node) reportRoutes() []*bhomev1.ReportedRoute {
	n.mu.Lock()
	defer n.mu.Unlock()
	var routes []*bhomev1.ReportedRoute
	for _, o := range n.out {
		if o.over {
			continue
		}
		m := proto.Clone(o.open).(*bhomev1.RouteOpen)
		m.Topics = nil
		for id, name := range o.topics {
			m.Topics = append(m.Topics, &bhomev1.TopicID{Id: id, Name: name})
		}
		routes = append(routes, &bhomev1.ReportedRoute{Route: m, Half: o.half.proto(), Joined: o.w.Joined()})
	}
	for _, r := range n.in {
		if r.done.Load() || r.ending.Load() {
			continue
		}
		m := proto.Clone(r.open).(*bhomev1.RouteOpen)
		m.Topics = nil
		for id, name := range *r.topics.Load() {
			m.Topics = append(m.Topics, &bhomev1.TopicID{Id: id, Name: name})
		}
		routes = append(routes, &bhomev1.ReportedRoute{Route: m, Half: r.half.proto(), Joined: r.r.PeerKnown()})
	}
	return routes
}

// restore tells a new center what this process publishes, subscribes to, serves and asks. Nothing the first time.
func (n *Node) restore(ctx context.Context, lk *link) error {
	n.mu.Lock()
	n.restored = lk
	var pubs []*topicPub
	for _, tp := range n.pubs {
		if tp.users > 0 && tp.known { // else tell is at it, and waits for us
			pubs = append(pubs, tp)
		}
	}
	var subs []*Subscription
	var services []*Service
	for _, s := range n.sinks {
		switch s := s.(type) {
		case *Subscription:
			if s.known {
				subs = append(subs, s)
			}
		case *Service:
			if s.known && !s.closed.Load() {
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
		if err := tp.advertise(ctx, lk, tp.adv.Load().Advertise); err != nil {
			return fmt.Errorf("publish on %q again: %w", tp.topic, err)
		}
	}
	for _, s := range subs {
		if err := s.subscribe(ctx, lk); err != nil {
			return fmt.Errorf("subscribe to %q again: %w", s.Pattern(), err)
		}
	}
	for _, s := range services {
		if err := s.register(ctx, lk); err != nil {
			return fmt.Errorf("serve %q again: %w", s.topic, err)
		}
	}
	for _, c := range clients {
		if c.connected.Load() == nil {
			continue
		}
		var r bhomev1.ConnectServiceReply
		if err := lk.callInto(ctx, upBus, wire.SocketClient, bhomev1.MsgType_MSG_TYPE_CONNECT_SERVICE,
			&bhomev1.ConnectService{Topic: c.topic}, &r, c.topic); err != nil {
			return fmt.Errorf("connect to service %q again: %w", c.topic, err)
		}
		c.connected.Store(lk)
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
