package shmio

import (
	"math"

	"github.com/bhome-bus/bhome/wire"
)

// Outgoing is a block to be pushed: Push's arguments.
type Outgoing struct {
	Held Held
	Word wire.Word
	Size uint64
}

// PushBlocks stages the first of ms for which there is room as far as known, and returns how many those are. What became of the next,
// Push tells.
func (w *Writer) PushBlocks(ms []Outgoing) int {
	if w.ended || w.spec.Quota != 0 && w.out.bytes > w.spec.Quota {
		return 0
	}
	room := min(uint64(w.spec.Depth-w.unread), w.free+uint64(w.spec.Slots)-w.tail, uint64(int(w.spec.Out)-w.out.n))
	bytes := uint64(math.MaxUint64)
	if w.spec.Quota != 0 {
		bytes = w.spec.Quota - w.out.bytes
	}
	n := w.out.putRun(w.tail, ms[:min(uint64(len(ms)), room)], bytes)
	if n == 0 {
		return 0
	}
	ring, mask := w.ring, uint64(len(w.ring)-1)
	for i := range ms[:n] {
		ring[(w.tail+uint64(i))&mask] = uint64(ms[i].Word)
	}
	w.tail += uint64(n)
	w.unread += uint32(n)
	w.lengths.add(1, uint32(n))
	w.sent += uint64(n)
	return n
}

// PushRun stages the first of ms, messages that lie in one block, whose word is block, for which there is room; n is how many those are, and
// if it is 0, o is what became of the first. They come back together: h is told once. Whatever part is staged counts as size bytes that
// are out. Of ms only Word is looked at, which says wire.Word.More. Where the oldest is dropped, a run is one message.
func (w *Writer) PushRun(ms []Outgoing, block wire.Word, size uint64, h Held) (n int, o Outcome) {
	if w.ended {
		return 0, Ended
	}
	if w.roomForRun(size) < len(ms) {
		w.look()
	}
	if n = min(len(ms), w.roomForRun(size)); n == 0 || w.ended {
		if o = w.byPolicy(need{slots: 1, block: true, size: size}); o != Sent {
			return 0, o
		}
		n = 1
	}
	last := w.tail + uint64(n-1)
	w.out.put(last, uint64(block), size, h)
	mask := uint64(len(w.ring) - 1)
	for i := range ms[:n] {
		w.ring[(w.tail+uint64(i))&mask] = uint64(ms[i].Word)
	}
	w.ring[last&mask] = uint64(ms[n-1].Word.Alone())
	w.tail = last + 1
	w.unread += uint32(n)
	w.lengths.add(1, uint32(n))
	w.sent += uint64(n)
	return n, Sent
}

// roomForRun is how many messages of one block of size bytes there is room for, as far as known.
func (w *Writer) roomForRun(size uint64) int {
	if !w.blockFits(size, 0, 0) {
		return 0
	}
	room := int(min(uint64(w.spec.Depth-w.unread), w.free+uint64(w.spec.Slots)-w.tail))
	if w.spec.Policy == DropOldest {
		room = min(room, 1)
	}
	return room
}

// PushInlineBatch stages payloads as PushInline does, in order, the first with the head in, the others with the sequence
// numbers that follow. It returns how many it is done with, those that the policy dropped among them; all, or what keeps
// the next one from going.
func (w *Writer) PushInlineBatch(in wire.Inline, payloads [][]byte) (n int, o Outcome) {
	first := in.Seq
	for {
		if n += w.pushPlain(&in, payloads[n:]); n == len(payloads) {
			return n, Sent
		}
		in.Seq = first + uint32(n)
		if o = w.pushInline(&in, payloads[n]); o != Sent && o != DroppedNewest {
			return n, o
		}
		n++
		in.Seq++
	}
}

// pushPlain stages the first of payloads that fit as far as known, each in one piece, behind heads of two words, and returns how many
// those are.
func (w *Writer) pushPlain(in *wire.Inline, payloads [][]byte) (n int) {
	if w.ended || in.HasCorr || in.HasTrace {
		return 0
	}
	head := wire.NewInlineHead(in.Kind, in.Topic, 0, in.Stamp)
	for n < len(payloads) {
		size := len(payloads[n])
		slots := 2 + uint64(size+7)/8
		if slots > w.recordLimit {
			break
		}
		at := w.tail & uint64(len(w.ring)-1)
		room := min(uint64(len(w.ring))-at, w.free+uint64(w.spec.Slots)-w.tail) / slots
		some := payloads[n:min(len(payloads), n+int(min(room, uint64(w.spec.Depth-w.unread))))]
		k := w.putRun(at, head.At(size, in.Seq+uint32(n)), slots, some)
		if k == 0 {
			break
		}
		w.tail += uint64(k) * slots
		w.unread += uint32(k)
		w.lengths.add(uint32(slots), uint32(k))
		n += k
	}
	w.sent += uint64(n)
	return n
}

// putRun writes the first of payloads that are as long as h says one after the other into the ring from place at on, where there is
// room for all at so many slots each; it returns how many those are. The first has the head h, the others the sequence numbers that follow.
func (w *Writer) putRun(at uint64, h wire.InlineHead, slots uint64, payloads [][]byte) int {
	ring, bytes, size := w.ring, w.bytes, h.Len()
	for n, payload := range payloads {
		if len(payload) != size {
			return n
		}
		ring[at+slots-1] = 0 // no stale bytes behind the payload
		ring[at], ring[at+1] = uint64(h.First), h.Meta
		copy(bytes[(at+2)*8:], payload)
		h = h.At(0, h.Seq()+1)
		at += slots
	}
	return len(payloads)
}
