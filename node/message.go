package node

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

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
	origin string
}

// slots recycles a subscription's slots. Safe for concurrent use.
type slots struct {
	n     *Node
	spare atomic.Pointer[slot] // the one used last, if nobody has it; pairs with itself: whoever swaps it out has it
	mu    sync.Mutex
	free  []*slot
	low   int // the fewest that were free since the last trim
	all   []*slot
	past  uint64 // serials of slots that are no more
}

func (s *slots) get() *slot {
	if sl := s.spare.Swap(nil); sl != nil {
		return sl
	}
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
	s.all = append(s.all, sl)
	return sl
}

// released counts the messages that were released.
func (s *slots) released() (n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n = s.past
	for _, sl := range s.all {
		n += sl.serial.Load()
	}
	return n
}

const (
	keepSlots   = 64  // that a subscription keeps, used or not
	slotGarbage = 288 // bytes of heap that one takes: itself, and its places in the lists
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

func (s *slots) put(sl *slot) {
	sl.route = nil
	if s.spare.CompareAndSwap(nil, sl) {
		return
	}
	s.mu.Lock()
	s.free = append(s.free, sl)
	s.mu.Unlock()
}

// Message is one message received, the caller's until Release. It is a small value; copies are the same message. Its
// methods may be called from any goroutine, but not while another releases it.
type Message struct {
	s      *slot
	serial uint64
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

// putAll takes back slots that nobody has, all of s.
func (s *slots) putAll(sls []*slot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free = append(s.free, sls...)
}

func (sl *slot) message() Message {
	if sl.owner.n.cfg.Debug {
		sl.origin = callers()
	}
	return Message{s: sl, serial: sl.serial.Load()}
}

func (m Message) valid() bool { return m.s != nil && m.s.serial.Load() == m.serial }

// Bytes is the payload, valid until Release (nil after). It is the sender's memory, mapped read-only: a hostile sender can
// change it while it is read; Copy can't be changed.
func (m Message) Bytes() []byte {
	if !m.valid() {
		return nil
	}
	return m.s.m.payload
}

// Copy is the payload in memory of the caller's own.
func (m Message) Copy() []byte { return append([]byte(nil), m.Bytes()...) }

// Topic is the topic it was published on; "" after Release.
func (m Message) Topic() string {
	if !m.valid() {
		return ""
	}
	return m.s.topic
}

// Publisher is the name of the process that sent it.
func (m Message) Publisher() string {
	if !m.valid() {
		return ""
	}
	return m.s.route.peer.name
}

// PublisherSession is the session of the process that sent it: unlike a name it is never used again.
func (m Message) PublisherSession() uint64 {
	if !m.valid() {
		return 0
	}
	return m.s.route.peer.session
}

// Seq is the publisher's sequence number on this topic, from 1; a gap shows what was dropped.
func (m Message) Seq() uint64 {
	if !m.valid() {
		return 0
	}
	return m.s.m.seq
}

// Age is how long ago it was sent, to about 4 ms, by the machine's monotonic clock.
func (m Message) Age() time.Duration {
	if !m.valid() {
		return 0
	}
	return m.s.m.age()
}

// Release gives the message back to its sender. The second time is refused with ErrReleased and counted.
func (m Message) Release() error {
	if m.s == nil || !m.s.serial.CompareAndSwap(m.serial, m.serial+1) {
		return m.misuse()
	}
	sl := m.s
	if sl.m.block {
		sl.route.giveBack(sl.rec.Seq)
	}
	sl.owner.put(sl)
	return nil
}

func (m Message) misuse() error {
	if m.s == nil {
		return fmt.Errorf("release a message: %w: it is no message", ErrInvalid)
	}
	n := m.s.owner.n
	n.stats.misused.Add(1)
	if n.cfg.Debug {
		n.log.Warn("a message is released twice", "taken", m.s.origin, "by", callers())
	}
	return fmt.Errorf("release a message: %w", ErrReleased)
}

// age is how long ago it was sent. An inline record says only the low half of the milliseconds.
func (m *received) age() time.Duration {
	now := shmio.CoarseNow()
	if !m.block {
		ms := int32(uint32(now/1e6) - uint32(m.stamp))
		return time.Duration(max(ms, 0)) * time.Millisecond
	}
	if m.stamp > now {
		return 0
	}
	return time.Duration(now - m.stamp)
}
