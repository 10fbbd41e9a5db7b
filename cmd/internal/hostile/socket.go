package hostile

import (
	"context"
	"slices"
	"time"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio"
	"github.com/bhome-bus/bhome/wire"
)

func socketAttacks() []Attack {
	return []Attack{
		{"socket", "sends random and bent frames on the socket, with descriptors", true, fuzzSocket},
		{"reports", "says that it was here before, and reports blocks, peers and routes of its invention", true, lyingReports},
		{"flood-socket", "floods its socket with frames", true, floodSocket},
		{"never-drain", "makes the center tell it of routes, and reads nothing", false, neverDrain},
		{"descriptors", "passes what is no segment by the hundred: lingering sockets, pipes, huge and sparse memfds, devices", true, badDescriptors},
		{"segments", "announces as many segments as it may, and more", true, manySegments},
		{"connections", "opens a thousand connections, says nothing or half of it, and opens them again", false, manyConnections},
	}
}

func fuzzSocket(ctx context.Context, a *attacker) error {
	return a.again(ctx, func(ctx context.Context, r *rawNode) error {
		a.ready()
		for ctx.Err() == nil && !r.isOver() {
			f := a.someFrame(r, 64+uint32(a.rand.IntN(20)))
			var fds []*shmio.FD
			if a.rand.IntN(4) == 0 {
				fds = append(fds, r.data.FD())
			}
			if err := r.conn.Send(f, fds...); err != nil {
				return err
			}
			a.count++
		}
		return nil
	})
}

func lyingReports(ctx context.Context, a *attacker) error {
	for ctx.Err() == nil {
		if err := a.report(ctx); err != nil {
			pause(ctx, time.Millisecond)
		}
		a.count++
		a.ready()
	}
	return nil
}

func (a *attacker) report(ctx context.Context) error {
	r, h, err := dialRaw(ctx, a.Socket)
	if err != nil {
		return err
	}
	defer r.close()
	h.Resume, h.Base, h.Generation, h.NextSegment = []uint64{a.rand.Uint64(), 10 * a.rand.Uint64N(1<<60/10), 1}[a.rand.IntN(3)], a.rand.Uint32()>>9<<8, uint32(a.rand.IntN(9000)), a.rand.Uint32()
	if a.rand.IntN(2) == 0 {
		h.Base, h.Generation = 256, 0
	}
	if err := r.hello(h); err != nil {
		return err
	}
	rep := &bhomev1.Report{}
	for range a.rand.IntN(50) {
		rep.Grants = append(rep.Grants, &bhomev1.Grant{Id: a.rand.Uint64() >> a.rand.IntN(64), Class: uint32(a.rand.IntN(300))})
	}
	for range a.rand.IntN(20) {
		rep.Peers = append(rep.Peers, &bhomev1.KnownPeer{Session: a.rand.Uint64(), Bell: true, Pidfd: true,
			Segments: []*bhomev1.SegmentRef{{Number: a.rand.Uint32(), Kind: uint32(a.rand.IntN(6)), Base: a.rand.Uint32()}}})
	}
	for range a.rand.IntN(20) {
		slots := uint32(1) << a.rand.IntN(32)
		rep.Routes = append(rep.Routes, &bhomev1.ReportedRoute{Joined: a.rand.IntN(2) == 0, More: a.rand.IntN(4) == 0,
			Half: &bhomev1.Half{Segment: uint32(a.rand.IntN(3)), Offset: a.oddNumber(4096)},
			Route: &bhomev1.RouteOpen{Route: a.rand.Uint64(), Role: bhomev1.Role(a.rand.IntN(4)), Kind: bhomev1.RouteKind(a.rand.IntN(5)), PeerSession: a.rand.Uint64(),
				Slots: slots, Depth: slots, Out: a.rand.Uint32(), Subscription: a.rand.Uint64N(4), Policy: bhomev1.Policy(a.rand.IntN(4)),
				Topics: []*bhomev1.TopicID{{Id: a.rand.Uint32(), Name: goodTopic}, {Id: 1, Name: string(a.noise(10))}}}})
	}
	if err := r.send(bhomev1.MsgType_MSG_TYPE_REPORT, rep); err != nil {
		return err
	}
	if err := r.register(ctx, true); err != nil {
		return err
	}
	return r.send(bhomev1.MsgType_MSG_TYPE_REPORT, rep) // too late, and again
}

func floodSocket(ctx context.Context, a *attacker) error {
	return a.again(ctx, func(ctx context.Context, r *rawNode) error {
		a.ready()
		for ctx.Err() == nil && !r.isOver() {
			err := r.send(bhomev1.MsgType_MSG_TYPE_SEGMENT_DROP, &bhomev1.SegmentDrop{Number: a.rand.Uint32(), Base: a.rand.Uint32()})
			if a.rand.IntN(2) == 0 {
				err = r.send(bhomev1.MsgType_MSG_TYPE_SOCKET_ACK, &bhomev1.SocketAck{Seq: a.rand.Uint64()})
			}
			if err != nil {
				return err
			}
			a.count++
		}
		return nil
	})
}

