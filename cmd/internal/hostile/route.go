package hostile

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

// listen reads the socket as an honest node does, so that there are routes to misuse. One that is deaf reads nothing.
func (r *rawNode) listen() {
	if r.deaf {
		return
	}
	for {
		b, fds, err := r.conn.ReceiveMessage(wire.MaxFrame)
		if err != nil {
			r.mu.Lock()
			r.over = true
			r.fire()
			r.mu.Unlock()
			return
		}
		if head, body, err := splitFrame(b); err == nil {
			fds = r.heard(bhomev1.MsgType(head.GetType()), body, fds)
			if head.GetSeq() != 0 {
				_ = r.send(bhomev1.MsgType_MSG_TYPE_SOCKET_ACK, &bhomev1.SocketAck{Seq: head.GetSeq()}) // the next read tells
			}
		}
		closeFDs(fds)
	}
}

// fire wakes who waits for a change; mu is held.
func (r *rawNode) fire() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// heard takes one frame; it returns the descriptors that it has no use for.
func (r *rawNode) heard(typ bhomev1.MsgType, body []byte, fds []*shmio.FD) []*shmio.FD {
	switch typ {
	case bhomev1.MsgType_MSG_TYPE_ROUTE_OPEN:
		var m bhomev1.RouteOpen
		if proto.Unmarshal(body, &m) == nil {
			r.openRoute(&m)
		}
	case bhomev1.MsgType_MSG_TYPE_ROUTE_PEER:
		var m bhomev1.RoutePeer
		if proto.Unmarshal(body, &m) == nil {
			return r.joinRoute(&m, fds)
		}
	case bhomev1.MsgType_MSG_TYPE_ROUTE_CLOSE:
		var m bhomev1.RouteClose
		if proto.Unmarshal(body, &m) == nil {
			r.mu.Lock()
			if ro := r.routes[m.GetRoute()]; ro != nil {
				ro.closed = true
				delete(r.routes, m.GetRoute())
			}
			r.fire()
			r.mu.Unlock()
		}
	}
	return fds
}

func (r *rawNode) peer(session uint64) *rawPeer {
	p := r.peers[session]
	if p == nil {
		p = &rawPeer{segments: map[uint32]*shmio.Segment{}}
		r.peers[session] = p
	}
	return p
}

func (r *rawNode) openRoute(m *bhomev1.RouteOpen) {
	spec := shmio.RouteSpec{ID: m.GetRoute(), Slots: m.GetSlots(), Depth: m.GetDepth(), Out: m.GetOut(), Policy: shmio.Policy(m.GetPolicy()), Quota: m.GetQuota()}
	ro := &rawRoute{open: m}
	size := spec.WriterSize()
	if m.GetRole() == bhomev1.Role_ROLE_READER {
		size = spec.ReaderSize()
	}
	r.mu.Lock()
	if r.next+size > r.seg0.Size() {
		r.next = shmio.FirstBlock + 64<<10 // over what older routes had
	}
	mem, at, err := r.cut(size)
	p := r.peer(m.GetPeerSession())
	needsBell := m.GetRole() == bhomev1.Role_ROLE_READER || !p.belled
	p.belled = p.belled || m.GetRole() == bhomev1.Role_ROLE_WRITER
	r.mu.Unlock()
	if err != nil {
		return
	}
	clear(mem)
	if ro.mem = mem; m.GetRole() == bhomev1.Role_ROLE_WRITER {
		ro.w, err = shmio.NewWriter(mem, spec)
	} else {
		ro.r, err = shmio.NewReader(mem, spec)
	}
	if err != nil {
		return
	}
	half := &bhomev1.RouteHalf{Route: m.GetRoute(), Role: m.GetRole(), Half: &bhomev1.Half{Offset: at}, HasBell: needsBell}
	var fds []*shmio.FD
	if needsBell {
		bell := r.bell
		if bell == nil {
			if bell, err = r.newBell(); err != nil {
				return
			}
		}
		fds = append(fds, bell)
	}
	r.mu.Lock()
	r.routes[m.GetRoute()] = ro
	r.mu.Unlock()
	_ = r.send(bhomev1.MsgType_MSG_TYPE_ROUTE_HALF, half, fds...) // the next read tells
}

