package actors

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"google.golang.org/protobuf/proto"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio"
	"github.com/bhome-bus/bhome/wire"
)

// expect takes the next frame from the socket, which must be of the type.
func (r *rawNode) expect(typ bhomev1.MsgType, into proto.Message) {
	r.t.Helper()
	head, body, _, err := r.receive()
	if err != nil || bhomev1.MsgType(head.GetType()) != typ {
		r.t.Fatalf("%v came (%v), want %v", bhomev1.MsgType(head.GetType()), err, typ)
	}
	if err := proto.Unmarshal(body, into); err != nil {
		r.t.Fatal(err)
	}
}

// joined is a route from w to r, of which both have been told.
func (b *testBus) joined(w, r *rawNode) (route uint64) {
	b.t.Helper()
	if err := r.common(1, bhomev1.MsgType_MSG_TYPE_SUBSCRIBE, sub(1, "t")); err != nil {
		b.t.Fatal(err)
	}
	w.frame(1, &bhomev1.Head{Type: uint32(bhomev1.MsgType_MSG_TYPE_ADVERTISE), MsgId: "adv"}, &bhomev1.Advertise{Topic: "t"})
	var adv bhomev1.AdvertiseReply
	w.reply(0, "adv", bhomev1.MsgType_MSG_TYPE_ADVERTISE_REPLY, &adv)
	var wo, ro bhomev1.RouteOpen
	w.expect(bhomev1.MsgType_MSG_TYPE_ROUTE_OPEN, &wo)
	r.expect(bhomev1.MsgType_MSG_TYPE_ROUTE_OPEN, &ro)
	if adv.GetErrmsg() != nil || wo.GetRoute() != ro.GetRoute() || wo.GetRole() != bhomev1.Role_ROLE_WRITER || ro.GetRole() != bhomev1.Role_ROLE_READER {
		b.t.Fatal(&adv, &wo, &ro)
	}
	return wo.GetRoute()
}

// A node that tells its half of a route again and again reaches its peer once: it can't fill the peer's socket.
func TestRouteHalfIsPassedOnOnce(t *testing.T) {
	b := newTestBus(t)
	good, bad := b.onlineRaw("good"), b.onlineRaw("bad")
	route := b.joined(bad, good)
	const often = 1000
	for range often {
		bad.send(bhomev1.MsgType_MSG_TYPE_ROUTE_HALF, &bhomev1.RouteHalf{Route: route, Role: bhomev1.Role_ROLE_WRITER, Half: &bhomev1.Half{Offset: shmio.FirstBlock}})
	}
	eventually(t, func() string {
		if n := b.faults("bad"); n != often-1 {
			return fmt.Sprintf("%d faults, want %d", n, often-1)
		}
		return ""
	})
	var peer bhomev1.RoutePeer
	good.expect(bhomev1.MsgType_MSG_TYPE_ROUTE_PEER, &peer)
	if err := good.common(1, bhomev1.MsgType_MSG_TYPE_UNSUBSCRIBE, &bhomev1.Unsubscribe{Subscription: 1}); err != nil {
		t.Fatal(err)
	}
	good.expect(bhomev1.MsgType_MSG_TYPE_ROUTE_CLOSE, &bhomev1.RouteClose{}) // nothing in between
}

// A node that lets go of its first, empty segment, or of all, must not take the allocator down.
func TestDropOfTheFirstSegment(t *testing.T) {
	b := newTestBus(t, func(c *Config) { c.hooks.ownTicks = true })
	good, bad := b.onlineRaw("good"), b.onlineRaw("bad")
	sweep := func() {
		b.system.Root.Send(b.role("msgs"), &tick{now: monotonic(), alive: func(uint64) bool { return true }})
	}
	msgs := askCenter[*MsgsReply](b, &QueryMsgs{})
	for _, m := range msgs.Msgs {
		if m.GetOwner() == "bad" {
			bad.free(1, uint32(m.GetId())) // the block of NodeInitReply was its only one
		}
	}
	eventually(t, func() string { // the session tells of it at the end of a batch: an answer may come before
		for _, m := range askCenter[*MsgsReply](b, &QueryMsgs{}).Msgs {
			if m.GetOwner() == "bad" {
				return fmt.Sprintf("block %d is still its", m.GetId())
			}
		}
		return ""
	})
	sweep() // gives the run back to the segment
	bad.send(bhomev1.MsgType_MSG_TYPE_SEGMENT_DROP, &bhomev1.SegmentDrop{Number: 1, Base: bad.welcome.GetBase(), Generation: bad.welcome.GetGeneration()})
	eventually(t, func() string {
		for _, p := range askCenter[*ProcsReply](b, &QueryProcs{}).Procs {
			if p.GetName() == "bad" && p.GetSegmentBytes() != bad.seg0.Size() {
				return fmt.Sprintf("%d bytes of segments are counted", p.GetSegmentBytes())
			}
		}
		return ""
	})
	sweep()
	good.alloc(7, 100)
	if n := len(askCenter[*MsgsReply](b, &QueryMsgs{}).Msgs); n != 2 {
		t.Errorf("%d blocks are listed, want 2", n)
	}
	if n := b.log.count("failed"); n != 0 {
		t.Errorf("something failed:\n%s", b.log)
	}
}

