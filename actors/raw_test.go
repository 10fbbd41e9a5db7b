package actors

import (
	"context"
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio"
	"github.com/bhome-bus/bhome/wire"
)

// rawNode is a node that does what a test tells it, right or wrong: no library in between.
type rawNode struct {
	t       testing.TB
	conn    *shmio.Conn
	seg0    *shmio.Segment
	data    *shmio.Segment
	link    *shmio.Segment
	public  *shmio.Segment
	space   *shmio.Space // the center's blocks
	up      [2]*shmio.Writer
	upMem   [2][]byte
	down    [wire.SocketCount]*shmio.Reader
	session uint64
	index   uint16
	ringer  shmio.Ringer
	center  *shmio.FD // the center's bell, as it was passed
	hears   *shmio.FD // at which nobody sleeps, and
	rings   *shmio.FD // what rings it
	welcome *bhomev1.Welcome
	toClose []func()
	sent    uint64 // frames in blocks
}

const rawTimeout = 10 * time.Second

// rawHello is a node that hasn't said Hello yet: its segments and what it would say.
func rawHello(t testing.TB, name string) (*rawNode, *bhomev1.Hello) {
	t.Helper()
	r := &rawNode{t: t, space: shmio.NewSpace()}
	t.Cleanup(r.close)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	r.seg0, err = shmio.CreateSegment("raw-0", shmio.SegmentSpec{Kind: shmio.KindProcess, Size: 256 << 10})
	must(err)
	r.data, err = shmio.CreateSegment("raw-data", shmio.SegmentSpec{Kind: shmio.KindData, Number: 1, Size: 256 << 10})
	must(err)
	r.toClose = append(r.toClose, func() { closeSegment(r.seg0) }, func() { closeSegment(r.data) })
	r.seg0.Publish(shmio.StateLaidOut)
	r.data.Publish(shmio.StateLaidOut)
	h := &bhomev1.Hello{Abi: wire.ABIVersion, Name: name}
	off := uint64(shmio.FirstBlock)
	cut := func(size uint64) []byte {
		mem, err := r.seg0.Memory(off, size)
		must(err)
		off += (size + 127) &^ 127
		return mem
	}
	for q := range r.down {
		h.Down = append(h.Down, &bhomev1.Half{Offset: off})
		r.down[q], err = shmio.NewReader(cut(shmio.LinkSpec(q).ReaderSize()), shmio.LinkSpec(q))
		must(err)
	}
	for i := range r.up {
		h.Up = append(h.Up, &bhomev1.Half{Offset: off})
		r.upMem[i] = cut(shmio.LinkSpec(upQueue(i)).WriterSize())
		r.up[i], err = shmio.NewWriter(r.upMem[i], shmio.LinkSpec(upQueue(i)))
		must(err)
	}
	return r, h
}

// dial connects the node's socket.
func (r *rawNode) dial(socket string) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), rawTimeout)
	defer cancel()
	c, err := shmio.Dial(ctx, socket)
	if err != nil {
		r.t.Fatal(err)
	}
	r.conn = c
	deadline := time.Now().Add(rawTimeout)
	if err := c.SetReceiveDeadline(deadline); err != nil {
		r.t.Fatal(err)
	}
	if err := c.SetSendDeadline(deadline); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rawNode) close() {
	if r.conn != nil {
		_ = r.conn.Close()
	}
	for _, f := range r.toClose {
		f()
	}
	r.toClose = nil
}

// send sends a frame over the socket.
func (r *rawNode) send(typ bhomev1.MsgType, body proto.Message, fds ...*shmio.FD) {
	r.t.Helper()
	b, err := encodeFrame(&bhomev1.Head{Type: uint32(typ)}, body)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := r.conn.Send(b, fds...); err != nil {
		r.t.Fatalf("send %v: %v", typ, err)
	}
}

// receive takes the next frame from the socket; its descriptors end with the test.
func (r *rawNode) receive() (*bhomev1.Head, []byte, []*shmio.FD, error) {
	r.t.Helper()
	buf := make([]byte, wire.MaxFrame)
	n, fds, err := r.conn.Receive(buf)
	if err != nil {
		return nil, nil, nil, err
	}
	r.toClose = append(r.toClose, func() { closeFDs(fds) })
	head, body, err := decodeFrame(buf[:n])
	if err != nil {
		r.t.Fatal(err)
	}
	if head.GetSeq() != 0 {
		r.send(bhomev1.MsgType_MSG_TYPE_SOCKET_ACK, &bhomev1.SocketAck{Seq: head.GetSeq()})
	}
	return head, body, fds, nil
}

// refusal is what the center answers to a Hello that it refuses; then it has to hang up.
func (r *rawNode) refusal() *bhomev1.ErrorMsg {
	r.t.Helper()
	head, body, _, err := r.receive()
	if err != nil {
		r.t.Fatal("no answer:", err)
	}
	var m bhomev1.CommonReply
	if head.GetType() != uint32(bhomev1.MsgType_MSG_TYPE_COMMON_REPLY) {
		r.t.Fatalf("answered with type %d", head.GetType())
	}
	if err := proto.Unmarshal(body, &m); err != nil || m.GetErrmsg() == nil {
		r.t.Fatal("no reason:", err)
	}
	if _, _, _, err := r.receive(); err == nil {
		r.t.Fatal("the center goes on after a refusal")
	}
	return m.GetErrmsg()
}

