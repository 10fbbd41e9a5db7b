package hostile

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio"
	"github.com/bhome-bus/bhome/wire"
)

const (
	segment0Size = 4 << 20 // as large as the center takes it: halves of many routes
	dataSize     = 256 << 10
	tailAt       = 128 // of a writer half (docs/abi.md section 4)
	ringAt       = 640
	slots        = 256 // of an up queue
	answerWithin = 10 * time.Second
)

// rawNode is a node without the library: all that it writes, anybody could.
type rawNode struct {
	conn     *shmio.Conn
	seg0     *shmio.Segment
	data     *shmio.Segment
	link     *shmio.Segment
	space    *shmio.Space     // the center's blocks
	up       [2]*shmio.Writer // laid out and joined, no more: we write what we like
	upMem    [2][]byte        // our halves of the queues up
	upTheirs [2][]byte
	down     [wire.SocketCount]*shmio.Reader
	center   *shmio.Bell
	session  uint64
	index    uint16
	asked    uint64    // questions
	bell     *shmio.FD // given for routes, if not nil
	deaf     bool      // reads nothing that is sent to it

	mu      sync.Mutex
	next    uint64 // where the next half goes in segment 0
	routes  map[uint64]*rawRoute
	peers   map[uint64]*rawPeer
	over    bool // the socket is
	changed chan struct{}
	closers []interface{ Close() error }
}

// rawRoute is one end of a route; what isn't known yet is nil.
type rawRoute struct {
	open   *bhomev1.RouteOpen
	mem    []byte
	theirs []byte
	bell   *shmio.Bell
	w      *shmio.Writer
	r      *shmio.Reader
	joined bool
	closed bool
}

// rawPeer is what we know of a process with which we have routes.
type rawPeer struct {
	segments map[uint32]*shmio.Segment
	bell     *shmio.Bell
	belled   bool // it has got ours
}

// dialRaw makes the segments and connects, and says nothing yet. The Hello is as an honest node's.
func dialRaw(ctx context.Context, socket string) (r *rawNode, h *bhomev1.Hello, err error) {
	r = &rawNode{space: shmio.NewSpace(), routes: map[uint64]*rawRoute{}, peers: map[uint64]*rawPeer{}, next: shmio.FirstBlock, changed: make(chan struct{})}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	if r.seg0, err = shmio.CreateSegment("hostile-0", shmio.SegmentSpec{Kind: shmio.KindProcess, Size: segment0Size}); err != nil {
		return r, nil, err
	}
	r.closers = append(r.closers, r.seg0)
	if r.data, err = shmio.CreateSegment("hostile-data", shmio.SegmentSpec{Kind: shmio.KindData, Number: 1, Size: dataSize}); err != nil {
		return r, nil, err
	}
	r.closers = append(r.closers, r.data)
	r.seg0.Publish(shmio.StateLaidOut)
	r.data.Publish(shmio.StateLaidOut)
	h = &bhomev1.Hello{Abi: wire.ABIVersion, Name: "hostile"}
	for q := range r.down {
		mem, at, err := r.cut(shmio.LinkSpec(q).ReaderSize())
		if err == nil {
			r.down[q], err = shmio.NewReader(mem, shmio.LinkSpec(q))
		}
		if err != nil {
			return r, nil, err
		}
		h.Down = append(h.Down, &bhomev1.Half{Offset: at})
	}
	for i := range r.upMem {
		mem, at, err := r.cut(shmio.LinkSpec(shmio.FirstUpQueue + i).WriterSize())
		if err == nil {
			r.upMem[i] = mem
			r.up[i], err = shmio.NewWriter(mem, shmio.LinkSpec(shmio.FirstUpQueue+i))
		}
		if err != nil {
			return r, nil, err
		}
		h.Up = append(h.Up, &bhomev1.Half{Offset: at})
	}
	if r.conn, err = shmio.Dial(ctx, socket); err != nil {
		return r, nil, err
	}
	r.closers = append(r.closers, r.conn)
	return r, h, r.conn.SetSendDeadline(time.Now().Add(time.Hour))
}

// cut takes the next size bytes of segment 0.
func (r *rawNode) cut(size uint64) (mem []byte, at uint64, err error) {
	at = r.next
	mem, err = r.seg0.Memory(at, size)
	r.next += (size + 127) &^ 127
	return mem, at, err
}

func (r *rawNode) close() {
	r.mu.Lock()
	closers := r.closers
	r.closers, r.over = nil, true
	r.mu.Unlock()
	for i := len(closers) - 1; i >= 0; i-- {
		_ = closers[i].Close() // the process ends soon
	}
}

// attachRaw is a node that is online, as an honest one would be: what it does from then on is the attack's.
func attachRaw(ctx context.Context, socket string, opts ...option) (r *rawNode, err error) {
	r, h, err := dialRaw(ctx, socket)
	if err != nil {
		return nil, err
	}
	for _, o := range opts {
		o(r)
	}
	defer func() {
		if err != nil {
			r.close()
			r = nil
		}
	}()
	if err := r.hello(h); err != nil {
		return r, err
	}
	return r, r.register(ctx, h.GetResume() != 0)
}

