package shmio

import (
	"fmt"
	"sync/atomic"
)

// Writer is the sender's end of a route: it owns the writer half and believes nothing that the reader half says. What
// a hostile reader stores there can spoil this route and nothing else.
//
// It is not concurrent: its owner locks. WakeSpace, SpaceC and SetAlarm alone may be used by anybody.
//
// All cursors are compared by their difference, so that they may wrap.
type Writer struct {
	spec   RouteSpec
	half   *writerHalf
	ring   []uint64
	bytes  []byte // the ring as bytes
	peer   *readerHalf
	rets   []uint64
	bell   Ringer
	err    error
	ended  bool
	unrung bool // tail was stored since armed was looked at

	recordLimit uint64 // slots of the longest record

	tail      uint64  // next slot to write
	published uint64  // what the shared tail says
	oldest    uint64  // the oldest message that is neither read nor dropped as far as known; tail if there is none
	unread    uint32  // messages in [oldest, tail),
	lengths   lengths // and how many slots each takes
	free      uint64  // slots before it may be written again; tail - free are in use
	head      uint64  // as last read from the peer
	dropTo    uint64
	pinned    bool   // a dropped message may be under the reader's hand:
	pin       uint64 // its slots are in use until head has passed it

	out     outTable
	takes   func([]Held) // gets what comes back, instead of Held.Returned of each
	back    []Held       // for takes
	limbo   limbo
	retHead uint64

	need      need
	space     chan struct{}
	alarm     atomic.Pointer[func()] // pairs with WakeSpace: it fills space, then loads this
	spaceSeen atomic.Uint64          // last epoch of wantsSpace; pairs with SpaceWanted
	rungFor   uint64                 // last epoch of armed that was rung for

	sent, dropped, badReturns uint64
	gained                    uint32 // messages that the last look for room made room for
	sentSaid, droppedSaid     uint64 // as last stored in the half
	bytesSaid, badSaid        uint64

	step func(point string) // tests stop here
}

// need is what the last message that found the route full would have wanted.
type need struct {
	slots uint64
	block bool
	size  uint64
}

// NewWriter lays out a writer half in mem and makes its writer; the half exists for others from then on. mem must hold
// spec.WriterSize bytes, which are zero from the ring on (those aren't touched, so that a ring that is never used takes no
// memory); the Writer uses them until the owner unmaps them, after Close.
func NewWriter(mem []byte, spec RouteSpec) (*Writer, error) {
	if err := spec.Validate(); err != nil {
		return nil, fmt.Errorf("making a writer: %w", err)
	}
	if err := checkHalf("writer", mem, spec.WriterSize()); err != nil {
		return nil, fmt.Errorf("making a writer: %w", err)
	}
	mem = mem[:spec.WriterSize()]
	h := view[writerHalf](mem, 0)
	h.routeID.Store(0)
	clear(mem[8:ringOffset])
	h.slots, h.depth, h.out, h.policy = spec.Slots, spec.Depth, spec.Out, uint32(spec.Policy)
	h.tableSlots, h.ringOffset, h.tableOffset = spec.twiceOut(), ringOffset, spec.tableOffset()
	h.first = spec.First
	h.tail.Store(spec.First)
	h.dropTo.Store(spec.First)
	ringEnd := spec.tableOffset()
	w := &Writer{
		spec: spec, half: h, recordLimit: spec.recordLimit(),
		ring:  words(mem, ringOffset, uint64(spec.Slots)),
		bytes: mem[ringOffset:ringEnd:ringEnd],
		out:   newOutTable(words(mem, uint64(ringEnd), 2*uint64(spec.twiceOut()))),
		space: make(chan struct{}, 1),
		tail:  spec.First, published: spec.First, oldest: spec.First, free: spec.First, head: spec.First, dropTo: spec.First,
	}
	w.limbo.low = spec.First
	h.routeID.Store(spec.ID) // last: the half exists
	return w, nil
}

