package node

import (
	"fmt"
	"time"

	"github.com/bhome-bus/bhome/shmio"
)

// Message is one message received, the caller's until Release. It is a small value; copies are the same message. Its
// methods may be called from any goroutine, but not while another releases it.
type Message struct {
	s      *slot
	serial uint64
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
	if !m.valid() {
		return m.misuse()
	}
	sl := m.s
	block, r, seq, home := sl.m.block, sl.route, sl.rec.Seq, sl.home.Load() // before it is another's
	if !sl.serial.CompareAndSwap(m.serial, m.serial+1) {
		return m.misuse()
	}
	if block {
		r.giveBack(seq)
	}
	sl.leave(m.serial, home)
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
