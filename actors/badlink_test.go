package actors

import (
	"encoding/binary"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio"
	"github.com/bhome-bus/bhome/wire"
)

// poke writes slots where the writer's next ones are, whatever they say, and shows them; the Writer doesn't know.
func (r *rawNode) poke(queue int, words ...uint64) {
	const tailAt, ringAt = 128, 640
	mem := r.upMem[queue]
	tail := binary.NativeEndian.Uint64(mem[tailAt:])
	for i, w := range words {
		binary.NativeEndian.PutUint64(mem[ringAt+(tail+uint64(i))%256*8:], w)
	}
	r.setTail(queue, tail+uint64(len(words)))
}

func (r *rawNode) setTail(queue int, tail uint64) {
	binary.NativeEndian.PutUint64(r.upMem[queue][128:], tail) // aligned: stored whole
	r.ringer.Ring(0)
}

// What a node does wrong on its queues is counted and told, and costs nobody else anything.
func TestBadQueueInput(t *testing.T) {
	frame := func(f []byte) func(r *rawNode) { return func(r *rawNode) { r.bytes(0, f) } }
	head := func(h *bhomev1.Head) func(r *rawNode) {
		return func(r *rawNode) { r.bytes(0, must(encodeFrame(h, nil))) }
	}
	word := func(queue int, w wire.Word) func(r *rawNode) { return func(r *rawNode) { r.push(queue, w) } }
	register := uint32(bhomev1.MsgType_MSG_TYPE_REGISTER)
	for _, c := range []struct {
		name   string
		do     func(r *rawNode)
		kind   string // of the fault
		answer string // reason in a CommonReply; "": none
	}{
		{"a frame of rubbish", frame([]byte("rubbish, and nothing else")), "kind=frame", ""},
		{"a frame whose lengths lie", frame([]byte{4, 0, 0, 0, 1, 2}), "kind=frame", ""},
		{"an empty frame", frame(wire.AppendFrame(nil, nil, nil)), "kind=message type", "knows no message type 0"},
		{"a body that is none", func(r *rawNode) {
			r.bytes(0, wire.AppendFrame(nil, must(marshal(&bhomev1.Head{Type: register})), []byte{0xff}))
		}, "kind=frame body", "can't be parsed"},
		{"an unknown type to 100", head(&bhomev1.Head{Type: 777}), "kind=message type", "address 100 knows no message type 777"},
		{"an unknown type to 101", func(r *rawNode) { r.bytes(1, must(encodeFrame(&bhomev1.Head{Type: 777}, nil))) }, "kind=message type", "address 101 knows no message type 777"},
		{"a user's type that nobody handles", head(&bhomev1.Head{Type: 5000}), "", "nobody handles message type 5000"},
		{"another's session", head(&bhomev1.Head{Type: uint32(bhomev1.MsgType_MSG_TYPE_HEARTBEAT), SsnId: 1230}), "kind=session in a frame", "invalid session."},
		{"an answer to another's address", head(&bhomev1.Head{Type: uint32(bhomev1.MsgType_MSG_TYPE_HEARTBEAT), MsgId: "x", Route: []*bhomev1.Address{{MqId: 1230}}}), "kind=reply address", ""},
		{"an answer to no queue", func(r *rawNode) {
			head(&bhomev1.Head{Type: uint32(bhomev1.MsgType_MSG_TYPE_HEARTBEAT), MsgId: "x", Route: []*bhomev1.Address{{MqId: r.session + 4}}})(r)
		}, "kind=reply address", ""},
		{"a second ProcInit", head(&bhomev1.Head{Type: uint32(bhomev1.MsgType_MSG_TYPE_PROC_INIT), ProcId: "else"}), "", "invalid session."},
		{"NodeInit of another session", word(0, must(wire.NodeInit{Session: 4560}.Encode())), "kind=NodeInit", ""},
		{"NodeInitReply to the center", word(0, must(wire.NodeInitReply{Place: 4, ID: 1}.Encode())), "kind=word", ""},
		{"AllocReply0 to the center", word(0, must(wire.AllocReply{ID: 1, Place: 4}.Encode())), "kind=word", ""},
		{"Control to the center", word(0, must(wire.Control{Op: 3}.Encode())), "kind=word", ""},
		{"a word to 101", word(1, must(wire.Free{Grant: wire.NewGrant(1, 4)}.Encode())), "kind=word on the bus's queue", ""},
		{"a topic that is 64 KiB long", func(r *rawNode) {
			r.bigFrame(1, &bhomev1.Head{Type: uint32(bhomev1.MsgType_MSG_TYPE_ADVERTISE)}, &bhomev1.Advertise{Topic: string(make([]byte, 60<<10))})
		}, "", "at most 255"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newTestBus(t)
			good, r := b.onlineRaw("good"), b.onlineRaw("bad")
			c.do(r)
			if c.answer != "" {
				_, f := r.next(0)
				head, body, err := decodeFrame(f)
				if err != nil {
					t.Fatal(err)
				}
				var text string
				if head.GetType() == uint32(bhomev1.MsgType_MSG_TYPE_ADVERTISE_REPLY) {
					var m bhomev1.AdvertiseReply
					err = proto.Unmarshal(body, &m)
					text = m.GetErrmsg().GetMessage()
				} else {
					var m bhomev1.CommonReply
					err = proto.Unmarshal(body, &m)
					text = m.GetErrmsg().GetMessage()
				}
				if err != nil || !strings.Contains(text, c.answer) {
					t.Errorf("answered %q, want %q", text, c.answer)
				}
			}
			r.alive() // the link goes on
			want := uint64(0)
			if c.kind != "" {
				want = 1
				b.log.wait(t, "a node's fault", "name=bad", c.kind)
			}
			if n := b.faults("bad"); n != want {
				t.Errorf("%d faults, want %d", n, want)
			}
			good.alive()
		})
	}
}

