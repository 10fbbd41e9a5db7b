package shmio

import (
	"sync/atomic"

	"github.com/bhome-bus/bhome/wire"
)

// writer is the peer's half, nil before Join.
func (r *Reader) writer() *writerHalf {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.peer
}

// Dropped is how many messages the writer says to have dropped by policy.
func (r *Reader) Dropped() uint64 {
	p := r.writer()
	if p == nil {
		return 0
	}
	return atomic.LoadUint64(&p.dropped)
}

// WriterOver reports whether the writer has said that it sends no more: what Unread tells after that is all there will
// be. False before Join.
func (r *Reader) WriterOver() bool {
	p := r.writer()
	return p != nil && (p.over.Load() == r.id || p.routeID.Load() != r.id) // pairs with Writer.End and Writer.Close
}

// Settled reports whether the writer has taken all returns: what Dropped tells after that includes what the reader has found
// dropped.
func (r *Reader) Settled() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.peer == nil || r.dead.Load() || len(r.backlog) == 0 && r.peer.returnedHd.Load() == r.retTail // pairs with Writer.Reclaim
}

// WriterClosed reports whether the writer has let go of its half: it sends no more, and reads no more returns. False
// before Join.
func (r *Reader) WriterClosed() bool {
	p := r.writer()
	return p != nil && p.routeID.Load() != r.id // pairs with Writer.Close
}

// PeerKnown reports whether Join has been called.
func (r *Reader) PeerKnown() bool { return r.writer() != nil }

// UnreadMessages counts the messages that wait, by walking the ring: for inspection, not for the way of a message. While
// the ends are at work it may be off by what moves.
func (r *Reader) UnreadMessages() (n uint64) {
	slots := r.Unread()
	r.mu.Lock()
	ring := r.ring
	r.mu.Unlock()
	p := r.writer()
	if p == nil {
		return 0
	}
	return countRecords(ring, p.tail.Load()-slots, slots)
}

// CountUnread counts the messages in a writer half from the reader's head on, for inspection by a third process: v is
// what ScanOut made of it. Both ends' words are hostile: the count is at most the ring's slots.
func CountUnread(writer []byte, v WriterView, head uint64) uint64 {
	if ahead(v.DropTo, head) {
		head = v.DropTo
	}
	slots := v.Tail - head
	if slots > uint64(v.Slots) {
		return 0
	}
	return countRecords(words(writer, ringOffset, uint64(v.Slots)), head, slots)
}

// countRecords counts the messages in so many slots from cursor c on.
func countRecords(ring []uint64, c, slots uint64) (n uint64) {
	for ; slots > 0; n++ {
		took := uint64(1)
		if k, ok := wire.Word(atomic.LoadUint64(&ring[c&uint64(len(ring)-1)])).InlineSlots(); ok {
			took = k
		}
		took = min(took, slots)
		slots -= took
		c += took
	}
	return n
}
