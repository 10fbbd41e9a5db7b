package node

import (
	"fmt"
	"time"

	"github.com/bhome-bus/bhome/shmio"
)

// Message is one message received, the caller's until Release. It is a small value; copies are the same message. Its
// methods may be called from any goroutine, but not while another releases it.
type Message struct {
	l   *lot
	tag uint64 // the lot's serial at that time, and the place
}

// slot is where the message lies; nil: it is released, or was none.
func (m Message) slot() *slot {
	if m.l == nil {
		return nil
	}
	w := m.l.word.Load() // pairs with lot.release
	if (w^m.tag)>>serialShift != 0 || w>>(m.tag&placeMask)&1 != 0 {
		return nil
	}
	return m.l.slots[m.tag&placeMask]
}

// note notes for Config.Debug who takes the message.
func (m Message) note() {
	if m.l.takers != nil {
		who := callers()
		m.l.takers[m.tag&placeMask].Store(&who)
	}
}

// Bytes is the payload, valid until Release (nil after). It is the sender's memory, mapped read-only: a hostile sender can
// change it while it is read; Copy can't be changed.
func (m Message) Bytes() []byte {
	sl := m.slot()
	if sl == nil {
		return nil
	}
	return sl.rec.Payload
}

// Copy is the payload in memory of the caller's own.
func (m Message) Copy() []byte { return append([]byte(nil), m.Bytes()...) }

// Topic is the topic it was published on; "" after Release.
func (m Message) Topic() string {
	sl := m.slot()
	if sl == nil {
		return ""
	}
	return *sl.topic
}

// Publisher is the name of the process that sent it.
func (m Message) Publisher() string {
	if m.slot() == nil {
		return ""
	}
	return m.l.route.peer.name
}

// PublisherSession is the session of the process that sent it: unlike a name it is never used again.
func (m Message) PublisherSession() uint64 {
	if m.slot() == nil {
		return 0
	}
	return m.l.route.peer.session
}

// Seq is the publisher's sequence number on this topic, from 1; a gap shows what was dropped.
func (m Message) Seq() uint64 {
	sl := m.slot()
	if sl == nil {
		return 0
	}
	return sl.seq
}

// Age is how long ago it was sent, to about 4 ms, by the machine's monotonic clock.
func (m Message) Age() time.Duration {
	sl := m.slot()
	if sl == nil {
		return 0
	}
	return sl.age()
}

// Release gives the message back to its sender. The second time is refused with ErrReleased and counted.
func (m Message) Release() error {
	sl := m.slot()
	if sl == nil {
		return m.misuse()
	}
	l := m.l
	r, home, serial := l.route, l.home.Load(), m.tag>>serialShift // before they are another's
	block, run, seq := sl.rec.IsBlock(), sl.rec.Run(), sl.rec.Seq
	ok, all := l.release(serial, 1<<(m.tag&placeMask))
	if !ok {
		return m.misuse()
	}
	switch {
	case run != nil:
		r.giveBackRun(run, 1)
	case block:
		r.giveBack(seq)
	}
	if l.single() {
		l.leave(serial, home)
		return nil
	}
	s := l.owner
	s.taken.Add(1)
	if all {
		s.giveBack([]*slot{sl}, l)
	} else {
		s.giveBack([]*slot{sl})
	}
	return nil
}

func (m Message) misuse() error {
	if m.l == nil {
		return fmt.Errorf("release a message: %w: it is no message", ErrInvalid)
	}
	n := m.l.owner.n
	n.stats.misused.Add(1)
	if n.cfg.Debug {
		taken := ""
		if o := m.l.takers[m.tag&placeMask].Load(); o != nil { // of who has the place now, if it isn't m's any more
			taken = *o
		}
		n.log.Warn("a message is released twice", "taken", taken, "by", callers())
	}
	return fmt.Errorf("release a message: %w", ErrReleased)
}

// age is how long ago it was sent.
func (m *received) age() time.Duration { return m.ageAt(shmio.CoarseNow()) }

// ageAt is age at now. An inline record says only the low half of the milliseconds.
func (m *received) ageAt(now uint64) time.Duration {
	if !m.rec.IsBlock() {
		ms := int32(uint32(now/1e6) - m.rec.Head.Stamp())
		return time.Duration(max(ms, 0)) * time.Millisecond
	}
	if stamp := m.rec.Head.Meta; stamp < now {
		return time.Duration(now - stamp)
	}
	return 0
}