// Cursors and words that no honest node writes end its link; its process, and all others, go on.
func TestBadWords(t *testing.T) {
	msg := func(place uint32, gen uint16) uint64 { return uint64(must(wire.Message(place, gen))) }
	for _, c := range []struct {
		name string
		do   func(r *rawNode)
	}{
		{"the tail jumps ahead", func(r *rawNode) { r.setTail(0, 1<<40) }},
		{"the tail jumps back", func(r *rawNode) { r.setTail(0, 0) }},
		{"the tail is all ones", func(r *rawNode) { r.setTail(1, 1<<64-1) }},
		{"a word with reserved bits", func(r *rawNode) { r.poke(0, msg(r.data.Base()+256, 0)|1<<60) }},
		{"an Inline word that is too long", func(r *rawNode) { r.poke(0, 1|5<<1|1023<<4) }},
		{"an Inline record cut short", func(r *rawNode) { r.poke(0, 1|5<<1|200<<4) }},
		{"a block outside", func(r *rawNode) { r.poke(0, msg(1<<30, 0)) }},
		{"a block in a dropped generation", func(r *rawNode) { r.poke(0, msg(r.data.Base()+256, 99)) }},
		{"a block at the segment's end", func(r *rawNode) { r.poke(0, msg(r.data.Base()+(256<<10)/16-4, 0)) }},
		{"a block that is none", func(r *rawNode) { r.poke(0, msg(r.data.Base()+512, 0)) }},
		{"a block in the segment's header", func(r *rawNode) { r.poke(0, msg(r.data.Base()+4, 0)) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newTestBus(t)
			good, r := b.onlineRaw("good"), b.onlineRaw("bad")
			r.alloc(1, 100)
			c.do(r)
			b.log.wait(t, "a node's link is cut", "name=bad")
			if _, _, _, err := r.receive(); err == nil {
				t.Error("its socket is open")
			}
			b.log.wait(t, "detached", "name=bad")
			if n := b.counter("granted_blocks"); n != 3 {
				t.Errorf("%d blocks; what a living process has stays", n)
			}
			if n := b.faults("bad"); n != 1 {
				t.Errorf("%d faults are counted", n)
			}
			good.alive()
			b.onlineRaw("another").alive()
		})
	}
}

// bigFrame sends a frame in a block of the node's own.
func (r *rawNode) bigFrame(queue int, head *bhomev1.Head, body proto.Message) {
	r.t.Helper()
	f := must(encodeFrame(head, body))
	r.sent++
	id := uint32(1<<20 + r.sent)
	place := r.alloc(id, int64(len(f)))
	if place == 0 {
		r.t.Fatal("no block")
	}
	mem, err := r.data.At(place, uint64(wire.HeaderSize+len(f)))
	if err != nil {
		r.t.Fatal(err)
	}
	h := wire.Header{Tag: wire.BlockTag, Size: uint32(len(f)), ID: uint64(place), Stamp: shmio.CoarseNow(), Kind: wire.KindControl, Publisher: r.index}
	if err := h.Put(mem); err != nil {
		r.t.Fatal(err)
	}
	copy(mem[wire.HeaderSize:], f)
	if o := r.up[queue].Push(must(wire.Message(place, uint16(r.data.Generation()))), uint64(len(f)), nil); o != shmio.Sent {
		r.t.Fatal(o)
	}
	r.up[queue].Commit()
}