func (r *rawNode) joinRoute(m *bhomev1.RoutePeer, fds []*shmio.FD) (rest []*shmio.FD) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ro, p := r.routes[m.GetRoute()], r.peer(m.GetPeerSession())
	take := func() *shmio.FD {
		if len(fds) == 0 {
			return nil
		}
		fd := fds[0]
		fds = fds[1:]
		return fd
	}
	for _, ref := range m.GetSegments() {
		fd := take()
		if fd == nil {
			return nil
		}
		s, err := shmio.OpenSegment(fd, shmio.Want{Kinds: []shmio.Kind{shmio.Kind(ref.GetKind())}, CloseFD: true})
		if err != nil {
			continue
		}
		r.closers = append(r.closers, s)
		if s.Kind() != shmio.KindData {
			p.segments[ref.GetNumber()] = s
		}
	}
	if m.GetHasBell() {
		if fd := take(); fd != nil {
			if b, err := shmio.OpenBell(fd); err == nil {
				r.closers = append(r.closers, b)
				if m.GetRole() == bhomev1.Role_ROLE_WRITER && ro != nil {
					ro.bell = b
				} else {
					p.bell = b
				}
			}
		}
	}
	seg := p.segments[m.GetHalf().GetSegment()]
	if ro == nil || seg == nil {
		return fds
	}
	var err error
	if ro.w != nil {
		if ro.theirs, err = seg.Memory(m.GetHalf().GetOffset(), ro.w.Spec().ReaderSize()); err == nil && ro.bell != nil {
			err = ro.w.Join(ro.theirs, ro.bell)
		}
	} else {
		ro.bell = p.bell
		if ro.theirs, err = seg.Memory(m.GetHalf().GetOffset(), ro.r.Spec().WriterSize()); err == nil && ro.bell != nil {
			err = ro.r.Join(ro.theirs, ro.bell)
		}
	}
	ro.joined = err == nil && ro.bell != nil
	r.fire()
	return fds
}

// route waits for a route in that role, joined.
func (r *rawNode) route(ctx context.Context, role bhomev1.Role) (*rawRoute, error) {
	timeout := time.After(answerWithin)
	for {
		r.mu.Lock()
		changed := r.changed
		for _, ro := range r.routes {
			if ro.open.GetRole() == role && ro.joined {
				r.mu.Unlock()
				return ro, nil
			}
		}
		over := r.over
		r.mu.Unlock()
		if over {
			return nil, errors.New("the socket is over")
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-timeout:
			return nil, errors.New("no route")
		}
	}
}

func (r *rawNode) gone(ro *rawRoute) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return ro.closed || r.over
}

// publishes makes us a publisher of a topic that the victim subscribes to, and waits for the route.
func (r *rawNode) publishes(ctx context.Context, topic string) (*rawRoute, error) {
	var a bhomev1.AdvertiseReply
	if err := r.call(ctx, 1, bhomev1.MsgType_MSG_TYPE_ADVERTISE, &bhomev1.Advertise{Topic: topic}, &a); err != nil {
		return nil, err
	}
	if a.GetErrmsg() != nil {
		return nil, fmt.Errorf("refused: %v", a.GetErrmsg())
	}
	return r.route(ctx, bhomev1.Role_ROLE_WRITER)
}

func (r *rawNode) unpublishes(ctx context.Context, topic string) error {
	return r.call(ctx, 1, bhomev1.MsgType_MSG_TYPE_UNADVERTISE, &bhomev1.Unadvertise{Topic: topic}, nil)
}

// subscribes makes us a subscriber of the victim's, and waits for the route.
func (r *rawNode) subscribes(ctx context.Context, number uint64, topic string) (*rawRoute, error) {
	var c bhomev1.CommonReply
	err := r.call(ctx, 1, bhomev1.MsgType_MSG_TYPE_SUBSCRIBE, &bhomev1.Subscribe{Subscription: number, Pattern: topic, Depth: 8, Hold: 8}, &c)
	if err != nil {
		return nil, err
	}
	if c.GetErrmsg() != nil {
		return nil, fmt.Errorf("refused: %v", c.GetErrmsg())
	}
	return r.route(ctx, bhomev1.Role_ROLE_READER)
}

func (r *rawNode) unsubscribes(ctx context.Context, number uint64) error {
	return r.call(ctx, 1, bhomev1.MsgType_MSG_TYPE_UNSUBSCRIBE, &bhomev1.Unsubscribe{Subscription: number}, nil)
}