// bell is the writing end of a bell on which nobody sleeps.
func (r *rawNode) bell() *shmio.FD {
	r.t.Helper()
	rd, wr, err := shmio.NewBell()
	if err != nil {
		r.t.Fatal(err)
	}
	r.toClose = append(r.toClose, func() { closeFDs([]*shmio.FD{rd, wr}) })
	r.hears, r.rings = rd, wr
	return wr
}

// attachRaw is a node up to Welcome, with the center's half of the link joined.
func (b *testBus) attachRaw(name string, change ...func(*bhomev1.Hello)) *rawNode {
	b.t.Helper()
	r, h := rawHello(b.t, name)
	for _, f := range change {
		f(h)
	}
	r.dial(b.socket)
	r.send(bhomev1.MsgType_MSG_TYPE_HELLO, h, r.seg0.FD(), r.data.FD(), r.bell())
	head, body, fds, err := r.receive()
	if err != nil || head.GetType() != uint32(bhomev1.MsgType_MSG_TYPE_WELCOME) || len(fds) != 4 {
		b.t.Fatalf("no Welcome: %v %v %q", err, head, body)
	}
	r.welcome = &bhomev1.Welcome{}
	if err := proto.Unmarshal(body, r.welcome); err != nil {
		b.t.Fatal(err)
	}
	r.session = r.welcome.GetSession()
	open := func(fd *shmio.FD, kind shmio.Kind) *shmio.Segment {
		dup, err := fd.Dup()
		if err != nil {
			b.t.Fatal(err)
		}
		s, err := shmio.OpenSegment(dup, shmio.Want{Kinds: []shmio.Kind{kind}, CloseFD: true})
		if err != nil {
			b.t.Fatal(err)
		}
		r.toClose = append(r.toClose, func() { closeSegment(s) })
		return s
	}
	r.link, r.public = open(fds[0], shmio.KindLink), open(fds[1], shmio.KindPublic)
	if err := r.space.Add(r.link); err != nil {
		b.t.Fatal(err)
	}
	r.center = fds[2]
	dup, err := r.center.Dup()
	if err != nil {
		b.t.Fatal(err)
	}
	bell, err := shmio.OpenBell(dup)
	if err != nil {
		b.t.Fatal(err)
	}
	r.toClose = append(r.toClose, func() { _ = bell.Close() })
	r.ringer = shmio.LinkRinger(bell)
	half := func(h *bhomev1.Half, size uint64) []byte {
		mem, err := r.link.Memory(h.GetOffset(), size)
		if err != nil {
			b.t.Fatal(err)
		}
		return mem
	}
	for q, h := range r.welcome.GetDown() {
		if err := r.down[q].Join(half(h, shmio.LinkSpec(q).WriterSize()), r.ringer); err != nil {
			b.t.Fatal(err)
		}
	}
	for i, h := range r.welcome.GetUp() {
		if err := r.up[i].Join(half(h, shmio.LinkSpec(upQueue(i)).ReaderSize()), r.ringer); err != nil {
			b.t.Fatal(err)
		}
	}
	r.data.SetBase(r.welcome.GetBase(), r.welcome.GetGeneration())
	return r
}

