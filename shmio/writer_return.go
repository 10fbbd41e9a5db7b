package shmio

import (
	"errors"
	"sync/atomic"
)

var errEnded = errors.New("shmio: route ended")

// limbo settles what became of messages that were dropped while the reader may have been taking them. A reader that
// finds a message dropped returns it twice in a row, which no reader does that read it (docs/abi.md section 4).
type limbo struct {
	low    uint64    // from here to dropTo messages are surely dropped; a reader may yet find so, once each
	inline [8]uint64 // the last such messages that have no block
	n      int
	last   uint64 // the sequence number returned last, if it was in question,
	second uint8  // and what the same again means
	waited bool   // awaitPin has waited for the present pin
}

// What the second return of the same sequence number means.
const (
	secondIsBad     = iota
	secondIsSkipped // the block was not read: count it as dropped
	secondIsKnown   // all was known with the first
)

func (l *limbo) add(seq uint64) {
	if l.n == len(l.inline) {
		copy(l.inline[:], l.inline[1:]) // the oldest counts as read from now on
		l.n--
	}
	l.inline[l.n] = seq
	l.n++
}

// take tells whether seq is among the messages without a block whose fate is open.
func (l *limbo) take(seq uint64) bool {
	for k := range l.n {
		if l.inline[k] == seq {
			l.n--
			l.inline[k] = l.inline[l.n]
			return true
		}
	}
	return false
}

// Reclaim takes what the reader returned. n is how many blocks came back. The error wraps ErrCorruptRoute when the
// reader half is rubbish; the route is Ended then.
func (w *Writer) Reclaim() (n int, err error) {
	if w.peer == nil || w.err != nil {
		return 0, w.err
	}
	t := w.peer.returnedTail.Load() // pairs with Reader.flush: entries before it are written
	k := t - w.retHead
	if k == 0 {
		return 0, nil
	}
	if w.readerClosed() {
		return 0, nil
	}
	if k > uint64(len(w.rets)) {
		w.fail("returnedTail %#x, more than %d beyond %#x", t, len(w.rets), w.retHead)
		return 0, w.err
	}
	before := w.out.n
	for w.retHead != t {
		if n := w.takeRun(t); n > 0 {
			w.retHead += uint64(n)
			continue
		}
		w.returned(atomic.LoadUint64(&w.rets[w.retHead&uint64(len(w.rets)-1)]))
		w.retHead++
	}
	w.handOver()
	w.saveStats()                      // first: see Reader.Settled
	w.half.returnedHd.Store(w.retHead) // pairs with Reader.flush: these entries may be written again
	return before - w.out.n, nil
}

// takeRun takes the returns before t that are simple, and returns how many they are.
func (w *Writer) takeRun(t uint64) int {
	if w.takes == nil {
		return 0
	}
	w.handOver()
	if cap(w.back) < returnsAtOnce {
		w.back = make([]Held, 0, returnsAtOnce)
	}
	n := w.out.removeRun(w.rets, w.retHead, t, w.back[:returnsAtOnce])
	if n > 0 {
		w.limbo.second = secondIsBad
		w.back = w.back[:n]
	}
	return n
}

// returned believes of a return only what its own table says.
func (w *Writer) returned(seq uint64) {
	l := &w.limbo
	second := l.second
	l.second = secondIsBad
	if at := w.out.find(seq); at >= 0 {
		if w.out.entries[at].limbo {
			l.last, l.second = seq, secondIsSkipped
		}
		w.giveBack(w.out.remove(at), seq)
		return
	}
	switch {
	case second != secondIsBad && seq == l.last:
		if second == secondIsSkipped {
			w.dropped++
		}
	case l.take(seq):
		w.dropped++
		l.last, l.second = seq, secondIsKnown
	case !ahead(l.low, seq) && ahead(w.dropTo, seq):
		l.low = seq + 1
		l.last, l.second = seq, secondIsKnown
	default:
		w.badReturns++
	}
}

// giveBack tells, or has handOver tell, of a block that is the sender's own again.
func (w *Writer) giveBack(h Held, seq uint64) {
	switch {
	case h == nil:
	case w.takes == nil:
		h.Returned(seq)
	default:
		if w.back = append(w.back, h); len(w.back) == returnsAtOnce {
			w.handOver()
		}
	}
}

// handOver gives away what giveBack has gathered: whoever calls giveBack calls it before it returns.
func (w *Writer) handOver() {
	if len(w.back) > 0 {
		w.takes(w.back)
		clear(w.back)
		w.back = w.back[:0]
	}
}

// ReclaimAll takes back all that is out, because the reader's process is dead; nothing more can be pushed. It returns
// how many blocks came back.
func (w *Writer) ReclaimAll() int {
	w.ended = true
	n := w.out.n
	for i := range w.out.entries {
		for w.out.entries[i].used { // removing shifts the following ones back, to here or to places still to come
			seq := w.out.entries[i].seq
			w.giveBack(w.out.remove(i), seq)
		}
	}
	w.handOver()
	w.saveStats()
	w.WakeSpace()
	return n
}

// ArmSpace asks the reader to ring when it reads or returns, then looks again: false says that what found the route
// Full last has room now, or the route ended. Staged messages are committed, or nobody could make room.
func (w *Writer) ArmSpace() (stillFull bool) {
	w.Commit()
	e := max(1, w.spaceSeen.Load()+1)
	w.spaceSeen.Store(e)
	w.at("wantsSpace")
	w.half.wantsSpace.Store(e) // pairs with Reader.ringSpace: it stores head or returnedTail, then loads this
	w.at("space?")
	w.refresh()
	return !w.ended && !w.fits(w.need)
}

// DisarmSpace ends what ArmSpace began.
func (w *Writer) DisarmSpace() {
	w.half.wantsSpace.Store(0)
	select {
	case <-w.space:
	default:
	}
}

// SpaceC carries a value after WakeSpace. Several who wait on it must wake one another.
func (w *Writer) SpaceC() <-chan struct{} { return w.space }

// WakeSpace is for whoever hears the bell of this route. It may be called at any time by anybody.
func (w *Writer) WakeSpace() {
	select {
	case w.space <- struct{}{}:
	default:
	}
	if alarm := w.alarm.Load(); alarm != nil {
		(*alarm)()
	}
}

// SetAlarm has WakeSpace call alarm besides, until it is nil: for one that sleeps elsewhere than at SpaceC. Look at SpaceC after setting
// it: what came before is there.
func (w *Writer) SetAlarm(alarm *func()) { w.alarm.Store(alarm) }
