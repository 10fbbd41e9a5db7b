package actors

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/bhome-bus/bhome/node"
	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio"
	"github.com/bhome-bus/bhome/wire"
)

// publishRaw makes r a publisher of a topic to which a node has subscribed, and takes its end of the route.
func (r *rawNode) publishRaw(topic string) *shmio.Writer {
	r.t.Helper()
	r.sent++
	id := fmt.Sprint("p", r.sent)
	r.frame(1, &bhomev1.Head{Type: uint32(bhomev1.MsgType_MSG_TYPE_ADVERTISE), MsgId: id}, &bhomev1.Advertise{Topic: topic})
	r.reply(0, id, bhomev1.MsgType_MSG_TYPE_ADVERTISE_REPLY, &bhomev1.AdvertiseReply{})
	route := &bhomev1.RouteOpen{}
	r.expect(bhomev1.MsgType_MSG_TYPE_ROUTE_OPEN, route)
	spec := routeSpec(route)
	seg := must(shmio.CreateSegment("raw-route", shmio.SegmentSpec{Kind: shmio.KindControl, Number: uint32(100 + r.sent), Size: spec.WriterSize() + 2*shmio.FirstBlock, Session: r.session}))
	r.toClose = append(r.toClose, func() { closeSegment(seg) })
	seg.Publish(shmio.StateAttached)
	r.send(bhomev1.MsgType_MSG_TYPE_SEGMENT_ADD, &bhomev1.SegmentAdd{Segment: &bhomev1.SegmentRef{Number: seg.Number(), Kind: uint32(shmio.KindControl)}, Size: seg.Size()}, seg.FD())
	w := must(shmio.NewWriter(must(seg.Memory(shmio.FirstBlock, spec.WriterSize())), spec))
	r.send(bhomev1.MsgType_MSG_TYPE_ROUTE_HALF, &bhomev1.RouteHalf{Route: spec.ID, Role: bhomev1.Role_ROLE_WRITER, HasBell: true,
		Half: &bhomev1.Half{Segment: seg.Number(), Offset: shmio.FirstBlock}}, r.bell())
	for {
		head, body, fds, err := r.receive()
		if err != nil {
			r.t.Fatal(err)
		}
		if head.GetType() != uint32(bhomev1.MsgType_MSG_TYPE_ROUTE_PEER) {
			continue
		}
		var m bhomev1.RoutePeer
		if err := proto.Unmarshal(body, &m); err != nil {
			r.t.Fatal(err)
		}
		theirs := map[uint32]*shmio.Segment{}
		for i, ref := range m.GetSegments() {
			if ref.GetNumber() != m.GetHalf().GetSegment() {
				continue
			}
			s := must(shmio.OpenSegment(must(fds[i].Dup()), shmio.Want{Kinds: []shmio.Kind{shmio.Kind(ref.GetKind())}, CloseFD: true}))
			r.toClose = append(r.toClose, func() { closeSegment(s) })
			theirs[ref.GetNumber()] = s
		}
		bell := must(shmio.OpenBell(must(fds[len(m.GetSegments())].Dup())))
		r.toClose = append(r.toClose, func() { _ = bell.Close() })
		if err := w.Join(must(theirs[m.GetHalf().GetSegment()].Memory(m.GetHalf().GetOffset(), spec.ReaderSize())), bell); err != nil {
			r.t.Fatal(err)
		}
		return w
	}
}

// A block that is none ends the route that it came on, and names its sender; what others send comes.
func TestBlockThatIsNone(t *testing.T) {
	b := newTestBus(t)
	s, err := b.attach("reader").Subscribe(b.ctx, "a.>", node.Depth(64))
	if err != nil {
		t.Fatal(err)
	}
	pub, err := b.attach("good").Publisher(b.ctx, "a.good")
	if err != nil {
		t.Fatal(err)
	}
	bad := b.onlineRaw("bad")
	w := bad.publishRaw("a.bad")
	if o := w.Push(must(wire.Message(bad.data.Base()+512, uint16(bad.data.Generation()))), 100, nil); o != shmio.Sent {
		t.Fatal(o)
	}
	w.Commit()
	got := make(chan error, 1)
	go func() {
		m, err := s.Receive(b.ctx)
		if err == nil && m.Topic() != "a.good" {
			err = fmt.Errorf("a message of %q", m.Topic())
		}
		_ = m.Release()
		got <- err
	}()
	b.log.wait(t, "a node closes a route", "name=reader", fmt.Sprintf("uid=%d ", os.Getuid()), "peer=bad", "peer_pid=", "peer_uid=", "corrupt route")
	if err := pub.Publish(b.ctx, []byte("good")); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Fatal(err)
	}
}