// What a node does wrong on its socket.
func TestBadSocketInput(t *testing.T) {
	ref := func(kind shmio.Kind, number, base uint32) *bhomev1.SegmentRef {
		return &bhomev1.SegmentRef{Kind: uint32(kind), Number: number, Base: base}
	}
	control := func(r *rawNode, number uint32) *shmio.Segment {
		s, err := shmio.CreateSegment("more", shmio.SegmentSpec{Kind: shmio.KindControl, Number: number, Size: 1 << 16, Session: r.session})
		if err != nil {
			r.t.Fatal(err)
		}
		r.toClose = append(r.toClose, func() { closeSegment(s) })
		s.Publish(shmio.StateAttached)
		return s
	}
	add := bhomev1.MsgType_MSG_TYPE_SEGMENT_ADD
	for _, c := range []struct {
		name string
		do   func(r *rawNode)
		what string // "cut", "fault" or "nothing"
	}{
		{"rubbish", func(r *rawNode) { _ = r.conn.Send([]byte("rubbish")) }, "cut"},
		{"a second Hello", func(r *rawNode) { r.send(bhomev1.MsgType_MSG_TYPE_HELLO, &bhomev1.Hello{}) }, "cut"},
		{"an unknown type", func(r *rawNode) { r.send(4711, &bhomev1.Bye{}) }, "cut"},
		{"descriptors that nobody asked for", func(r *rawNode) {
			r.send(bhomev1.MsgType_MSG_TYPE_ROUTE_CLOSE, &bhomev1.RouteClose{Route: 1}, r.seg0.FD())
		}, "cut"},
		{"SegmentAdd without its descriptor", func(r *rawNode) { r.send(add, &bhomev1.SegmentAdd{Segment: ref(shmio.KindControl, 2, 0)}) }, "cut"},
		{"SegmentAdd of a pipe", func(r *rawNode) {
			r.send(add, &bhomev1.SegmentAdd{Segment: ref(shmio.KindControl, 2, 0), Size: 1 << 16}, r.pipe())
		}, "cut"},
		{"SegmentAdd that says another number", func(r *rawNode) {
			r.send(add, &bhomev1.SegmentAdd{Segment: ref(shmio.KindControl, 3, 0), Size: 1 << 16}, control(r, 2).FD())
		}, "cut"},
		{"SegmentAdd that says another size", func(r *rawNode) {
			r.send(add, &bhomev1.SegmentAdd{Segment: ref(shmio.KindControl, 2, 0), Size: 1 << 17}, control(r, 2).FD())
		}, "cut"},
		{"SegmentAdd of segment 0", func(r *rawNode) {
			r.send(add, &bhomev1.SegmentAdd{Segment: ref(shmio.KindProcess, 0, 0), Size: r.seg0.Size()}, r.seg0.FD())
		}, "cut"},
		{"a data segment that nobody asked for", func(r *rawNode) {
			r.send(add, &bhomev1.SegmentAdd{Segment: ref(shmio.KindData, 1, r.data.Base()), Size: r.data.Size()}, r.data.FD())
		}, "fault"},
		{"a control segment twice", func(r *rawNode) {
			s := control(r, 2)
			for range 2 {
				r.send(add, &bhomev1.SegmentAdd{Segment: ref(shmio.KindControl, 2, 0), Size: s.Size()}, s.FD())
			}
		}, "fault"},
		{"SegmentDrop of what isn't there", func(r *rawNode) {
			r.send(bhomev1.MsgType_MSG_TYPE_SEGMENT_DROP, &bhomev1.SegmentDrop{Number: 9, Base: 4096})
		}, "fault"},
		{"SegmentDrop of segment 0", func(r *rawNode) { r.send(bhomev1.MsgType_MSG_TYPE_SEGMENT_DROP, &bhomev1.SegmentDrop{}) }, "fault"},
		{"Report without a resume", func(r *rawNode) {
			r.send(bhomev1.MsgType_MSG_TYPE_REPORT, &bhomev1.Report{Grants: []*bhomev1.Grant{{Id: 1 << 40}}, End: true})
		}, "fault"},
		{"RouteHalf of a route that isn't", func(r *rawNode) {
			r.send(bhomev1.MsgType_MSG_TYPE_ROUTE_HALF, &bhomev1.RouteHalf{Route: 1, Role: bhomev1.Role_ROLE_READER, Half: &bhomev1.Half{Offset: 1 << 50}, HasBell: true}, r.bell())
		}, "nothing"},
		{"RouteClose of a route that isn't", func(r *rawNode) { r.send(bhomev1.MsgType_MSG_TYPE_ROUTE_CLOSE, &bhomev1.RouteClose{Route: 1}) }, "nothing"},
		{"acknowledgements of what was never sent", func(r *rawNode) { r.send(bhomev1.MsgType_MSG_TYPE_SOCKET_ACK, &bhomev1.SocketAck{Seq: 1<<64 - 1}) }, "nothing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newTestBus(t)
			good := b.onlineRaw("good")
			r := b.onlineRaw("bad")
			c.do(r)
			switch c.what {
			case "cut":
				b.log.wait(t, "a node's link is cut", "name=bad")
				if _, _, _, err := r.receive(); err == nil {
					t.Error("its socket is open")
				}
			case "fault":
				b.log.wait(t, "a node's fault", "name=bad")
				r.alive()
			case "nothing":
				r.alive()
			}
			good.alive()
			_ = r.conn.Close()
			b.log.wait(t, "detached", "name=bad") // its process lives
			b.onlineRaw("another").alive()
		})
	}
}
