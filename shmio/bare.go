package shmio

import "sync/atomic"

// BareWriter and BareReader are a queue with tail and slot and nothing else: no checks, no bells, no return of blocks, one
// fixed message size. They trust each other and serve only as the measure of what the real queue costs.
type BareWriter struct {
	tail       *atomic.Uint64 // own; pairs with BareReader.Peek
	head       *atomic.Uint64 // the reader's; pairs with BareReader.Release
	slots      []byte
	next, seen uint64
	count      uint64
	size       uint64
}

// BareReader is the other end.
type BareReader struct {
	tail, head *atomic.Uint64
	slots      []byte
	next, seen uint64
	count      uint64
	size       uint64
}

const bareHeader = 128

// BareSize is the memory a writer of count slots of size bytes needs.
func BareSize(count, size uint64) uint64 { return bareHeader + count*roundUp(size, 64) }

// NewBareWriter makes the sending end over its own memory and the reader's (its head, at 0). count is a power of two.
func NewBareWriter(own, reader []byte, count, size uint64) *BareWriter {
	return &BareWriter{tail: view[atomic.Uint64](own, 0), head: view[atomic.Uint64](reader, 0), slots: own[bareHeader:], count: count, size: roundUp(size, 64)}
}

// NewBareReader makes the receiving end over its own memory and the writer's.
func NewBareReader(own, writer []byte, count, size uint64) *BareReader {
	return &BareReader{head: view[atomic.Uint64](own, 0), tail: view[atomic.Uint64](writer, 0), slots: writer[bareHeader:], count: count, size: roundUp(size, 64)}
}

// TrySend copies a message in; false: full.
func (w *BareWriter) TrySend(payload []byte) bool {
	if w.next-w.seen == w.count {
		if w.seen = w.head.Load(); w.next-w.seen == w.count {
			return false
		}
	}
	copy(w.slots[w.next&(w.count-1)*w.size:], payload)
	w.next++
	w.tail.Store(w.next)
	return true
}

// Peek is the next message in place, until Release; nil: empty.
func (r *BareReader) Peek() []byte {
	if r.next == r.seen {
		if r.seen = r.tail.Load(); r.next == r.seen {
			return nil
		}
	}
	return r.slots[r.next&(r.count-1)*r.size:][:r.size]
}

// Release lets the writer use the slot again.
func (r *BareReader) Release() {
	r.next++
	r.head.Store(r.next)
}