// option changes a node before it says Hello.
type option func(*rawNode)

func deaf(r *rawNode) { r.deaf = true }

// hello says Hello and adopts the Welcome.
func (r *rawNode) hello(h *bhomev1.Hello) error {
	bell, err := r.newBell()
	if err != nil {
		return err
	}
	if err := r.send(bhomev1.MsgType_MSG_TYPE_HELLO, h, r.seg0.FD(), r.data.FD(), bell); err != nil {
		return err
	}
	return r.welcome()
}

// welcome waits for it.
func (r *rawNode) welcome() error {
	if err := r.conn.SetReceiveDeadline(time.Now().Add(answerWithin)); err != nil {
		return err
	}
	b, fds, err := r.conn.ReceiveMessage(wire.MaxFrame)
	defer closeFDs(fds)
	if err != nil {
		return err
	}
	head, body, err := splitFrame(b)
	if err != nil {
		return err
	}
	if head.GetType() != uint32(bhomev1.MsgType_MSG_TYPE_WELCOME) || len(fds) != 4 {
		var c bhomev1.CommonReply
		_ = proto.Unmarshal(body, &c) // else there is no reason to show
		return fmt.Errorf("refused: %v", c.GetErrmsg())
	}
	var w bhomev1.Welcome
	if err := proto.Unmarshal(body, &w); err != nil {
		return err
	}
	r.session = w.GetSession()
	dup, err := fds[0].Dup()
	if err != nil {
		return err
	}
	if r.link, err = shmio.OpenSegment(dup, shmio.Want{Kinds: []shmio.Kind{shmio.KindLink}, CloseFD: true}); err != nil {
		return err
	}
	r.closers = append(r.closers, r.link)
	if err := r.space.Add(r.link); err != nil {
		return err
	}
	if dup, err = fds[2].Dup(); err != nil {
		return err
	}
	if r.center, err = shmio.OpenBell(dup); err != nil {
		return err
	}
	r.closers = append(r.closers, r.center)
	ringer := shmio.LinkRinger(r.center)
	for q, half := range w.GetDown() {
		mem, err := r.link.Memory(half.GetOffset(), shmio.LinkSpec(q).WriterSize())
		if err == nil {
			err = r.down[q].Join(mem, ringer)
		}
		if err != nil {
			return err
		}
	}
	for i, half := range w.GetUp() {
		mem, err := r.link.Memory(half.GetOffset(), shmio.LinkSpec(shmio.FirstUpQueue+i).ReaderSize())
		if err == nil {
			r.upTheirs[i] = mem
			err = r.up[i].Join(mem, ringer)
		}
		if err != nil {
			return err
		}
	}
	r.data.SetBase(w.GetBase(), w.GetGeneration())
	return r.conn.SetReceiveDeadline(time.Time{})
}

// register is the rest of the handshake. The name is of a pool: a hostile process that comes again and again uses none up.
func (r *rawNode) register(ctx context.Context, resumed bool) error {
	if resumed {
		if err := r.send(bhomev1.MsgType_MSG_TYPE_REPORT, &bhomev1.Report{End: true}); err != nil {
			return err
		}
	}
	word, err := wire.NodeInit{Session: r.session}.Encode()
	if err != nil {
		return err
	}
	r.push(0, uint64(word))
	if _, _, err := r.answer(ctx); err != nil { // NodeInitReply
		return err
	}
	var p bhomev1.ProcInitReply
	if err := r.call(ctx, 0, bhomev1.MsgType_MSG_TYPE_PROC_INIT, &bhomev1.ProcInit{Pooled: true}, &p); err != nil {
		return err
	}
	r.index = uint16(p.GetProcIndex())
	var c bhomev1.CommonReply
	if err := r.call(ctx, 0, bhomev1.MsgType_MSG_TYPE_REGISTER, &bhomev1.Register{Proc: &bhomev1.ProcInfo{ProcId: p.GetProcId()}}, &c); err != nil {
		return err
	}
	if c.GetErrmsg() != nil {
		return fmt.Errorf("refused: %v", c.GetErrmsg())
	}
	go r.listen()
	return nil
}

// push writes slots at the tail of an up queue, whatever they say and whatever is there.
func (r *rawNode) push(queue int, words ...uint64) {
	mem := r.upMem[queue]
	tail := binary.NativeEndian.Uint64(mem[tailAt:])
	for i, w := range words {
		binary.NativeEndian.PutUint64(mem[ringAt+(tail+uint64(i))%slots*8:], w)
	}
	binary.NativeEndian.PutUint64(mem[tailAt:], tail+uint64(len(words))) // aligned: stored whole
	r.center.Ring(0)
}

