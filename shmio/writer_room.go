package shmio

import (
	"runtime"

	"github.com/bhome-bus/bhome/wire"
)

// fits tells whether the message fits as far as known, without a look at the peer.
func (w *Writer) fits(n need) bool {
	return w.unread < w.spec.Depth && w.tail-w.free+n.slots <= uint64(w.spec.Slots) && (!n.block || w.blockFits(n.size, 0, 0))
}

// blockFits tells whether one more block of size bytes may go out once `less` blocks of `bytes` bytes came back.
func (w *Writer) blockFits(size uint64, less int, bytes uint64) bool {
	n, used := w.out.n-less, w.out.bytes-bytes
	if n >= int(w.spec.Out) {
		return false
	}
	// One message above the quota is let through when nothing else is out, or it could never be sent.
	return w.spec.Quota == 0 || n == 0 || (used <= w.spec.Quota && size <= w.spec.Quota-used)
}

// room makes room by policy for a message that didn't fit as far as known. Anything but Sent: there is none.
func (w *Writer) room(n need) Outcome {
	if w.ended {
		return Ended
	}
	w.look()
	return w.byPolicy(n)
}

// byPolicy is room after a look.
func (w *Writer) byPolicy(n need) Outcome {
	for !w.ended && !w.fits(n) {
		if w.spec.Policy == BlockOnFull {
			w.need = n
			return Full
		}
		if w.spec.Policy == DropOldest && w.makeRoom(n) {
			continue
		}
		w.dropped++
		return DroppedNewest
	}
	if w.ended {
		return Ended
	}
	return Sent
}

// look is refresh where there is no room as far as known.
func (w *Writer) look() {
	w.pace()
	w.refresh()
	w.gained = w.spec.Depth - min(w.unread, w.spec.Depth)
}

// pace lets a reader that is the slower one get on for a moment where the writer may wait anyway: looking at head after
// each message takes the line that it lies in from the reader each time, and slows both.
func (w *Writer) pace() {
	const few, looks = 8, 256 // some 0.2 µs
	if w.spec.Policy != BlockOnFull || w.spec.Depth < 8*few || w.gained >= few || w.step != nil {
		return
	}
	for range looks {
		w.half.tail.Load() // own: nothing else than a pause
	}
}

// refresh looks at what the peer has read and returned. Returns are looked at after head: a reader that skips a
// message returns it first (docs/abi.md section 4).
func (w *Writer) refresh() {
	if w.peer == nil || w.err != nil {
		return
	}
	w.at("head?")
	h := w.peer.head.Load() // pairs with Reader.pass: slots before it were copied out
	if h != w.head {
		if w.readerClosed() {
			return
		}
		if h-w.head > w.published-w.head {
			w.fail("head %#x, not between %#x and tail %#x", h, w.head, w.published)
			return
		}
		w.head = h
		if ahead(h, w.oldest) { // else the reader comes to what was dropped
			n, slots := w.lengths.pass(h - w.oldest)
			w.unread -= n
			if w.oldest += slots; n > 0 && w.oldest != h {
				w.fail("head %#x lies within a message that ends at %#x", h, w.oldest)
				return
			}
		}
	}
	if w.pinned && ahead(h, w.pin) {
		w.pinned = false
	}
	if !w.pinned {
		w.setFree(h)
		w.setFree(w.dropTo)
	}
	w.at("returns?")
	w.Reclaim()
}

func (w *Writer) setFree(c uint64) {
	if ahead(c, w.free) {
		w.free = c
	}
}

// pop takes the oldest message out of the unread ones.
func (w *Writer) pop() {
	w.oldest += w.lengths.pop()
	w.unread--
}