// A subscriber that writes rubbish into its half is found out at the next message, and named.
func TestRubbishInAReaderHalf(t *testing.T) {
	b := newTestBus(t)
	pub, err := b.attach("publisher").Publisher(b.ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	bad := b.onlineRaw("bad")
	mem := bad.subscribeRaw("a")
	const headAt = 128
	binary.NativeEndian.PutUint64(mem[headAt:], 1<<40)
	eventually(t, func() string {
		if err := pub.Publish(b.ctx, []byte("x")); err != nil {
			t.Fatal(err)
		}
		if b.log.count("a node closes a route", "name=publisher", fmt.Sprintf("uid=%d ", os.Getuid()), "peer=bad", "peer_pid=", "peer_uid=", "corrupt route") == 0 {
			return "the route goes on"
		}
		return ""
	})
	bad.alive() // as far as the center is concerned
}

// subscribeRaw makes r a subscriber of a publishing node, and returns its half of the route.
func (r *rawNode) subscribeRaw(topic string) (half []byte) {
	r.t.Helper()
	if err := r.common(1, bhomev1.MsgType_MSG_TYPE_SUBSCRIBE, &bhomev1.Subscribe{Subscription: 1, Pattern: topic, Depth: 4, Hold: 4}); err != nil {
		r.t.Fatal(err)
	}
	var o bhomev1.RouteOpen
	r.expect(bhomev1.MsgType_MSG_TYPE_ROUTE_OPEN, &o)
	spec := routeSpec(&o)
	const at = 128 << 10 // behind the link's halves
	half = must(r.seg0.Memory(at, spec.ReaderSize()))
	_ = must(shmio.NewReader(half, spec))
	r.send(bhomev1.MsgType_MSG_TYPE_ROUTE_HALF, &bhomev1.RouteHalf{Route: spec.ID, Role: bhomev1.Role_ROLE_READER, HasBell: true, Half: &bhomev1.Half{Offset: at}}, r.bell())
	return half
}

// One who rings the center's bell without end loses its link, and is named.
func TestRingingTheCenterForNothing(t *testing.T) {
	b := newTestBus(t)
	good, bad := b.onlineRaw("good"), b.onlineRaw("bad")
	for b.log.count("a node's link is cut", "name=bad", "rung our bell") == 0 {
		bad.ringer.Ring(0)
		good.alive()
	}
	if _, _, _, err := bad.receive(); err == nil {
		t.Error("its socket is open")
	}
	good.alive()
}

// A process whose links are cut again and again is not let in for ever, and what that costs the log is bounded.
func TestLostLinksOfAProcessAreBounded(t *testing.T) {
	b := newTestBus(t)
	for i := range maxAdrift {
		r := b.onlineRaw(fmt.Sprint("bad", i))
		r.setTail(0, 1<<40)
		b.log.wait(t, "detached", fmt.Sprintf("name=bad%d ", i))
	}
	b.counter("sessions") // the center has heard of the last
	const more = 3 * refusalsPerUID
	for i := range more {
		r, h := rawHello(t, "one more")
		r.dial(b.socket)
		r.send(bhomev1.MsgType_MSG_TYPE_HELLO, h, r.seg0.FD(), r.data.FD(), r.bell())
		if e := r.refusal(); e.GetLimit() != "detached_per_process" || e.GetMax() != maxAdrift {
			t.Fatalf("number %d: %v", i, e)
		}
		r.close()
	}
	if n := b.log.count("a process is refused", "limit=detached_per_process", fmt.Sprintf("pid=%d ", pidOf(t))); n == 0 || n == more {
		t.Errorf("%d of %d refusals are in the log", n, more)
	}
	b.log.wait(t, "more was refused than is logged")
}

// Segments are bounded for the whole bus, as what each takes of the center's mappings is: a flood of them ends the link of
// whoever makes them, and those who are here go on.
func TestSegmentsOfTheBusAreBounded(t *testing.T) {
	b := newTestBus(t, func(c *Config) { c.hooks.mostSegments = 20 })
	good, bad := b.onlineRaw("good"), b.onlineRaw("bad")
	for i := uint32(2); i < 40; i++ {
		s := must(shmio.CreateSegment("more", shmio.SegmentSpec{Kind: shmio.KindControl, Number: i, Size: 1 << 16, Session: bad.session}))
		bad.toClose = append(bad.toClose, func() { closeSegment(s) })
		s.Publish(shmio.StateAttached)
		f := must(encodeFrame(&bhomev1.Head{Type: uint32(bhomev1.MsgType_MSG_TYPE_SEGMENT_ADD)}, &bhomev1.SegmentAdd{
			Segment: &bhomev1.SegmentRef{Number: i, Kind: uint32(shmio.KindControl)}, Size: s.Size()}))
		if bad.conn.Send(f, s.FD()) != nil {
			break // it is cut
		}
	}
	b.log.wait(t, "a node's link is cut", "name=bad", "mappings", fmt.Sprintf("pid=%d ", pidOf(t)))
	good.alive()
	good.alloc(7, 100)
	_, err := node.Attach(b.ctx, node.Config{Name: "late", Socket: b.socket})
	var le *node.LimitError
	if !errors.As(err, &le) || le.Limit != "mappings" || le.Max != 20 {
		t.Errorf("%v, want the limit of mappings", err)
	}
	// The cut one's process lives, so what it has stays; when it has left there is room again.
	b.system.Root.Send(b.sessionPID(bad.session), &processDied{})
	eventually(t, func() string {
		n, err := node.Attach(b.ctx, node.Config{Name: "late", Socket: b.socket})
		if err != nil {
			return err.Error()
		}
		_ = n.Close(b.ctx)
		return ""
	})
}
