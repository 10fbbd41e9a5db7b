package node

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/bhome-bus/bhome/shmio"
)

// slot is the place of one received message in this process, in two cache lines (see TestASlotIsTwoLines); slots are reused.
type slot struct {
	received // of a single one, rec.Tag is its lot, always; else nil
	topic    *string
}

// alone is the lot of a single one.
func (sl *slot) alone() *lot { return sl.rec.Tag.(*lot) }

// Homes of single lots.
const (
	homeList    = 0 // the list of free ones
	homeCurrent = 1 // it is the current one, and stays there: who receives sees by its serial that it is free
)

// homeLeft is the home of a lot that was the current one while its message of that serial was out: who changes it to homeList puts
// it into the list.
func homeLeft(serial uint64) uint64 { return serial<<2 | 2 }

// slots recycles the places of a queue's messages. Who receives one at a time gets the one used last again, when it is free, at
// the cost of a look at its serial: most receivers release a message before they take the next. Safe for concurrent use.
type slots struct {
	n       *Node
	current *lot          // the inbox's lock guards it
	refused atomic.Uint64 // messages that nobody got
	taken   atomic.Uint64 // messages received in batches that were released or refused

	mu      sync.Mutex
	singles spares[lot]  // free single lots
	batch   spares[slot] // free slots of batches
	lots    spares[lot]  // free lots of batches
	all     []*lot       // single ones, free or not
	slots   int          // of batches there are, free or not
	past    uint64       // serials of lots that are no more
}

// spares is what is free of a kind, and how little that was since the last trim.
type spares[T any] struct {
	free []*T
	low  int
}

// take takes up to n, the ones used last.
func (s *spares[T]) take(n int) []*T {
	at := max(0, len(s.free)-n)
	some := s.free[at:]
	s.free = s.free[:at]
	s.low = min(s.low, at)
	return some
}

// put takes back.
func (s *spares[T]) put(some ...*T) { s.free = append(s.free, some...) }

// trim lets go of what nobody has used since the last call, but for so many, and returns it.
func (s *spares[T]) trim(keep int) []*T {
	n := s.low - max(0, keep)
	if s.low = len(s.free); n <= 0 {
		return nil
	}
	gone := s.free[:n]
	s.free = slices.Clone(s.free[n:]) // what was large stays large
	s.low = len(s.free)
	return gone
}

// receive is inbox.Receive into a slot; nil: there is no message. The inbox is always the same.
func (s *slots) receive(ctx context.Context, inbox *shmio.Inbox) (*slot, *shmio.Reader, error) {
	return slotOf(inbox.ReceiveNext(ctx, s))
}

// tryReceive is inbox.TryReceive into a slot.
func (s *slots) tryReceive(inbox *shmio.Inbox) (*slot, *shmio.Reader, error) {
	return slotOf(inbox.TryReceiveNext(s))
}

func slotOf(r *shmio.Reader, rec *shmio.Record, err error) (*slot, *shmio.Reader, error) {
	if rec == nil {
		return nil, r, err
	}
	return rec.Tag.(*lot).slots[0], r, err
}

// Record implements shmio.Recorder.
func (s *slots) Record() *shmio.Record {
	l := s.current
	if l != nil {
		if serial := l.serial(); serial != l.lent { // pairs with Release: it is done with the slot
			l.lent = serial
			return &l.slots[0].rec
		}
		// It is out. If it was released since we looked, nobody but us may see that.
		left := homeLeft(l.lent)
		l.home.Store(left) // pairs with leave: its caller has changed the serial, then it loads this
		if l.serial() != l.lent {
			l.leave(l.lent, left)
		}
	}
	l = s.single()
	l.home.Store(homeCurrent)
	l.lent = l.serial()
	s.current = l
	return &l.slots[0].rec
}

// Unused implements shmio.Recorder.
func (s *slots) Unused(rec *shmio.Record) {
	l := rec.Tag.(*lot)
	home := l.home.Load()
	if home == homeCurrent {
		l.lent-- // its serial never is that
		return
	}
	l.leave(l.lent, home) // another receiver needed one while this one waited
}

// leave is called when the message of a single lot's time serial is released. home is the lot's before that: what was the
// current one's may be another message's by now.
func (l *lot) leave(serial, home uint64) {
	if home != homeList {
		if left := homeLeft(serial); l.home.Load() != left || !l.home.CompareAndSwap(left, homeList) {
			return // it stays the current one, or whoever took another saw that it is free
		}
	}
	l.owner.giveBack(nil, l)
}

