package node

import (
	"sync/atomic"

	"github.com/bhome-bus/bhome/shmio"
)

// lotPlaces is how many messages a lot has at most.
const lotPlaces = 16

// A lot's word and a Message's tag: the serial, and below it the released places or the one place.
const (
	serialShift = lotPlaces
	placeMask   = lotPlaces - 1
	allReleased = 1<<lotPlaces - 1
)

// lot is messages that were received together from one route, in places of which each can be released alone. One word says what
// has been: so one compare-and-swap releases many, and no message is released twice. Lots are reused.
type lot struct {
	word   atomic.Uint64            // serial (it counts the times that all was released), and which places have been. Pairs with Message's checks
	full   uint64                   // of the word's places when all have been: always the same
	owner  *slots                   // always the same, too
	route  *inRoute                 // this is the messages': it stays while one of them is out
	run    *shmio.Run               // that all are of; nil: not all are of one
	blocks bool                     // there may be blocks among them
	slots  []*slot                  // for each place who has it, or had it last; places that nobody has count as released
	takers []atomic.Pointer[string] // Config.Debug, else nil: who took the message of each place. Pairs with misuse's load

	// Of a single one, which always has the same slot:
	index int           // in owner.all
	lent  uint64        // serial when it was last received into as the current one; the inbox's lock guards it
	home  atomic.Uint64 // where it goes when it is released; pairs with leave
}

// single tells whether the lot is for one message alone.
func (l *lot) single() bool { return l.full == 1 }

// serial is what the tags of its messages begin with, while it is the caller's.
func (l *lot) serial() uint64 { return l.word.Load() >> serialShift }

// lend makes messages of sls, of which there are at most lotPlaces, and which came on r, all of that run if it isn't nil, maybe blocks among
// them. The lot is the caller's, and not single.
func (l *lot) lend(r *inRoute, run *shmio.Run, blocks bool, sls []*slot, into []Message) {
	l.route, l.run, l.blocks = r, run, blocks
	copy(l.slots, sls) // never fewer: who wrongly looks for a place that was there before finds one, and then that it is released
	serial := l.serial()
	if n := len(sls); n < lotPlaces {
		l.word.Store(serial<<serialShift | allReleased&^(1<<n-1)) // the messages are handed out after it
	}
	for i := range into {
		into[i] = Message{l, serial<<serialShift | uint64(i)}
	}
}

// release counts the places of bits as released, if all of them are out in the lot's time serial: their slots are the caller's to give
// back, so look which they are before. all: nothing is out any more, and the lot is, too. No message of it may be looked at after it.
func (l *lot) release(serial, bits uint64) (ok, all bool) {
	for {
		w := l.word.Load()
		if w>>serialShift != serial || w&bits != 0 {
			return false, false
		}
		next := w | bits
		if all = next&allReleased == l.full; all {
			next = (serial + 1) << serialShift
		}
		if l.word.CompareAndSwap(w, next) { // pairs with Message's checks, and with others who release of the same lot
			return true, all
		}
	}
}

// places is the places of the messages at the start of ms that are of l's time serial, one after the other, and how many they are; their
// slots go to sls, sequence numbers of the blocks among them to seqs, unless all are of a run. The first is out; one that isn't any more ends
// them, and so does one of a run among others.
func (l *lot) places(serial uint64, ms []Message, sls []*slot, seqs []uint64) (n int, bits uint64, blocks int) {
	over := l.word.Load() // whose slots are others' by now
	tag := ms[0].tag
	first := tag & placeMask
	ms = ms[:min(len(ms), lotPlaces-int(first))]
	for n < len(ms) && ms[n].l == l && ms[n].tag == tag+uint64(n) && over>>(first+uint64(n))&1 == 0 {
		n++
	}
	copy(sls, l.slots[first:first+uint64(n)])
	if l.blocks && l.run == nil {
		for i, sl := range sls[:n] {
			if sl.rec.Run() != nil {
				n = i
				break
			}
			if sl.rec.IsBlock() {
				seqs[blocks] = sl.rec.Seq
				blocks++
			}
		}
	}
	return n, (1<<n - 1) << first, blocks
}
