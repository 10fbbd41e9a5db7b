package actors

import (
	"fmt"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio"
	"github.com/bhome-bus/bhome/shmio/pump"
	"github.com/bhome-bus/bhome/wire"
)

// The link segment: header, route generation, four writer halves, two reader halves, and blocks for the center's frames.
const (
	linkSize   = 1 << 20
	linkBlocks = 128 << 10 // where the blocks begin

	linkHalvesAt = 2048 + 128 // behind the route generation, on the segment's first page
	upQueues     = 2
)

// upQueue is the number of an up queue in its route id.
func upQueue(i int) int { return shmio.FirstUpQueue + i }

// halfOffset is where half i begins: the down queues' writer halves, then the up queues' reader halves. They lie side by side, the
// reader halves first: each page that they take is one more that an idle node costs.
func halfOffset(i int) uint64 {
	reader := shmio.LinkSpec(upQueue(0)).ReaderSize()
	if i >= wire.SocketCount {
		return linkHalvesAt + uint64(i-wire.SocketCount)*reader
	}
	return linkHalvesAt + upQueues*reader + uint64(i)*shmio.LinkSpec(0).WriterSize()
}

func linkHalves() (down, up []*bhomev1.Half) {
	for q := range wire.SocketCount {
		down = append(down, &bhomev1.Half{Offset: halfOffset(q)})
	}
	for i := range upQueues {
		up = append(up, &bhomev1.Half{Offset: halfOffset(wire.SocketCount + i)})
	}
	return down, up
}

// downQueue is a writer half towards the node, and what waits for room in it.
type downQueue struct {
	w       *shmio.Writer
	pending []pendingDown
}

// pendingDown is a word, or a frame, that waits.
type pendingDown struct {
	word    wire.Word
	frame   []byte
	expires int64
}

// linkBlock is a block of the link segment, until its node has returned it.
type linkBlock struct {
	arena *shmio.Arena
	off   uint64
	size  uint64
}

// Returned implements shmio.Held; it runs within the session's own calls of its writers.
func (b *linkBlock) Returned(uint64) { b.arena.Free(b.off, b.size) }

// layOut makes the center's six halves.
func (s *session) layOut() error {
	s.arena = shmio.NewArena(linkBlocks, linkSize, 64)
	for q := range s.down {
		spec := shmio.LinkSpec(q)
		mem, err := s.link.Memory(halfOffset(q), spec.WriterSize())
		if err != nil {
			return err
		}
		if s.down[q].w, err = shmio.NewWriter(mem, spec); err != nil {
			return err
		}
	}
	for i := range s.up {
		spec := shmio.LinkSpec(upQueue(i))
		mem, err := s.link.Memory(halfOffset(wire.SocketCount+i), spec.ReaderSize())
		if err != nil {
			return err
		}
		if s.up[i], err = shmio.NewReader(mem, spec); err != nil {
			return err
		}
	}
	s.link.Publish(shmio.StateLaidOut)
	return nil
}

// joinLink maps the node's six halves, where its Hello says that they are.
func (s *session) joinLink() error {
	a := s.adm
	ringer := shmio.LinkRinger(a.bell)
	half := func(h *bhomev1.Half, size uint64) ([]byte, error) {
		if h.GetSegment() != 0 || h.GetOffset()%128 != 0 || h.GetOffset() < shmio.FirstBlock {
			return nil, fmt.Errorf("%w: half at offset %d of segment %d", wire.ErrBadFrame, h.GetOffset(), h.GetSegment())
		}
		return a.seg0.Memory(h.GetOffset(), size)
	}
	for q := range s.down {
		mem, err := half(a.hello.GetDown()[q], shmio.LinkSpec(q).ReaderSize())
		if err == nil {
			err = s.down[q].w.Join(mem, ringer)
		}
		if err != nil {
			return fmt.Errorf("down queue %d: %w", q, err)
		}
	}
	for i := range s.up {
		mem, err := half(a.hello.GetUp()[i], shmio.LinkSpec(upQueue(i)).WriterSize())
		if err == nil {
			err = s.up[i].Join(mem, ringer)
		}
		if err != nil {
			return fmt.Errorf("up queue %d: %w", i, err)
		}
	}
	return nil
}

// onBatch takes what the pump has drained.
func (s *session) onBatch(c actor.Context, b *pump.Batch) {
	if s.severed || s.state == stateGone {
		s.held = append(s.held, b) // the pump gets no more credit
		return
	}
	s.heard = monotonic()
	if s.offline && s.state == stateOnline {
		s.onTick(c, s.heard)
	}
	s.deferred = append(s.deferred, deferredBatch{b, 0})
	if len(s.deferred) == 1 {
		s.work(c)
	}
}

// deferredBatch is a batch of which the items from next on are still to be handled.
type deferredBatch struct {
	b    *pump.Batch
	next int
}

