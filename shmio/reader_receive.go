package shmio

import (
	"sync/atomic"

	"github.com/bhome-bus/bhome/wire"
)

// TryReceive takes the next message, if there is one. It looks empty, too, before the writer joined, and while as many
// blocks are held as may be and the next message is a block, or any message with DropOldest (Return wakes the inbox). An error wraps ErrCorruptRoute: the route is lost.
func (r *Reader) TryReceive(rec *Record) (bool, error) {
	if r.asideLen.Load() != 0 {
		return r.takeAside(rec), nil
	}
	if ok, err := r.look(); !ok {
		return false, err
	}
	if r.held.Load() >= r.spec.holdLimit() && r.blockNext() && r.starve() {
		return false, nil
	}
	if r.spec.Policy == DropOldest {
		return r.claimAndTake(rec)
	}
	return r.takeAndPass(rec)
}

// look tells whether there may be a message to take.
func (r *Reader) look() (bool, error) {
	if r.err != nil {
		return false, r.err
	}
	if r.waiting.Load() && !r.flushReturns() {
		return false, nil // what skipped messages add to the returns must end somewhere
	}
	if r.next == r.tail {
		return r.load()
	}
	return true, nil
}

// load looks for new messages at the peer: false when there are none, or it may not be read yet.
func (r *Reader) load() (bool, error) {
	if !r.reading && !r.ready() {
		return false, nil
	}
	r.pace()
	r.at("load")
	t := r.peer.tail.Load() // pairs with Writer.publish: the slots before it are written
	if t == r.next {
		r.misses++
		return false, nil
	}
	if r.heels++; r.misses >= soonLooks || t-r.next >= littleSlots {
		r.heels = 0
	}
	r.misses = 0
	// With DropOldest the tail may be any distance ahead until dropTo is known.
	if !ahead(t, r.next) || (r.spec.Policy != DropOldest && t-r.next > uint64(r.spec.Slots)) {
		return false, r.fail("tail %#x, head %#x, %d slots", t, r.next, r.spec.Slots)
	}
	r.tail = t
	return true, nil
}

// When a reader lets its writer get ahead.
const (
	paceAfter   = 8    // looks in a row that found
	littleSlots = 640  // less than that (64 messages of 64 bytes)
	soonLooks   = 8    // after fewer looks that found nothing: in a request and its answer, say, it takes more. Then it is over
	paceLooks   = 1024 // own loads, some 0.5 µs
)

// pace lets a writer get ahead that writes one message after the other while we read them as fast: each look takes the lines of the
// cursor and of the message from it, which it is about to write again, and what we find is one message. Where other routes have
// something there is enough to do.
func (r *Reader) pace() {
	if !r.atHeels() || r.step != nil {
		return
	}
	for range paceLooks {
		r.half.head.Load() // own: nothing else than a pause
	}
}

// atHeels tells whether there is a writer to let get ahead.
func (r *Reader) atHeels() bool {
	return r.heels >= paceAfter && r.misses < soonLooks && r.place.in != nil && len(r.place.in.hot) == 1
}

// ready tells whether reading may begin: the writer honours claims, or writes no more.
func (r *Reader) ready() bool {
	if r.peer == nil || r.gone { // what the memory holds after Leave is another route's
		return false
	}
	// dead first: a process that joined and pushed before it died is read to its end either way. But one that never joined may
	// have let go of its half before it died.
	r.reading = r.dead.Load() && r.peer.routeID.Load() == r.id || r.peer.joined.Load() == r.id // pairs with Writer.Close, Writer.Join
	return r.reading
}

// blockNext tells whether the next message is, or may be, a block. Where the writer may drop it, looking at it would
// take a claim, and a claim that isn't followed by taking the message would keep its slots from the writer.
func (r *Reader) blockNext() bool {
	return r.spec.Policy == DropOldest || !wire.Word(atomic.LoadUint64(&r.ring[r.next&uint64(r.spec.Slots-1)])).IsCommand()
}

// starve notes that too much is held; false: something came back meanwhile.
func (r *Reader) starve() bool {
	r.starved.Store(true)
	if r.held.Load() < r.spec.holdLimit() { // pairs with the decrement in Return
		r.starved.Store(false)
		return false
	}
	return true
}

// claimAndTake is take where the writer may drop what isn't read yet. The claim is stored before dropTo is loaded, the
// writer stores dropTo before it loads claim: a message that dropTo hasn't passed is safe under the claim.
func (r *Reader) claimAndTake(rec *Record) (bool, error) {
	const jumps = 64 // an honest writer can overtake the reader that often only while it is kept from running
	for range jumps {
		i := r.next
		r.at("claim")
		r.half.claim.Store(i + 1)
		r.at("dropTo?")
		d := r.peer.dropTo.Load()
		if !ahead(d, i) {
			if r.tail-i > uint64(r.spec.Slots) {
				return false, r.fail("tail %#x, head %#x, dropTo %#x, %d slots", r.tail, i, d, r.spec.Slots)
			}
			return r.takeAndPass(rec)
		}
		// Dropped: its slot may be in use for another message, so it isn't looked at, and only its number is known.
		r.at("tail?")
		t := r.peer.tail.Load() // never behind dropTo, but by now any distance ahead of d
		if ahead(d, t) {
			return false, r.fail("dropTo %#x, tail %#x", d, t)
		}
		r.skip(i)
		r.at("skippedTo")
		r.half.skippedTo.Store(d) // what lies between was not claimed, though later claims lie beyond it
		r.tail = t
		r.pass(d)
		if d == t {
			break
		}
	}
	return false, nil
}