// Join takes the peer's reader half, mapped read-only, and its bell (nil: it needs none). From then on the reader may
// read, and what it claims is honoured.
func (w *Writer) Join(reader []byte, bell Ringer) error {
	if w.ended && (w.half.over.Load() != w.spec.ID || w.half.routeID.Load() != w.spec.ID) {
		return fmt.Errorf("joining route %#x: %w", w.spec.ID, errEnded) // after End what was sent is still to be read
	}
	if w.peer != nil {
		return fmt.Errorf("joining route %#x: %w: joined already", w.spec.ID, ErrRouteSpec)
	}
	if err := checkHalf("reader", reader, w.spec.ReaderSize()); err != nil {
		return fmt.Errorf("joining route %#x: %w", w.spec.ID, err)
	}
	p := view[readerHalf](reader, 0)
	if id := p.routeID.Load(); id != w.spec.ID {
		return fmt.Errorf("joining route %#x: %w: reader half has id %#x", w.spec.ID, ErrCorruptRoute, id)
	}
	if n, off := atomic.LoadUint32(&p.returnSlots), atomic.LoadUint32(&p.returnOffset); n != w.spec.twiceOut() || off != returnOffset {
		return fmt.Errorf("joining route %#x: %w: returnSlots %d at %d, want %d at %d",
			w.spec.ID, ErrCorruptRoute, n, off, w.spec.twiceOut(), returnOffset)
	}
	w.peer = p
	w.rets = words(reader, returnOffset, uint64(w.spec.twiceOut()))
	w.bell = bell
	w.half.joined.Store(w.spec.ID) // pairs with Reader.ready and Reader.Arm
	w.unrung = true
	w.Commit() // a reader that armed itself before it was joined waits for this
	return nil
}

// TakeReturns has blocks that come back by one look at the reader given to take together, at most 64 at a time, instead of telling
// each. take is called as Held.Returned is, and must not keep the slice. Call it before the first Push.
func (w *Writer) TakeReturns(take func([]Held)) { w.takes = take }

// Spec returns what the route was made of.
func (w *Writer) Spec() RouteSpec { return w.spec }

// Joined tells whether the reader half is known.
func (w *Writer) Joined() bool { return w.peer != nil }

// Err tells why the route is Ended: nil after Close or ReclaimAll, or when the reader has let go of its half, else an error that wraps ErrCorruptRoute.
func (w *Writer) Err() error { return w.err }

// Unread is how many messages wait to be read (staged ones too), as the reader says.
func (w *Writer) Unread() int { w.refresh(); return int(w.unread) }

// Out is how many blocks are unreturned.
func (w *Writer) Out() int { return w.out.n }

// OutBytes is how many payload bytes the unreturned blocks hold.
func (w *Writer) OutBytes() uint64 { return w.out.bytes }

// CountDrop counts a message that was not pushed because nobody waited for room, so that the reader sees it.
func (w *Writer) CountDrop() {
	w.dropped++
	w.saveStats()
}

// Dropped is how many messages the policy dropped at this end.
func (w *Writer) Dropped() uint64 { return w.dropped }

// Sent is how many messages were pushed.
func (w *Writer) Sent() uint64 { return w.sent }

// BadReturns is how many returns named what wasn't out.
func (w *Writer) BadReturns() uint64 { return w.badReturns }

// End ends sending: what is staged is published, and then the reader told that this was all. The half stays, as the
// reader reads it to the end.
func (w *Writer) End() {
	if !w.ended {
		w.Commit()
		w.saveStats()
		w.ended = true
	}
	w.half.over.Store(w.spec.ID) // pairs with Reader.WriterOver
	w.WakeSpace()
}

// ReaderLeft reports whether the reader looks at this half no more: only then may its memory be used for anything else,
// unless the reader's process is dead. What it returned before is there to be reclaimed, unless it has let go of its half
// already. False before Join.
func (w *Writer) ReaderLeft() bool {
	return w.peer != nil && (w.peer.left.Load() == w.spec.ID || w.peer.routeID.Load() != w.spec.ID) // pairs with Reader.Leave and Close
}

// readerClosed is asked after a cursor of the reader's was loaded: if the reader has let go of its half, it is another route's.
// Then nothing of it is held or read any more, and the route is Ended.
func (w *Writer) readerClosed() bool {
	if w.peer.routeID.Load() == w.spec.ID { // pairs with Reader.Close, which comes before the cursors are another's
		return false
	}
	w.ended = true
	return true
}

// Close ends the route at this end: the half stops to exist. What is out stays out, until Reclaim or ReclaimAll.
func (w *Writer) Close() {
	if !w.ended {
		w.publish()
		w.saveStats()
	}
	w.ended = true
	w.half.routeID.Store(0)
	w.WakeSpace()
}

func (w *Writer) fail(format string, args ...any) {
	if w.err == nil {
		w.err = fmt.Errorf("route %#x: %w: %s", w.spec.ID, ErrCorruptRoute, fmt.Sprintf(format, args...))
	}
	w.ended = true
	w.saveStats()
}

func (w *Writer) at(point string) {
	if w.step != nil {
		w.step(point)
	}
}