// pushFrame sends a frame up, inline; a longer one is cut.
func (r *rawNode) pushFrame(queue int, f []byte) {
	f = f[:min(len(f), wire.MaxInline)]
	in := wire.Inline{Len: len(f), Kind: wire.KindControl}
	var head [wire.MaxInlineHead]uint64
	words := append([]uint64(nil), head[:in.PutWords(head[:])]...)
	for len(f) > 0 {
		var b [8]byte
		f = f[copy(b[:], f):]
		words = append(words, binary.NativeEndian.Uint64(b[:]))
	}
	r.push(queue, words...)
}

// room tells whether an up queue has room for that many words, as the center says: who doesn't look is cut off.
func (r *rawNode) room(queue, words int) bool {
	const headAt = 128 // of a reader half
	tail := binary.NativeEndian.Uint64(r.upMem[queue][tailAt:])
	return tail-binary.NativeEndian.Uint64(r.upTheirs[queue][headAt:])+uint64(words) <= slots
}

// answer is the next thing on down queue 0: a word, or a frame.
func (r *rawNode) answer(ctx context.Context) (wire.Word, []byte, error) {
	for end := time.Now().Add(answerWithin); ; {
		if w, f, err := r.tryAnswer(); w != 0 || f != nil || err != nil {
			return w, f, err
		}
		if ctx.Err() != nil || time.Now().After(end) || r.isOver() {
			return 0, nil, errors.New("no answer")
		}
		time.Sleep(100 * time.Microsecond)
	}
}

// tryAnswer is answer without waiting: 0 and nil when there is none.
func (r *rawNode) tryAnswer() (wire.Word, []byte, error) {
	var rec shmio.Record
	ok, err := r.down[0].TryReceive(&rec)
	switch {
	case err != nil || !ok:
		return 0, nil, err
	case rec.IsInline():
		return 0, append([]byte{}, rec.Payload...), nil
	case rec.IsBlock():
		var blk shmio.Block
		if err := r.space.Block(rec.Word, &blk); err != nil {
			return 0, nil, err
		}
		f := append([]byte{}, blk.Payload...)
		r.down[0].Return(rec.Seq)
		return 0, f, nil
	}
	return rec.Word, nil, nil
}

// call asks the center and waits for the answer to that.
func (r *rawNode) call(ctx context.Context, queue int, typ bhomev1.MsgType, body, reply proto.Message) error {
	r.asked++
	id := fmt.Sprint("h", r.asked)
	f, err := frame(&bhomev1.Head{Type: uint32(typ), MsgId: id, ProcId: "hostile"}, body)
	if err != nil {
		return err
	}
	for !r.room(queue, 2+len(f)/8+1) {
		if ctx.Err() != nil || r.isOver() {
			return errors.New("no room")
		}
		time.Sleep(100 * time.Microsecond)
	}
	r.pushFrame(queue, f)
	for {
		_, f, err := r.answer(ctx)
		if err != nil {
			return fmt.Errorf("%v: %w", typ, err)
		}
		if head, body, err := splitFrame(f); err == nil && head.GetMsgId() == id {
			if reply == nil {
				return nil
			}
			return proto.Unmarshal(body, reply)
		}
	}
}

// send sends a frame on the socket.
func (r *rawNode) send(typ bhomev1.MsgType, body proto.Message, fds ...*shmio.FD) error {
	f, err := frame(&bhomev1.Head{Type: uint32(typ)}, body)
	if err != nil {
		return err
	}
	return r.conn.Send(f, fds...)
}

func (r *rawNode) isOver() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.over
}

// newBell makes a bell on which nobody sleeps and returns the end for whoever is to ring it.
func (r *rawNode) newBell() (*shmio.FD, error) {
	read, write, err := shmio.NewBell()
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	r.closers = append(r.closers, read, write)
	r.mu.Unlock()
	return write, nil
}

// alloc asks for a block of size bytes and returns its place; 0: refused.
func (r *rawNode) alloc(ctx context.Context, id uint32, size int64) (uint32, error) {
	w, err := wire.AllocRequest{ID: id, Proc: r.index, Class: uint8(wire.CalcAllocIndex(size))}.Encode()
	if err != nil {
		return 0, err
	}
	r.push(0, uint64(w))
	word, _, err := r.answer(ctx)
	if err != nil {
		return 0, err
	}
	m, err := wire.DecodeAllocReply(word)
	return m.Place, err
}

func frame(head *bhomev1.Head, body proto.Message) ([]byte, error) {
	h, err := proto.Marshal(head)
	if err != nil {
		return nil, err
	}
	var b []byte
	if body != nil {
		if b, err = proto.Marshal(body); err != nil {
			return nil, err
		}
	}
	return wire.AppendFrame(nil, h, b), nil
}

func splitFrame(b []byte) (*bhomev1.Head, []byte, error) {
	h, body, err := wire.SplitFrame(b)
	if err != nil {
		return nil, nil, err
	}
	head := &bhomev1.Head{}
	return head, body, proto.Unmarshal(h, head)
}

func closeFDs(fds []*shmio.FD) {
	for _, fd := range fds {
		_ = fd.Close() // nothing depends on how it ends
	}
}
