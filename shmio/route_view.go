package shmio

import (
	"fmt"
	"sync/atomic"

	"github.com/bhome-bus/bhome/wire"
)

// WriterView is what a writer half shows to anybody who maps it: its owner's word.
type WriterView struct {
	ID                      uint64
	Slots, Depth, Out       uint32
	Policy                  Policy
	First, Tail, DropTo     uint64 // cursors
	Joined                  bool   // the writer reads the reader half
	WantsSpace              bool   // the writer sleeps until there is room
	ReturnedHead            uint64
	Sent, Dropped, BytesOut uint64
	BadReturns              uint64
}

// ReaderView is what a reader half shows to anybody who maps it: its owner's word.
type ReaderView struct {
	ID           uint64
	Head, Claim  uint64 // cursors
	Armed        bool   // the reader sleeps
	ReturnedTail uint64
}

// ScanOut reads a writer half and calls f (unless nil) for each block that it shows to be out. Its owner may be at work
// meanwhile: what moves may then be missed or shown twice. The error wraps ErrCorruptRoute when there is no half, or
// one that can't be.
func ScanOut(writer []byte, f func(seq uint64, word wire.Word)) (WriterView, error) {
	var v WriterView
	if err := checkHalf("writer", writer, ringOffset); err != nil {
		return v, fmt.Errorf("%w: looking at a route: %w", ErrCorruptRoute, err)
	}
	h := view[writerHalf](writer, 0)
	s := RouteSpec{
		ID: h.routeID.Load(), Slots: atomic.LoadUint32(&h.slots), Depth: atomic.LoadUint32(&h.depth),
		Out: atomic.LoadUint32(&h.out), Policy: Policy(atomic.LoadUint32(&h.policy)), First: atomic.LoadUint64(&h.first),
	}
	if err := s.Validate(); err != nil {
		return v, fmt.Errorf("%w: looking at a route: %w", ErrCorruptRoute, err)
	}
	if n, at := atomic.LoadUint32(&h.tableSlots), atomic.LoadUint32(&h.tableOffset); n != s.twiceOut() || at != s.tableOffset() {
		return v, fmt.Errorf("looking at route %#x: %w: table of %d at %d", s.ID, ErrCorruptRoute, n, at)
	}
	if s.WriterSize() > uint64(len(writer)) {
		return v, fmt.Errorf("looking at route %#x: %w: %d bytes, %d there", s.ID, ErrCorruptRoute, s.WriterSize(), len(writer))
	}
	v = WriterView{
		ID: s.ID, Slots: s.Slots, Depth: s.Depth, Out: s.Out, Policy: s.Policy, First: s.First,
		Tail: h.tail.Load(), DropTo: h.dropTo.Load(), Joined: h.joined.Load() == s.ID,
		WantsSpace: h.wantsSpace.Load() != 0, ReturnedHead: h.returnedHd.Load(),
		Sent: atomic.LoadUint64(&h.sent), Dropped: atomic.LoadUint64(&h.dropped),
		BytesOut: atomic.LoadUint64(&h.bytesOut), BadReturns: atomic.LoadUint64(&h.badReturns),
	}
	if f != nil {
		scanTable(words(writer, uint64(s.tableOffset()), 2*uint64(s.twiceOut())), f)
	}
	return v, nil
}

// ScanReader reads a reader half. The error wraps ErrCorruptRoute when there is none.
func ScanReader(reader []byte) (ReaderView, error) {
	if err := checkHalf("reader", reader, returnOffset); err != nil {
		return ReaderView{}, fmt.Errorf("%w: looking at a route: %w", ErrCorruptRoute, err)
	}
	h := view[readerHalf](reader, 0)
	v := ReaderView{
		ID: h.routeID.Load(), Head: h.head.Load(), Claim: h.claim.Load(), Armed: h.armed.Load() != 0,
		ReturnedTail: h.returnedTail.Load(),
	}
	if v.ID == 0 {
		return v, fmt.Errorf("looking at a route: %w: there is none", ErrCorruptRoute)
	}
	return v, nil
}
