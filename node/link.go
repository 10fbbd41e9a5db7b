package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio"
	"github.com/bhome-bus/bhome/wire"
)

// The two queues up to the center.
const (
	upCenter = 0 // address 100: commands, registration, heartbeats, queries
	upBus    = 1 // address 101: subscriptions and routes
)

// link is one attachment to one center: the socket, the link segment and the six queues. It ends with the socket; the
// node then makes another.
type link struct {
	n       *Node
	conn    *shmio.Conn
	session uint64
	limits  *bhomev1.Limits
	resumed bool
	began   time.Time

	linkSeg, publicSeg *shmio.Segment
	space              *shmio.Space // the link segment, for the center's blocks
	bell               *shmio.Bell
	bellWatch          *shmio.Watch
	centerWatch        *shmio.Watch

	up        [2]upQueue
	down      *shmio.Inbox
	downR     [4]*shmio.Reader
	halves    []half
	initReply chan wire.NodeInitReply

	generation *atomic.Uint64 // the center's word; pairs with its store after a RouteOpen or RouteClose is queued
	adopted    atomic.Uint64  // what of it we have processed; pairs with current's load

	callMu sync.Mutex
	calls  map[string]chan callReply

	sendMu   sync.Mutex // one sender on the socket at a time
	progress *broadcast // fires after each socket frame

	ready     chan struct{} // closed when the center knows what this node publishes, subscribes to and serves
	dead      chan struct{} // closed at hang-up
	deadOnce  sync.Once
	died      atomic.Bool // the center has: what it said before is read; pairs with free
	closeOnce sync.Once
	cause     error
	downDone  chan struct{} // the down queues are drained
	readDone  chan struct{} // the socket is drained
}

// callReply is the answer to a frame: its type and body (a copy).
type callReply struct {
	typ  uint32
	body []byte
}

// upQueue is our writer half towards the center.
type upQueue struct {
	mu   sync.Mutex
	w    *shmio.Writer
	gate chan struct{} // held by the one that waits for room
}

