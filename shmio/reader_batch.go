package shmio

import (
	"sync/atomic"

	"github.com/bhome-bus/bhome/wire"
)

// TryReceiveBatch is TryReceive of up to len(recs) messages at once; n is how many there were. Unless the writer may drop
// what is unread it hears of them all with one store. Those of a run come without others, but for what was put back: an
// Inbox may have one message more before them. An error that comes after the first message is the next call's.
func (r *Reader) TryReceiveBatch(recs []*Record) (n int, err error) {
	if r.spec.Policy == DropOldest || r.asideLen.Load() != 0 {
		for n < len(recs) {
			ok, err := r.TryReceive(recs[n])
			if !ok {
				if n > 0 {
					err = nil // it stays the route's
				}
				return n, err
			}
			n++
		}
		return n, nil
	}
	held, limit := r.held.Load(), r.spec.holdLimit() // nobody else adds to held
	from, blocks := r.next, int64(0)
	for n < len(recs) {
		if n == 0 || r.next == r.tail {
			var ok bool
			if ok, err = r.look(); !ok {
				break
			}
		}
		took, some := r.takeUsual(recs[n:], limit-held-blocks)
		n, blocks = n+took, blocks+some
		if n == len(recs) || r.next == r.tail {
			continue
		}
		if r.runNext() {
			if n == 0 {
				n = r.takeOfRun(recs, limit-held)
				blocks = int64(n)
			}
			if n > 0 {
				break
			}
		}
		if held+blocks >= limit && r.blockNext() && (n > 0 || r.starve()) {
			break
		}
		var next uint64
		if next, err = r.take(recs[n]); err != nil {
			break
		}
		if recs[n].IsBlock() {
			blocks++
		}
		r.next = next
		n++
	}
	if blocks > 0 {
		r.held.Add(blocks)
	}
	if r.next != from {
		r.pass(r.next)
	}
	if n > 0 {
		err = nil
	}
	return n, err
}

// takeUsual takes what it can of the messages from next to tail as long as they are what most are: blocks, of which there is room for so
// many and which are of no run, and inline records that lie in one piece and have no flags. It returns how many it took, and how
// many of them are blocks. What is next then is for take to look at.
func (r *Reader) takeUsual(recs []*Record, room int64) (n int, blocks int64) {
	if r.run != nil {
		return 0, 0
	}
	for n < len(recs) && r.next != r.tail {
		at := r.next & uint64(len(r.ring)-1)
		w := wire.Word(atomic.LoadUint64(&r.ring[at])) // once: the writer may be hostile
		if !w.IsCommand() {
			if _, _, ok := w.Place(); !ok || blocks >= room || w.More() {
				break
			}
			rec := recs[n]
			rec.Seq, rec.Word, rec.Payload, rec.run = r.next, w, nil, nil
			r.next++
			blocks++
			n++
			continue
		}
		slots, ok := w.PlainSlots()
		if !ok {
			break
		}
		fit := min(uint64(len(r.ring))-at, r.tail-r.next) / slots
		if fit == 0 {
			break
		}
		k := r.takeRun(at, w, slots, recs[n:min(uint64(len(recs)), uint64(n)+fit)])
		r.next += uint64(k) * slots
		n += k
	}
	return n, blocks
}

// takeRun takes the inline records that lie one after the other from place at of the ring on, all of which fit there, as long as they begin
// with the word w, as the first does: it says that they take so many slots and have no flags. It returns how many those are.
func (r *Reader) takeRun(at uint64, w wire.Word, slots uint64, recs []*Record) (n int) {
	// First the heads, then the payloads: a loop that calls nothing keeps what it knows in registers.
	ring, seq, from := r.ring, r.next, (at+2)*8
	for {
		rec := recs[n]
		rec.Seq, rec.Word, rec.Corr = seq, w, 0
		rec.Head = wire.InlineHead{First: w, Meta: atomic.LoadUint64(&ring[at+1])}
		seq += slots
		at += slots
		if n++; n == len(recs) || wire.Word(atomic.LoadUint64(&ring[at])) != w {
			break
		}
	}
	bytes, size := r.bytes, wire.InlineHead{First: w}.Len()
	for _, rec := range recs[:n] {
		payload := rec.own()[:size]
		rec.Payload = payload
		copy(payload, bytes[from:])
		from += slots * 8
	}
	return n
}