// neverDrain asks for routes that come and go, which the center tells it of on a socket that nobody reads.
func neverDrain(ctx context.Context, a *attacker) error {
	return a.again(ctx, func(ctx context.Context, r *rawNode) error {
		a.ready()
		for i := uint64(1); ctx.Err() == nil && !r.isOver(); i++ {
			for _, q := range []struct {
				typ  bhomev1.MsgType
				body *bhomev1.Subscribe
			}{{bhomev1.MsgType_MSG_TYPE_SUBSCRIBE, &bhomev1.Subscribe{Subscription: i, Pattern: goodTopic, Depth: 1}}, {bhomev1.MsgType_MSG_TYPE_UNSUBSCRIBE, &bhomev1.Subscribe{Subscription: i}}} {
				f, err := frame(&bhomev1.Head{Type: uint32(q.typ), MsgId: "n"}, q.body)
				if err != nil {
					return err
				}
				for !r.room(1, 40) && ctx.Err() == nil && !r.isOver() {
					pause(ctx, 50*time.Microsecond)
				}
				r.pushFrame(1, f)
			}
			a.count++
		}
		return nil
	}, deaf)
}

func badDescriptors(ctx context.Context, a *attacker) error {
	return a.again(ctx, func(ctx context.Context, r *rawNode) error {
		a.ready()
		for ctx.Err() == nil && !r.isOver() {
			fds := badFDs(a)
			for len(fds) > 0 && ctx.Err() == nil {
				n := min(len(fds), 1+a.rand.IntN(shmio.MaxDescriptors))
				err := a.passOnce(ctx, r, fds[:n])
				closeFDs(fds[:n])
				fds = fds[n:]
				if err != nil {
					break
				}
			}
			closeFDs(fds)
		}
		return nil
	})
}

// passOnce passes descriptors in one frame: as a Hello's on a new connection, or as a segment's.
func (a *attacker) passOnce(ctx context.Context, r *rawNode, fds []*shmio.FD) error {
	if a.rand.IntN(4) == 0 {
		return r.send(bhomev1.MsgType_MSG_TYPE_SEGMENT_ADD, &bhomev1.SegmentAdd{Segment: &bhomev1.SegmentRef{Number: 2, Kind: uint32(shmio.KindControl)}, Size: 1 << 20}, fds[0])
	}
	n, h, err := dialRaw(ctx, a.Socket)
	if err != nil {
		return err
	}
	defer n.close()
	mixed := []*shmio.FD{n.seg0.FD(), n.data.FD()}
	bell, err := n.newBell()
	if err != nil {
		return err
	}
	mixed = append(mixed, bell)
	if a.rand.IntN(2) == 0 {
		mixed[a.rand.IntN(3)] = fds[0] // one is wrong
	} else {
		mixed = fds
	}
	return n.send(bhomev1.MsgType_MSG_TYPE_HELLO, h, mixed...)
}

// manySegments are all in order, but ever more of them.
func manySegments(ctx context.Context, a *attacker) error {
	return a.again(ctx, func(ctx context.Context, r *rawNode) error {
		a.ready()
		for i := uint32(2); ctx.Err() == nil && !r.isOver(); i++ {
			s, err := shmio.CreateSegment("hostile-more", shmio.SegmentSpec{Kind: shmio.KindControl, Number: i, Size: 2 * shmio.FirstBlock, Session: r.session})
			if err != nil {
				return err
			}
			s.Publish(shmio.StateAttached)
			err = r.send(bhomev1.MsgType_MSG_TYPE_SEGMENT_ADD, &bhomev1.SegmentAdd{Segment: &bhomev1.SegmentRef{Number: i, Kind: uint32(shmio.KindControl)}, Size: s.Size()}, s.FD())
			_ = s.Close() // the center has its own
			if err != nil {
				return err
			}
			a.count++
		}
		return nil
	})
}

func manyConnections(ctx context.Context, a *attacker) error {
	const many = 1000
	var conns []*shmio.Conn
	drop := func() {
		for _, c := range conns {
			_ = c.Close() // it says nothing either way
		}
		conns = nil
	}
	defer drop()
	for ctx.Err() == nil {
		for len(conns) < many && ctx.Err() == nil {
			c, err := shmio.Dial(ctx, a.Socket)
			if err != nil {
				return err
			}
			conns = append(conns, c)
			if err := c.SetSendDeadline(time.Now().Add(time.Second)); err != nil {
				return err
			}
			if a.count++; a.count%2 == 0 {
				_ = c.Send(slices.Concat([]byte{9, 0, 0, 0}, a.noise(a.rand.IntN(wire.MaxFrame/64)))) // half a Hello: it is refused
			}
		}
		a.ready()
		pause(ctx, 100*time.Millisecond)
		drop()
	}
	return nil
}
