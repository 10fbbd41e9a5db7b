package shmio

import (
	"fmt"
	"sync/atomic"

	"github.com/bhome-bus/bhome/wire"
)

// CheckCursors says what is wrong with the cursors of a route that a third process looks at: tail and dropTo were read from
// the writer half, head and claim from the reader half before that, and ringTail from the writer half before that. None is
// wrong in whatever order the ends were at work; the error wraps ErrCorruptRoute.
func CheckCursors(ringTail uint64, r ReaderView, w WriterView) error {
	bad := func(what string, v, beyond uint64) error {
		return fmt.Errorf("%w %#x: %s %d, while %d is the furthest that can be", ErrCorruptRoute, w.ID, what, v, beyond)
	}
	read := r.Head
	if ahead(w.DropTo, read) {
		read = w.DropTo
	}
	switch {
	case ahead(r.Head, w.Tail):
		return bad("head", r.Head, w.Tail)
	case ahead(r.Claim, w.Tail):
		return bad("claim", r.Claim, w.Tail)
	case ahead(w.DropTo, w.Tail):
		return bad("dropTo", w.DropTo, w.Tail)
	case ahead(w.First, w.Tail):
		return bad("first", w.First, w.Tail)
	case ahead(ringTail, read+uint64(w.Slots)):
		return bad("tail", ringTail, read+uint64(w.Slots))
	}
	return nil
}

// CheckSlots looks at what waits in a writer half between the reader's head and the tail: each slot must begin an inline
// record that ends before the tail, or be a word that valid accepts. v is what ScanOut made of the half, after head was
// read. It returns the cursor of the first that is wrong, and why: it is so only if the head hasn't passed it since.
func CheckSlots(writer []byte, v WriterView, head uint64, valid func(w wire.Word) error) (at uint64, err error) {
	c := head
	if ahead(v.DropTo, c) {
		c = v.DropTo
	}
	left := v.Tail - c
	if left > uint64(v.Slots) {
		return c, fmt.Errorf("%w %#x: %d slots wait in a ring of %d", ErrCorruptRoute, v.ID, left, v.Slots)
	}
	ring := words(writer, ringOffset, uint64(v.Slots))
	for left > 0 {
		w, took := wire.Word(atomic.LoadUint64(&ring[c&uint64(v.Slots-1)])), uint64(1)
		if w.IsInline() {
			n, ok := w.InlineSlots()
			if !ok {
				return c, fmt.Errorf("%w %#x: %w: %#016x", ErrCorruptRoute, v.ID, wire.ErrBadWord, uint64(w))
			}
			if took = n; took > left {
				return c, fmt.Errorf("%w %#x: an inline record of %d slots, of which %d are pushed", ErrCorruptRoute, v.ID, n, left)
			}
		} else if err := valid(w); err != nil {
			return c, fmt.Errorf("%w %#x: %w", ErrCorruptRoute, v.ID, err)
		}
		c, left = c+took, left-took
	}
	return c, nil
}