// onlineRaw is a registered raw node. One that resumes has nothing to report.
func (b *testBus) onlineRaw(name string, change ...func(*bhomev1.Hello)) *rawNode {
	b.t.Helper()
	r := b.attachRaw(name, change...)
	if r.welcome.GetResumed() {
		r.send(bhomev1.MsgType_MSG_TYPE_REPORT, &bhomev1.Report{End: true})
	}
	r.push(0, must(wire.NodeInit{Session: r.session}.Encode()))
	if m, err := wire.DecodeNodeInitReply(r.word(0)); err != nil || m.Place == 0 {
		b.t.Fatalf("NodeInitReply %+v, %v", m, err)
	}
	r.frame(0, &bhomev1.Head{Type: uint32(bhomev1.MsgType_MSG_TYPE_PROC_INIT), MsgId: "1", ProcId: name}, &bhomev1.ProcInit{})
	var pi bhomev1.ProcInitReply
	r.reply(0, "1", bhomev1.MsgType_MSG_TYPE_PROC_INIT_REPLY, &pi)
	if pi.GetErrmsg() != nil {
		b.t.Fatal(pi.GetErrmsg())
	}
	r.index = uint16(pi.GetProcIndex())
	r.frame(0, &bhomev1.Head{Type: uint32(bhomev1.MsgType_MSG_TYPE_REGISTER), MsgId: "2"}, &bhomev1.Register{Proc: &bhomev1.ProcInfo{ProcId: name}})
	var reg bhomev1.CommonReply
	r.reply(0, "2", bhomev1.MsgType_MSG_TYPE_COMMON_REPLY, &reg)
	if reg.GetErrmsg() != nil {
		b.t.Fatal(reg.GetErrmsg())
	}
	return r
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// push sends words up.
func (r *rawNode) push(queue int, words ...wire.Word) {
	r.t.Helper()
	for _, w := range words {
		if o := r.up[queue].PushCommand(w); o != shmio.Sent {
			r.t.Fatalf("word %#x: %v", uint64(w), o)
		}
	}
	r.up[queue].Commit()
}

// frame sends a frame up, inline; one that is too long for that fails the test.
func (r *rawNode) frame(queue int, head *bhomev1.Head, body proto.Message) {
	r.t.Helper()
	r.bytes(queue, must(encodeFrame(head, body)))
}

func (r *rawNode) bytes(queue int, frame []byte) {
	r.t.Helper()
	for end := time.Now().Add(rawTimeout); ; time.Sleep(50 * time.Microsecond) {
		o := r.up[queue].PushInline(wire.Inline{Kind: wire.KindControl}, frame)
		if r.up[queue].Commit(); o == shmio.Sent {
			return
		}
		if o != shmio.Full || time.Now().After(end) { // until then the center takes what is there
			r.t.Fatalf("frame of %d bytes: %v", len(frame), o)
		}
	}
}

// next waits for the next thing on a down queue: a word, or a frame.
func (r *rawNode) next(queue int) (wire.Word, []byte) {
	r.t.Helper()
	var rec shmio.Record
	end := time.Now().Add(rawTimeout)
	for {
		ok, err := r.down[queue].TryReceive(&rec)
		if err != nil {
			r.t.Fatal(err)
		}
		if !ok {
			if time.Now().After(end) {
				r.t.Fatalf("nothing comes on down queue %d", queue)
			}
			time.Sleep(50 * time.Microsecond)
			continue
		}
		if rec.IsInline() {
			return 0, append([]byte(nil), rec.Payload...)
		}
		if rec.IsBlock() {
			var blk shmio.Block
			if err := r.space.Block(rec.Word, &blk); err != nil {
				r.t.Fatal(err)
			}
			frame := append([]byte(nil), blk.Payload...)
			r.down[queue].Return(rec.Seq)
			return 0, frame
		}
		return rec.Word, nil
	}
}

// word waits for a word.
func (r *rawNode) word(queue int) wire.Word {
	r.t.Helper()
	w, frame := r.next(queue)
	if frame != nil {
		head, body, _ := decodeFrame(frame)
		r.t.Fatalf("a frame where a word should come: %v %q", head, body)
	}
	return w
}

// reply waits for the frame that answers.
func (r *rawNode) reply(queue int, msgID string, typ bhomev1.MsgType, into proto.Message) {
	r.t.Helper()
	w, frame := r.next(queue)
	if frame == nil {
		r.t.Fatalf("word %#x where a frame should come", uint64(w))
	}
	head, body, err := decodeFrame(frame)
	if err != nil {
		r.t.Fatal(err)
	}
	if head.GetMsgId() != msgID || head.GetType() != uint32(typ) || head.GetSsnId() != r.session {
		r.t.Fatalf("answer %v, want type %v to %q", head, typ, msgID)
	}
	if err := proto.Unmarshal(body, into); err != nil {
		r.t.Fatal(err)
	}
}

// common asks for something and waits for the CommonReply on down queue 0.
func (r *rawNode) common(queue int, typ bhomev1.MsgType, body proto.Message) *bhomev1.ErrorMsg {
	r.t.Helper()
	r.sent++
	id := fmt.Sprint("c", r.sent)
	r.frame(queue, &bhomev1.Head{Type: uint32(typ), MsgId: id}, body)
	var m bhomev1.CommonReply
	r.reply(0, id, bhomev1.MsgType_MSG_TYPE_COMMON_REPLY, &m)
	return m.GetErrmsg()
}

// alive fails unless the center answers this node's heartbeat.
func (r *rawNode) alive() {
	r.t.Helper()
	if err := r.common(0, bhomev1.MsgType_MSG_TYPE_HEARTBEAT, nil); err != nil {
		r.t.Fatal(err)
	}
}

// alloc asks for a block of a payload, as the node's id-th request.
func (r *rawNode) alloc(id uint32, size int64) (place uint32) {
	r.t.Helper()
	r.push(0, must(wire.AllocRequest{ID: id, Proc: r.index, Class: uint8(wire.CalcAllocIndex(size))}.Encode()))
	m := must(wire.DecodeAllocReply(r.word(0)))
	if m.ID != id {
		r.t.Fatalf("request %d is answered as %d", id, m.ID)
	}
	return m.Place
}

func (r *rawNode) free(id, place uint32) {
	r.t.Helper()
	r.push(0, must(wire.Free{Grant: wire.NewGrant(id, place)}.Encode()))
}

func marshal(m proto.Message) ([]byte, error) { return proto.Marshal(m) }
