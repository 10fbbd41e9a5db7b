package actors

import (
	"fmt"
	"time"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio"
	"github.com/bhome-bus/bhome/wire"
)

// answer sends words and the reasons of refusals down, and commits once per queue.
func (s *session) answer(replies []socketWord, refusals []refusal) {
	for _, r := range replies {
		s.pushWord(r.socket, r.word)
	}
	for q := range s.down {
		s.down[q].w.Commit()
	}
	for _, r := range refusals {
		s.sendFrame(asker{msgID: fmt.Sprintf("alloc:%d", r.id), socket: r.socket}, bhomev1.MsgType_MSG_TYPE_COMMON_REPLY, &bhomev1.CommonReply{Errmsg: r.err})
	}
	s.awaitSpace()
}

func (s *session) sendWord(socket wire.Socket, w wire.Word) {
	s.pushWord(socket, w)
	s.down[socket].w.Commit()
	s.awaitSpace()
}

// pushWord stages a word, or keeps it until there is room.
func (s *session) pushWord(socket wire.Socket, w wire.Word) {
	if s.cfg.hooks.onQueue != nil {
		s.cfg.hooks.onQueue("down", int(socket))
	}
	q := &s.down[socket]
	if len(q.pending) == 0 && q.w.PushCommand(w) == shmio.Sent {
		return
	}
	q.pending = append(q.pending, pendingDown{word: w, expires: monotonic() + int64(pendingFor)})
}

// sendFrame sends a frame down: inline, in a block of the link segment, or later.
func (s *session) sendFrame(to asker, typ bhomev1.MsgType, body any) {
	if s.state == stateGone {
		return
	}
	if s.cfg.hooks.onQueue != nil {
		s.cfg.hooks.onQueue("down", int(to.socket))
	}
	b, err := encodeAny(&bhomev1.Head{Type: uint32(typ), MsgId: to.msgID, SsnId: s.id.Session}, body)
	if err != nil {
		b, err = encodeFrame(&bhomev1.Head{Type: uint32(bhomev1.MsgType_MSG_TYPE_COMMON_REPLY), MsgId: to.msgID, SsnId: s.id.Session},
			&bhomev1.CommonReply{Errmsg: errorMsg(bhomev1.ErrorCode_ERROR_CODE_TOO_LARGE, "the answer can't be sent: %v", err)})
		if err != nil {
			s.log.Error("an answer can't be encoded", "type", typ, "error", err)
			return
		}
	}
	q := &s.down[to.socket]
	if len(q.pending) > 0 || !s.pushFrame(q, b) {
		q.pending = append(q.pending, pendingDown{frame: b, expires: monotonic() + int64(pendingFor)})
	}
	q.w.Commit()
	s.awaitSpace()
}

func (s *session) pushFrame(q *downQueue, b []byte) bool {
	if len(b) <= wire.MaxInline {
		return q.w.PushInline(wire.Inline{Len: len(b), Kind: wire.KindControl}, b) == shmio.Sent
	}
	if _, err := q.w.Reclaim(); err != nil {
		return false // the route is corrupt: the node's own doing, and its link is cut by what it does next
	}
	size := uint64(wire.HeaderSize + len(b))
	off, ok := s.arena.Alloc(size)
	if !ok {
		return false
	}
	mem, err := s.link.Memory(off, size)
	if err == nil {
		h := wire.Header{Tag: wire.BlockTag, Size: uint32(len(b)), ID: off / placeBytes, Stamp: shmio.CoarseNow(), Kind: wire.KindControl}
		err = h.Put(mem)
	}
	var w wire.Word
	if err == nil {
		copy(mem[wire.HeaderSize:], b)
		w, err = wire.Message(uint32(off/placeBytes), 0)
	}
	if err != nil || q.w.Push(w, uint64(len(b)), &linkBlock{s.arena, off, size}) != shmio.Sent {
		s.arena.Free(off, size)
		return false
	}
	return true
}

func (s *session) pendingCount() (n int) {
	for q := range s.down {
		n += len(s.down[q].pending)
	}
	return n
}

// awaitSpace asks to be woken when the node makes room for what waits.
func (s *session) awaitSpace() {
	for q := range s.down {
		if len(s.down[q].pending) > 0 {
			s.bell.wantSpace.Store(true)
			if !s.down[q].w.ArmSpace() {
				s.flush() // which arms again what still waits
				return
			}
		}
	}
}

// flush sends what waited and now has room.
func (s *session) flush() {
	for q := range s.down {
		d := &s.down[q]
		for len(d.pending) > 0 {
			if _, err := d.w.Reclaim(); err != nil {
				break
			}
			n := s.pushPending(d)
			if len(d.pending) == 0 {
				d.w.DisarmSpace()
				break
			}
			s.bell.wantSpace.Store(true)
			// Room made since is ours to use: nobody rings for it. A frame may wait for room in the arena instead, which the
			// tick looks after.
			if d.w.ArmSpace() || n == 0 {
				break
			}
		}
	}
	s.giveCredit()
}

// pushPending sends what it can of what waits, and says how much that was.
func (s *session) pushPending(d *downQueue) (n int) {
	for ; n < len(d.pending); n++ {
		p := &d.pending[n]
		if p.frame != nil && !s.pushFrame(d, p.frame) || p.frame == nil && d.w.PushCommand(p.word) != shmio.Sent {
			break
		}
	}
	d.w.Commit()
	if d.pending = d.pending[n:]; len(d.pending) == 0 {
		d.pending = nil
	}
	return n
}

// expirePending gives up what waited too long; a grant that nobody can be told of goes back.
func (s *session) expirePending(now int64) {
	for q := range s.down {
		d := &s.down[q]
		i := 0
		for ; i < len(d.pending) && d.pending[i].expires < now; i++ {
			if p := d.pending[i]; p.frame == nil {
				if r, err := wire.DecodeAllocReply(p.word); err == nil && r.Place != 0 {
					s.op(msgOp{free: true, grant: wire.NewGrant(r.ID, r.Place)})
				}
			}
		}
		if i > 0 {
			s.log.Warn("answers expired: the node doesn't read its queue", s.who("queue", q, "count", i, "after", pendingFor.Round(time.Second))...)
			d.pending = append([]pendingDown(nil), d.pending[i:]...)
		}
	}
}