// A segment that a node has let go is nobody's memory any more: the center keeps no mapping of it.
func TestDroppedSegmentIsUnmapped(t *testing.T) {
	b := newTestBus(t)
	r := b.onlineRaw("raw")
	r.push(0, must(wire.AllocRequest{ID: 1, Proc: r.index, Class: uint8(wire.CalcAllocIndex(1 << 20))}.Encode()))
	var w bhomev1.SegmentWanted
	r.expect(bhomev1.MsgType_MSG_TYPE_SEGMENT_WANTED, &w)
	s := must(shmio.CreateSegment("to-be-dropped", shmio.SegmentSpec{Kind: shmio.KindData, Number: 2, Size: w.GetSize(), Base: w.GetBase(), Generation: w.GetGeneration(), Session: r.session}))
	s.Publish(shmio.StateAttached)
	r.send(bhomev1.MsgType_MSG_TYPE_SEGMENT_ADD, &bhomev1.SegmentAdd{Segment: &bhomev1.SegmentRef{Number: 2, Kind: uint32(shmio.KindData),
		Base: w.GetBase(), Generation: w.GetGeneration()}, Size: w.GetSize()}, s.FD())
	m := must(wire.DecodeAllocReply(r.word(0)))
	if m.Place == 0 {
		t.Fatal("no block")
	}
	r.free(1, m.Place)
	r.alive()
	closeSegment(s) // from here on the center's are the only ones
	mapped := func() int {
		maps, err := os.ReadFile("/proc/self/maps")
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(maps), "/memfd:to-be-dropped")
	}
	if mapped() == 0 {
		t.Fatal("the center has not mapped it")
	}
	r.send(bhomev1.MsgType_MSG_TYPE_SEGMENT_DROP, &bhomev1.SegmentDrop{Number: 2, Base: w.GetBase(), Generation: w.GetGeneration()})
	eventually(t, func() string {
		if n := mapped(); n != 0 {
			return fmt.Sprintf("it is mapped %d times", n)
		}
		return ""
	})
}

// What a node asks faster than it is answered waits in its own queue: nothing in the center grows with it, the node
// counts as responsive, and when the answers come it all goes on.
func TestQuestionsAreBounded(t *testing.T) {
	b := newTestBus(t, func(c *Config) { c.OfflineAfter, c.KillAfter, c.hooks.ownTicks = time.Minute, time.Hour, true })
	r, good := b.onlineRaw("raw"), b.onlineRaw("good")
	h := &hoarder{got: make(chan *actor.PID, 1<<16)}
	handler := b.system.Root.Spawn(actor.PropsFromProducer(func() actor.Actor { return h }))
	t.Cleanup(func() { _ = b.system.Root.PoisonFuture(handler).Wait() })
	b.system.Root.Send(b.pid, &HandleType{Type: 1000, PID: handler})
	b.counter("sessions") // it has heard
	frame := must(encodeFrame(&bhomev1.Head{Type: 1000, MsgId: "u"}, nil))
	sent := 0
	for quiet := time.Now(); time.Since(quiet) < 300*time.Millisecond; {
		if _, err := r.up[0].Reclaim(); err != nil {
			t.Fatal(err)
		}
		if r.up[0].PushInline(wire.Inline{Kind: wire.KindControl}, frame) != shmio.Sent {
			time.Sleep(time.Millisecond)
			continue
		}
		r.up[0].Commit()
		sent++
		quiet = time.Now()
		if sent > 100_000 {
			t.Fatal("the center takes all that comes")
		}
	}
	b.log.wait(t, "online", "name=good")
	good.alive()
	b.later(r.session, 2*time.Minute)
	if s := b.state("raw"); s != "online" {
		t.Errorf("it waits for us, and is called %s", s)
	}
	// All get their answer.
	for range sent {
		b.system.Root.Send(<-h.got, &UserReply{Type: 1000})
		r.reply(0, "u", 1000, &bhomev1.CommonReply{})
	}
	r.alive()
}

// hoarder is a handler that answers nothing by itself.
type hoarder struct {
	got chan *actor.PID
}

func (h *hoarder) Receive(c actor.Context) {
	if _, ok := c.Message().(*UserMessage); ok {
		h.got <- c.Sender()
	}
}