// work handles what the pump has drained, in order, up to a frame that has to wait.
func (s *session) work(c actor.Context) {
	for len(s.deferred) > 0 {
		d := &s.deferred[0]
		for ; d.next < len(d.b.Items); d.next++ {
			it := &d.b.Items[d.next]
			if it.Frame == nil {
				s.onWord(c, int(it.Queue), it.Word)
			} else if !s.onFrame(c, int(it.Queue), it.Frame) {
				s.sendChunk(c)
				return
			}
			if s.cfg.hooks.onQueue != nil {
				s.cfg.hooks.onQueue("up", int(it.Queue))
			}
		}
		s.held = append(s.held, d.b)
		s.deferred[0] = deferredBatch{}
		s.deferred = s.deferred[1:]
		s.waitingSince = 0
	}
	s.sendChunk(c)
	if s.faults > maxFaults {
		s.cut(c, fmt.Errorf("it has made %d faults", s.faults))
	}
	s.giveCredit()
}

// mustWait tells whether a frame that ends routes has to wait: for the node's word, which comes over the socket, where
// its halves of them are. What it has sent on a route is read by a peer that knows the half, however soon it ends. An
// honest node has said it already, so nobody waits for long; one that doesn't say it is waited for a moment.
func (s *session) mustWait() bool {
	untold := false
	for end, r := range s.routes {
		if end.role == bhomev1.Role_ROLE_WRITER && r.half == nil && r.peer != nil && !r.closing {
			untold = true
			break
		}
	}
	if !untold {
		return false
	}
	now := monotonic()
	if s.waitingSince == 0 {
		s.waitingSince = now
	}
	return now-s.waitingSince < int64(waitForHalves)
}

// waitForHalves bounds mustWait.
const waitForHalves = 2 * time.Second

// goOn handles what waited, if it need not any more.
func (s *session) goOn(c actor.Context) {
	if len(s.deferred) > 0 && !s.severed && s.state != stateGone {
		s.work(c)
	}
}

// waitsForUs reports whether it is the center that keeps the node waiting.
func (s *session) waitsForUs() bool { return s.chunksOut >= maxChunks || s.asked >= maxAsked }

// giveCredit lets the pump go on unless answers pile up: then the node's own queue fills, and it has to wait.
func (s *session) giveCredit() {
	if s.severed || s.waitsForUs() || s.pendingCount() > maxPending {
		return
	}
	for _, b := range s.held {
		b.Done()
	}
	s.held = s.held[:0]
}

// onWord takes one command word.
func (s *session) onWord(c actor.Context, queue int, w wire.Word) {
	if queue != 0 {
		s.fault("word on the bus's queue", fmt.Errorf("%w: %#x", wire.ErrBadWord, uint64(w)))
		return
	}
	switch w.Cmd() {
	case wire.CmdNodeInit:
		m, err := wire.DecodeNodeInit(w)
		if err == nil && m.Session != s.id.Session {
			err = fmt.Errorf("it claims session %d", m.Session)
		}
		if err != nil {
			s.fault("NodeInit", err)
			return
		}
		if s.state != stateWelcomed {
			return // a known session is ignored
		}
		if s.adm.hello.GetResume() != 0 && !s.reported {
			s.initWaits = true // the socket brings what the node holds, and must be heard out first
			return
		}
		s.state = stateInited
		s.op(msgOp{init: true})
	case wire.CmdAllocRequest0, wire.CmdAllocBatch:
		req, err := wire.DecodeAllocRequest(w)
		if err == nil && (int(req.Proc) != s.id.ProcIndex || s.state < stateNamed) {
			err = fmt.Errorf("proc index %d is not the link's (%d)", req.Proc, s.id.ProcIndex)
		}
		if err == nil && req.Socket >= wire.SocketCount {
			err = fmt.Errorf("socket index %d", req.Socket)
		}
		if err != nil {
			s.fault("AllocRequest0", err)
			return
		}
		s.op(msgOp{req: req})
	case wire.CmdFree:
		f, err := wire.DecodeFree(w)
		if err != nil {
			s.fault("Free", err)
			return
		}
		s.op(msgOp{free: true, grant: f.Grant})
	default:
		s.fault("word", fmt.Errorf("%w: command %v", wire.ErrBadWord, w.Cmd()))
	}
}

// op puts one operation into the current chunk.
func (s *session) op(o msgOp) {
	if s.current == nil {
		if n := len(s.chunks); n > 0 {
			s.current, s.chunks = s.chunks[n-1], s.chunks[:n-1]
		} else {
			s.current = &chunk{session: s.id.Session}
		}
	}
	s.current.ops = append(s.current.ops, o)
}

func (s *session) sendChunk(c actor.Context) {
	if s.current == nil {
		return
	}
	k := s.current
	s.current = nil
	k.from = c.Self()
	s.chunksOut++
	c.Send(s.roles.msgs, k)
}

// onChunk takes MsgRecords' answers to one.
func (s *session) onChunk(_ actor.Context, k *chunk) {
	s.answer(k.replies, k.refusals)
	clear(k.refusals)
	k.replies, k.refusals = k.replies[:0], k.refusals[:0]
	s.chunksOut--
	s.chunks = append(s.chunks, k)
	s.giveCredit()
}