// push puts something into an up queue, waiting for room.
func (lk *link) push(ctx context.Context, queue int, f func(w *shmio.Writer) shmio.Outcome) error {
	q := &lk.up[queue]
	try := func(arm bool) (bool, error) {
		q.mu.Lock()
		defer q.mu.Unlock()
		select {
		case <-lk.dead:
			return false, ErrDisconnected
		default:
		}
		if _, err := q.w.Reclaim(); err != nil {
			return false, fmt.Errorf("%w: %w", ErrRemote, err)
		}
		for {
			switch o := f(q.w); o {
			case shmio.Sent:
				q.w.Commit()
				return true, nil
			case shmio.Full:
				if !arm || q.w.ArmSpace() {
					return false, nil
				}
			default:
				return false, fmt.Errorf("%w: the link refused: %v", ErrInvalid, o)
			}
		}
	}
	if ok, err := try(false); ok || err != nil {
		return err
	}
	select {
	case q.gate <- struct{}{}:
		defer func() { <-q.gate }()
	case <-lk.dead:
		return ErrDisconnected
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	for {
		if ok, err := try(true); ok || err != nil {
			return err
		}
		select {
		case <-q.w.SpaceC():
		case <-lk.dead:
			return ErrDisconnected
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (lk *link) sendWord(ctx context.Context, queue int, word wire.Word) error {
	return lk.push(ctx, queue, func(w *shmio.Writer) shmio.Outcome { return w.PushCommand(word) })
}

// sendAlloc asks for blocks of an access group; the answer, a refusal too, is that of the word.
func (lk *link) sendAlloc(ctx context.Context, req wire.AllocRequest, access string) error {
	socket := wire.Socket(req.Socket)
	body, err := proto.Marshal(&bhomev1.Alloc{Id: req.ID, Class: uint32(req.Class), Log2: uint32(req.Log2), Socket: uint32(req.Socket), Access: access})
	if err != nil {
		return fmt.Errorf("ask for blocks of access group %q: %w", access, err)
	}
	frame, err := lk.n.frame(uint32(bhomev1.MsgType_MSG_TYPE_ALLOC), fmt.Sprint(allocPrefix, req.ID), lk.session+uint64(socket), 0, body)
	if err != nil {
		return err
	}
	return lk.sendFrame(ctx, upCenter, socket, frame)
}

// allocPrefix begins the id of the frame that says why blocks are refused; the request's id follows.
const allocPrefix = "alloc:"

// sendFrame sends a control frame: inline if it is small, in a block otherwise.
func (lk *link) sendFrame(ctx context.Context, queue int, socket wire.Socket, frame []byte) error {
	if len(frame) <= wire.MaxInline {
		in := wire.Inline{Len: len(frame), Kind: wire.KindControl}
		return lk.push(ctx, queue, func(w *shmio.Writer) shmio.Outcome { return w.PushInline(in, frame) })
	}
	if len(frame) > wire.MaxFrame {
		return fmt.Errorf("frame of %d bytes: %w: at most %d", len(frame), ErrTooLarge, wire.MaxFrame)
	}
	class := max(wire.CalcAllocIndex(int64(len(frame))), initBlockClass)
	b, err := lk.n.mag.get(ctx, lk.n.mag.open, uint8(class), socket)
	if err != nil {
		return err
	}
	return lk.sendInBlock(ctx, queue, socket, frame, b)
}

// sendInBlock sends a control frame in b, which has no references and is big enough; b goes back to the magazine.
func (lk *link) sendInBlock(ctx context.Context, queue int, socket wire.Socket, frame []byte, b *block) error {
	b.own(1)
	copy(b.mem[wire.HeaderSize:], frame)
	b.putHeader(&wire.Header{Size: uint32(len(frame)), ID: blockID(b), Stamp: shmio.CoarseNow(), Publisher: lk.n.publisherID(),
		Kind: wire.KindControl, Socket: uint8(socket)})
	err := lk.push(ctx, queue, func(w *shmio.Writer) shmio.Outcome { return w.Push(b.word, uint64(len(frame)), b) })
	if err != nil {
		b.unref(1)
	}
	return err
}

// blockID is b's place and generation, as its word has them.
func blockID(b *block) uint64 { return uint64(b.word) >> 4 }

// call asks the center and waits for its answer, whose body it returns.
func (lk *link) call(ctx context.Context, queue int, socket wire.Socket, typ bhomev1.MsgType, body proto.Message) (callReply, error) {
	raw, err := proto.Marshal(body)
	if err != nil {
		return callReply{}, fmt.Errorf("%v: %w", typ, err)
	}
	return lk.callRaw(ctx, queue, socket, uint32(typ), raw, nil)
}

// callRaw is call for a body that is bytes already. in is the block to send it in, nil for the frame's own choice.
func (lk *link) callRaw(ctx context.Context, queue int, socket wire.Socket, typ uint32, body []byte, in *block) (callReply, error) {
	id := lk.n.newMsgID()
	ch := make(chan callReply, 1)
	lk.callMu.Lock()
	lk.calls[id] = ch
	lk.callMu.Unlock()
	defer func() {
		lk.callMu.Lock()
		delete(lk.calls, id)
		lk.callMu.Unlock()
	}()
	frame, err := lk.n.frame(typ, id, lk.session+uint64(socket), 0, body)
	if err == nil && in != nil {
		err = lk.sendInBlock(ctx, queue, socket, frame, in)
	} else if err == nil {
		err = lk.sendFrame(ctx, queue, socket, frame)
	}
	if err != nil {
		return callReply{}, fmt.Errorf("ask the center (message type %d): %w", typ, err)
	}
	select {
	case r := <-ch:
		return r, nil
	case <-lk.dead:
		select {
		case r := <-ch: // it answered before it went
			return r, nil
		case <-lk.downDone:
		}
		select {
		case r := <-ch:
			return r, nil
		default:
		}
		return callReply{}, fmt.Errorf("ask the center (message type %d): %w", typ, ErrDisconnected)
	case <-ctx.Done():
		return callReply{}, fmt.Errorf("ask the center (message type %d): %w", typ, context.Cause(ctx))
	}
}

// settle waits until the center knows this node: what is ended before that may still be on its way there.
func (lk *link) settle(ctx context.Context) error {
	select {
	case <-lk.ready:
		return nil
	case <-lk.dead:
		return ErrDisconnected
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// callInto is call for an answer of a known type; subject names what an error is about.
func (lk *link) callInto(ctx context.Context, queue int, socket wire.Socket, typ bhomev1.MsgType, body proto.Message, reply interface {
	proto.Message
	GetErrmsg() *bhomev1.ErrorMsg
}, subject string) error {
	r, err := lk.call(ctx, queue, socket, typ, body)
	if err != nil {
		return err
	}
	err = r.into(reply, subject)
	if over := lk.n.Err(); err != nil && over != nil {
		return over // the center refuses those that have left
	}
	return err
}

// into parses an answer; a CommonReply with an error stands for any type.
func (r callReply) into(reply interface {
	proto.Message
	GetErrmsg() *bhomev1.ErrorMsg
}, subject string) error {
	if _, common := reply.(*bhomev1.CommonReply); !common && r.typ == uint32(bhomev1.MsgType_MSG_TYPE_COMMON_REPLY) {
		var c bhomev1.CommonReply
		if err := proto.Unmarshal(r.body, &c); err != nil {
			return fmt.Errorf("the center's answer: %w: %w", ErrRemote, err)
		}
		if err := fromErrorMsg(c.GetErrmsg(), subject); err != nil {
			return err
		}
		return fmt.Errorf("the center's answer: %w: a bare success where data was asked for", ErrRemote)
	}
	if err := proto.Unmarshal(r.body, reply); err != nil {
		return fmt.Errorf("the center's answer: %w: %w", ErrRemote, err)
	}
	return fromErrorMsg(reply.GetErrmsg(), subject)
}

// receive drains the down queues until the link is dead and they are empty.
func (lk *link) receive() {
	defer close(lk.downDone)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		select {
		case <-lk.dead:
			cancel()
		case <-stop:
		}
	}()
	var rec shmio.Record
	for {
		r, err := lk.down.Receive(ctx, &rec)
		if ctx.Err() != nil && (r == nil || err != nil) {
			// What came before the hang-up is still ours to hear.
			for {
				r, err := lk.down.TryReceive(&rec)
				if r == nil || err != nil {
					return
				}
				lk.onRecord(r, &rec)
			}
		}
		if err != nil {
			if !errors.Is(err, shmio.ErrInboxClosed) {
				lk.n.log.Error("the center's queue is not usable", "error", err)
				lk.hangUp(fmt.Errorf("%w: %w", ErrRemote, err))
				<-lk.dead
			}
			return
		}
		lk.onRecord(r, &rec)
	}
}

func (lk *link) onRecord(r *shmio.Reader, rec *shmio.Record) {
	switch {
	case !rec.Word.IsCommand():
		var blk shmio.Block
		if err := lk.space.Block(rec.Word, &blk); err != nil {
			lk.n.badWord("a block of the center", err)
		} else {
			lk.onFrame(append([]byte(nil), blk.Payload...))
		}
		r.ReturnRecord(rec)
	case rec.Word.Cmd() == wire.CmdInline:
		lk.onFrame(rec.Payload)
	case rec.Word.Cmd() == wire.CmdAllocReply0:
		reply, err := wire.DecodeAllocReply(rec.Word)
		if err != nil {
			lk.n.badWord("AllocReply0", err)
			return
		}
		lk.n.mag.onReply(reply)
	case rec.Word.Cmd() == wire.CmdNodeInitReply:
		reply, err := wire.DecodeNodeInitReply(rec.Word)
		if err != nil {
			lk.n.badWord("NodeInitReply", err)
			return
		}
		select {
		case lk.initReply <- reply:
		default:
		}
	case rec.Word.Cmd() == wire.CmdControl:
		c, err := wire.DecodeControl(rec.Word)
		if err != nil {
			lk.n.badWord("Control", err)
			return
		}
		if c.Op == wire.ControlTrim {
			lk.n.mag.trim(c.Arg)
		}
	default:
		lk.n.badWord("a command of the center", fmt.Errorf("%w: command %d", wire.ErrBadWord, rec.Word.Cmd()))
	}
}

func (lk *link) onFrame(frame []byte) {
	head, body, err := splitFrame(frame)
	if err != nil {
		lk.n.badWord("a frame of the center", err)
		return
	}
	id := head.GetMsgId()
	if after, ok := strings.CutPrefix(id, allocPrefix); ok {
		var c bhomev1.CommonReply
		var num uint32
		if _, err := fmt.Sscanf(after, "%d", &num); err != nil || proto.Unmarshal(body, &c) != nil {
			lk.n.badWord("a refusal of the center", fmt.Errorf("%w: id %q", wire.ErrBadFrame, id))
			return
		}
		reason := fromErrorMsg(c.GetErrmsg(), lk.n.Name())
		if reason == nil {
			reason = fmt.Errorf("%w: no reason given", ErrNoMemory)
		}
		lk.n.mag.onRefusal(num, reason)
		return
	}
	lk.callMu.Lock()
	ch := lk.calls[id]
	delete(lk.calls, id)
	lk.callMu.Unlock()
	if ch != nil {
		ch <- callReply{typ: head.GetType(), body: append([]byte(nil), body...)}
	}
}

// current reports whether all routes that the center has told of are adopted: one load of its word, one of ours.
func (lk *link) current() bool { return lk.adopted.Load() >= lk.generation.Load() }

// adopt waits until the socket's goroutine has caught up with the route generation as it was on entry.
func (lk *link) adopt(ctx context.Context) error {
	want := lk.generation.Load()
	for {
		c := lk.progress.C()
		if lk.adopted.Load() >= want {
			return nil
		}
		select {
		case <-c:
		case <-lk.readDone: // what it didn't tell it can't tell any more
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (lk *link) hangUp(cause error) {
	lk.deadOnce.Do(func() {
		lk.cause = cause
		close(lk.dead)
	})
	lk.conn.Close()
}

// centerDied is hangUp when the center's process is dead. What it said before is still on the socket.
func (lk *link) centerDied() {
	lk.died.Store(true)
	lk.deadOnce.Do(func() {
		lk.cause = fmt.Errorf("%w: the center has died", ErrDisconnected)
		close(lk.dead)
	})
	if err := lk.conn.SetReceiveDeadline(time.Now().Add(socketTimeout)); err != nil { // another may have the socket, too
		lk.conn.Close()
	}
}

// close frees, once, what the link holds, when its goroutines have ended.
func (lk *link) close() { lk.closeOnce.Do(lk.free) }

func (lk *link) free() {
	if !lk.died.Load() {
		lk.hangUp(ErrClosed)
	}
	<-lk.readDone
	<-lk.downDone
	lk.conn.Close()
	lk.down.Close()
	for _, w := range []*shmio.Watch{lk.bellWatch, lk.centerWatch} {
		if w != nil {
			w.Close()
		}
	}
	for i := range lk.up {
		q := &lk.up[i]
		q.mu.Lock()
		q.w.ReclaimAll()
		q.w.Close()
		q.mu.Unlock()
	}
	if lk.bell != nil {
		lk.bell.Close()
	}
	for _, h := range lk.halves {
		lk.n.mem.freeLink(h)
	}
	lk.publicSeg.Close()
	// A publisher may be comparing route generations just now: the link segment stays mapped as long as the node.
	lk.n.mu.Lock()
	lk.n.oldLinks = append(lk.n.oldLinks, lk.linkSeg)
	lk.n.mu.Unlock()
}