// makeRoom drops one message, or waits a moment for the reader's hand to leave a slot; false: that wouldn't help.
func (w *Writer) makeRoom(n need) bool {
	if n.block && !w.blockFits(n.size, 0, 0) && !w.dropsHelp(n.size) {
		return false // what the reader holds is in the way; dropping unread messages would only lose them too
	}
	if w.pinned && w.tail-w.free+n.slots > uint64(w.spec.Slots) {
		return w.awaitPin()
	}
	if w.unread == 0 {
		return false
	}
	w.dropOne()
	return !w.ended
}

// dropsHelp tells whether a block of size bytes could go out if unread blocks were dropped.
func (w *Writer) dropsHelp(size uint64) bool {
	var less int
	var bytes uint64
	help := false
	w.lengths.walk(w.oldest, func(c uint64) bool {
		if at := w.out.find(c); at >= 0 {
			less++
			bytes += uint64(w.out.entries[at].size)
			help = w.blockFits(size, less, bytes)
		}
		return !help
	})
	return help
}

// dropOne drops the oldest unread message. The reader may be about to take it: it stores claim, then loads dropTo; this
// stores dropTo, then loads claim; so at least one of them sees the other. If it is this one that does, nobody can say
// yet who got the message.
func (w *Writer) dropOne() {
	i := w.oldest
	block := !wire.Word(w.ring[i&uint64(w.spec.Slots-1)]).IsCommand()
	w.pop()
	after := w.oldest
	if ahead(after, w.published) {
		w.publish() // the reader must never find dropTo beyond tail
	}
	w.at("claim?")
	if w.claimed(i) { // being read right now: it will be gone without being dropped
		w.toLimbo(i, after, block)
		return
	}
	if i != w.dropTo {
		w.limbo.low = i
	}
	w.dropTo = after
	w.at("dropTo")
	w.half.dropTo.Store(after) // pairs with the load in Reader.take
	w.at("claim")
	if w.claimed(i) {
		w.at("skippedTo?")
		if !ahead(w.peer.skippedTo.Load(), i) {
			w.toLimbo(i, after, block)
			return
		}
		// The claim is of a message beyond: the reader skipped this one. As dropTo was not beyond i until now and isn't
		// beyond the next yet, it can't have read i and then skipped something else.
	}
	w.dropped++
	if !w.pinned {
		w.setFree(after)
	}
	if block {
		if at := w.out.find(i); at >= 0 {
			w.giveBack(w.out.remove(at), i)
			w.handOver()
		}
	}
}

// claimed tells whether the reader has laid hands on message i, or says so. Before Join no reader reads.
func (w *Writer) claimed(i uint64) bool {
	return w.peer != nil && ahead(w.peer.claim.Load(), i) // pairs with the store in Reader.take
}

// toLimbo notes that the reader may have message i in hand: its slots stay in use until head has passed it, its block
// is out until it is returned, and whether it was dropped is known when it is returned.
func (w *Writer) toLimbo(i, after uint64, block bool) {
	if block {
		if at := w.out.find(i); at >= 0 {
			w.out.entries[at].limbo = true
		}
	} else {
		w.limbo.add(i)
	}
	// An honest reader claims i only after head passed the message that was pinned before; if head hasn't, that one stays.
	if !w.pinned || ahead(w.peer.head.Load(), w.pin) {
		w.pinned, w.pin, w.limbo.waited = true, i, false
		w.setFree(i)
	}
	w.refresh()         // it may be past already
	w.limbo.low = after // the returns of what the reader skipped before it came to i are taken now
}

// awaitPin gives a reader that is just copying a message out the moment that it needs, so that it isn't the newest
// message that is lost; a reader that stopped there is waited for once only.
func (w *Writer) awaitPin() bool {
	const looks, yield = 128, 32
	if !w.limbo.waited && w.step == nil {
		w.limbo.waited = true
		for k := 1; k <= looks && !ahead(w.peer.head.Load(), w.pin); k++ {
			if k%yield == 0 {
				runtime.Gosched()
			}
		}
	}
	w.refresh()
	return !w.ended && !w.pinned
}