// giveBack takes slots that were released, and lots of which nothing is out.
func (s *slots) giveBack(sls []*slot, ls ...*lot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.batch.put(sls...)
	for _, l := range ls {
		l.route = nil
		if l.single() {
			s.singles.put(l)
		} else {
			s.lots.put(l)
		}
	}
}

// refuse is for a message, received alone, that nobody gets.
func (sl *slot) refuse() {
	l := sl.alone()
	serial, home := l.serial(), l.home.Load()
	l.owner.refused.Add(1)
	l.word.Store((serial + 1) << serialShift) // pairs with Record
	l.leave(serial, home)
}

// message is what came in sl, alone.
func (sl *slot) message() Message {
	l := sl.alone()
	m := Message{l, l.serial() << serialShift}
	m.note()
	return m
}

// discard is refuse for a message that has been read.
func (sl *slot) discard() {
	if sl.rec.IsBlock() {
		sl.alone().route.giveBackRecord(&sl.rec)
	}
	sl.refuse()
}

// single takes a free single lot, or makes one.
func (s *slots) single() *lot {
	s.mu.Lock()
	defer s.mu.Unlock()
	if some := s.singles.take(1); len(some) > 0 {
		return some[0]
	}
	sl := new(slot)
	l := s.newLot(1, sl)
	l.index, l.blocks = len(s.all), true
	sl.rec.Tag = l
	s.all = append(s.all, l)
	return l
}

// getAll fills into with slots to receive a batch into.
func (s *slots) getAll(into []*slot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := copy(into, s.batch.take(len(into)))
	s.slots += len(into) - n
	for ; n < len(into); n++ {
		into[n] = new(slot)
	}
}

// lend makes the messages into of as many of sls, the first, which came on r, and takes the others back. blocks: there may be blocks
// among them; run: they are all of that, if it isn't nil.
func (s *slots) lend(r *inRoute, run *shmio.Run, blocks bool, sls []*slot, into []Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.batch.put(sls[len(into):]...)
	for len(into) > 0 {
		k := min(len(into), lotPlaces)
		s.lot().lend(r, run, blocks, sls[:k], into[:k])
		into, sls = into[k:], sls[k:]
	}
}

// lot takes a free lot of batches, or makes one; mu is held.
func (s *slots) lot() *lot {
	if some := s.lots.take(1); len(some) > 0 {
		return some[0]
	}
	return s.newLot(allReleased, make([]*slot, lotPlaces)...)
}

// newLot makes a lot for so many slots.
func (s *slots) newLot(full uint64, sls ...*slot) *lot {
	l := &lot{owner: s, full: full, slots: sls}
	if s.n.cfg.Debug {
		l.takers = make([]atomic.Pointer[string], len(sls))
	}
	return l
}

// received is how many of the messages that the inbox found somebody got.
func (s *slots) received(inbox *shmio.Inbox) uint64 {
	refused := s.refused.Load() // first: what is refused was found
	return inbox.Found() - refused
}

// held is how many messages the program has. What was released is counted first: it never exceeds what was found.
func (s *slots) held(inbox *shmio.Inbox) uint64 {
	s.mu.Lock()
	released := s.past + s.taken.Load()
	for _, l := range s.all {
		released += l.serial()
	}
	s.mu.Unlock()
	return inbox.Found() - released
}

const (
	keepSlots   = 64  // that a subscription keeps, used or not
	slotGarbage = 256 // bytes of heap that one takes: itself, and its places in the lists
)

// trim lets slots go that nobody has used since the last call, beyond a few. Who still has a message of one, released, still
// sees that it is.
func (s *slots) trim() {
	s.mu.Lock()
	defer s.mu.Unlock()
	gone := s.singles.trim(keepSlots - (len(s.all) - len(s.singles.free)))
	for _, l := range gone {
		s.past += l.serial()
		last := s.all[len(s.all)-1]
		last.index, s.all[l.index] = l.index, last
		s.all = s.all[:len(s.all)-1]
	}
	if len(gone) > 0 {
		s.all = slices.Clone(s.all)
	}
	sls := s.batch.trim(keepSlots - (s.slots - len(s.batch.free)))
	s.slots -= len(sls)
	s.n.garbage.Let((len(gone) + len(sls) + len(s.lots.trim(keepSlots/lotPlaces))) * slotGarbage)
}
