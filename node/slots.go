package node

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/bhome-bus/bhome/shmio"
)

// slot is the place of one received message in this process; slots are reused.
type slot struct {
	rec    shmio.Record
	m      received
	route  *inRoute
	topic  string
	owner  *slots
	index  int           // in owner.all
	serial atomic.Uint64 // counts releases; a Message carries the value it was made with. Pairs with Message's checks
	lent   uint64        // serial when it was last received into as the current one; the inbox's lock guards it
	home   atomic.Uint64 // where it goes when it is released; pairs with leave
	origin string
}

// Homes of slots.
const (
	homeList    = 0 // the list of free ones
	homeCurrent = 1 // it is the current one, and stays there: who receives sees by its serial that it is free
)

// homeLeft is the home of a slot that was the current one while its message of that serial was out: who changes it to homeList puts
// it into the list.
func homeLeft(serial uint64) uint64 { return serial<<2 | 2 }

// slots recycles the slots of a queue. The one used last is taken again, when it is free, at the cost of a look at its serial:
// most receivers release a message before they take the next. Safe for concurrent use.
type slots struct {
	n       *Node
	current *slot // the inbox's lock guards it
	refused atomic.Uint64
	mu      sync.Mutex
	free    []*slot
	low     int // the fewest that were free since the last trim
	all     []*slot
	past    uint64 // serials of slots that are no more
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
	return rec.Tag.(*slot), r, err
}

// Record implements shmio.Recorder.
func (s *slots) Record() *shmio.Record {
	sl := s.current
	if sl != nil {
		if serial := sl.serial.Load(); serial != sl.lent { // pairs with Release: it is done with the slot
			sl.lent = serial
			return &sl.rec
		}
		// It is out. If it was released since we looked, nobody but us may see that.
		left := homeLeft(sl.lent)
		sl.home.Store(left) // pairs with leave: its caller has changed serial, then it loads this
		if sl.serial.Load() != sl.lent {
			sl.leave(sl.lent, left)
		}
	}
	sl = s.get()
	sl.home.Store(homeCurrent)
	sl.lent = sl.serial.Load()
	s.current = sl
	return &sl.rec
}

// Unused implements shmio.Recorder.
func (s *slots) Unused(rec *shmio.Record) {
	sl := rec.Tag.(*slot)
	home := sl.home.Load()
	if home == homeCurrent {
		sl.lent-- // its serial never is that
		return
	}
	sl.leave(sl.lent, home) // another receiver needed one while this one waited
}

// leave is called when the message of that serial is released. home is the slot's before that: what was the current one's may be
// another message's by now.
func (sl *slot) leave(serial, home uint64) {
	if home != homeList {
		if left := homeLeft(serial); sl.home.Load() != left || !sl.home.CompareAndSwap(left, homeList) {
			return // it stays the current one, or whoever took another saw that it is free
		}
	}
	s := sl.owner
	s.mu.Lock()
	sl.route = nil
	s.free = append(s.free, sl)
	s.mu.Unlock()
}

// refuse is for a message that nobody gets.
func (sl *slot) refuse() {
	serial, home := sl.serial.Load(), sl.home.Load()
	sl.void()
	sl.leave(serial, home)
}

// void counts it; the slot is still the caller's.
func (sl *slot) void() {
	sl.owner.refused.Add(1)
	sl.serial.Add(1)
}

// discard is refuse for a message that has been read.
func (sl *slot) discard() {
	if sl.m.block {
		sl.route.giveBack(sl.rec.Seq)
	}
	sl.refuse()
}

// get takes a free slot, or makes one.
func (s *slots) get() *slot {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.free); n > 0 {
		sl := s.free[n-1]
		s.free = s.free[:n-1]
		s.low = min(s.low, n-1)
		return sl
	}
	s.low = 0
	return s.another()
}

// another makes a slot; mu is held.
func (s *slots) another() *slot {
	sl := &slot{owner: s, index: len(s.all)}
	sl.rec.Tag = sl
	s.all = append(s.all, sl)
	return sl
}

// getAll fills into.
func (s *slots) getAll(into []*slot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := copy(into, s.free[max(0, len(s.free)-len(into)):])
	s.free = s.free[:len(s.free)-n]
	s.low = min(s.low, len(s.free))
	for ; n < len(into); n++ {
		into[n] = s.another()
	}
}

// putAll takes back slots of getAll's that nobody has, all of s.
func (s *slots) putAll(sls []*slot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free = append(s.free, sls...)
}

// received is how many of the messages that the inbox found somebody got.
func (s *slots) received(inbox *shmio.Inbox) uint64 {
	refused := s.refused.Load() // first: what is refused was found
	return inbox.Found() - refused
}

// held is how many messages the program has. What was released is counted first: it never exceeds what was found.
func (s *slots) held(inbox *shmio.Inbox) uint64 {
	s.mu.Lock()
	released := s.past
	for _, sl := range s.all {
		released += sl.serial.Load()
	}
	s.mu.Unlock()
	return inbox.Found() - released
}

const (
	keepSlots   = 64  // that a subscription keeps, used or not
	slotGarbage = 336 // bytes of heap that one takes: itself, and its places in the lists
)

// trim lets slots go that nobody has used since the last call, beyond a few. Who still has a message of one, released, still
// sees that it is.
func (s *slots) trim() {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := min(s.low, len(s.all)-keepSlots)
	if s.low = len(s.free); n <= 0 {
		return
	}
	for _, sl := range s.free[:n] {
		s.past += sl.serial.Load()
		last := s.all[len(s.all)-1]
		last.index, s.all[sl.index] = sl.index, last
		s.all = s.all[:len(s.all)-1]
	}
	s.free = slices.Clone(s.free[n:]) // what was large stays large
	s.all = slices.Clone(s.all)
	s.low = len(s.free)
	s.n.garbage.Let(n * slotGarbage)
}