// takeAndPass takes the message at next and tells the writer so.
func (r *Reader) takeAndPass(rec *Record) (bool, error) {
	next, err := r.take(rec)
	if err != nil {
		return false, err
	}
	if rec.IsBlock() {
		r.held.Add(1)
	}
	r.pass(next)
	return true, nil
}

// take reads the message at next, which lies in slots that the writer leaves alone until head has passed them, and says
// where the one after it begins.
func (r *Reader) take(rec *Record) (next uint64, err error) {
	r.at("slot")
	mask := uint64(r.spec.Slots - 1)
	i := r.next
	w := wire.Word(atomic.LoadUint64(&r.ring[i&mask])) // once: the writer may be hostile
	rec.Seq, rec.Word = i, w
	if r.run != nil && w.IsCommand() {
		return 0, r.fail("slot %#x: %#x lies between the messages of a block", i, uint64(w))
	}
	if w.IsInline() {
		// Guessed, not computed, is where the payload lies: it is loaded while w is still on its way.
		if slots, ok := w.PlainSlots(); ok && slots <= r.tail-i && slots <= uint64(len(r.ring))-i&mask {
			rec.Head, rec.Corr = wire.InlineHead{First: w, Meta: atomic.LoadUint64(&r.ring[i&mask+1])}, 0
			rec.Payload = rec.own()[:rec.Head.Len()]
			copy(rec.Payload, r.bytes[(i&mask+2)*8:])
			rec.Last = i+slots == r.tail
			return i + slots, nil
		}
		return r.takeInline(rec, i, w)
	}
	rec.Payload = nil
	if !w.IsCommand() {
		if _, _, ok := w.Place(); !ok {
			_, _, err := w.Message()
			return 0, r.fail("slot %#x: %v", i, err)
		}
		rec.run = nil
		if w.More() || r.run != nil {
			if r.spec.Policy == DropOldest {
				return 0, r.fail("slot %#x: %#x says that there is more of it, where the oldest is dropped", i, uint64(w))
			}
			if rec.run = r.inRun(w, i); r.err != nil {
				return 0, r.err
			}
		}
	}
	rec.Last = i+1 == r.tail
	if rec.Next = 0; !rec.Last {
		rec.Next = wire.Word(atomic.LoadUint64(&r.ring[(i+1)&mask])) // whatever it is: it is only prefetched
	}
	return i + 1, nil
}

// takeInline copies an inline record out, but for its trace context.
func (r *Reader) takeInline(rec *Record, i uint64, w wire.Word) (next uint64, err error) {
	mask := uint64(r.spec.Slots - 1)
	have := r.tail - i
	slots, ok := w.InlineSlots()
	if !ok || slots > have {
		return 0, r.fail("slot %#x: %#x is no record in the %d slots that are written", i, uint64(w), have)
	}
	rec.Head = wire.InlineHead{First: w, Meta: atomic.LoadUint64(&r.ring[(i+1)&mask])}
	at := i + 2
	rec.Corr = 0
	if rec.Head.HasCorr() {
		rec.Corr = atomic.LoadUint64(&r.ring[at&mask])
		at++
	}
	if rec.Head.HasTrace() {
		at += wire.TraceWords
	}
	rec.Payload = rec.own()[:rec.Head.Len()]
	if k := copy(rec.Payload, r.bytes[at&mask*8:]); k < len(rec.Payload) {
		copy(rec.Payload[k:], r.bytes)
	}
	rec.Last = i+slots == r.tail
	return i + slots, nil
}

// pass tells the writer that all before c was copied out.
func (r *Reader) pass(c uint64) {
	r.at("head")
	r.next = c
	r.half.head.Store(c) // pairs with Writer.refresh
	if r.spec.Policy == BlockOnFull {
		r.ringSpace()
	}
}

// Arm says that the reader sleeps, then looks again: false says that there is something after all. What Arm armed,
// Disarm ends.
func (r *Reader) Arm() (stillEmpty bool) {
	r.arms++
	if r.arms == 0 {
		r.arms = 1
	}
	r.asleep, r.heels = true, 0 // who sleeps in between is at nobody's heels
	r.at("arm")
	r.half.armed.Store(r.arms) // pairs with Writer.Commit: it stores tail, then loads armed
	r.at("tail?")
	return !r.hasNews()
}

// Disarm says that the reader is awake.
func (r *Reader) Disarm() {
	if r.asleep {
		r.asleep = false
		r.half.armed.Store(0)
	}
}

// hasNews tells whether TryReceive would find something (a corrupt route's error is something).
func (r *Reader) hasNews() bool {
	if r.err != nil {
		return true
	}
	if r.asideLen.Load() != 0 {
		return !r.blocked.Load()
	}
	if r.starved.Load() && r.held.Load() >= r.spec.holdLimit() {
		return false // Return wakes
	}
	return r.next != r.tail || ((r.reading || r.ready()) && r.peer.tail.Load() != r.next)
}
