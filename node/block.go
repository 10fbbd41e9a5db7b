package node

import (
	"fmt"
	"sync/atomic"

	"github.com/bhome-bus/bhome/wire"
)

// block is one message block that the center has granted to this node. It is in a magazine (refs 0), loaned (1), or out
// on routes (one reference each); the last reference puts it back.
type block struct {
	// What sending and taking back look at is one cache line: see TestABlockIsTwoLines.
	mem   []byte // header and class payload
	group *blockGroup
	home  *magazineClass // of group: where it is idle
	word  wire.Word      // that names b on a route
	size  int            // payload bytes of the current loan; its holder's
	refs  int32          // references, of this process alone; under the class's mu, but for who has them all (see own)
	gen   uint16
	class uint8

	grant  wire.Grant
	serial atomic.Uint64 // odd while loaned; a Loan carries the value it was made with. Pairs with Loan's checks
	origin string        // Config.Debug: who took the loan
	_      [32]byte      // blocks of two lines begin where a line does
}

// offset is where in mem the header lies that w names.
func (b *block) offset(w wire.Word) int { return int(w.From(b.word)) }

// Returned implements shmio.Held: a route gives its reference back.
func (b *block) Returned(uint64) { b.unref(1) }

// own gives b, which has no references, so many: all the caller's, who has taken b from where nobody refers to it. Without
// the lock: a locked instruction would wait until the payload of the message before has left the core
// (docs/decisions/0027).
func (b *block) own(refs int32) { b.refs = refs }

// ref takes k more references; the caller has one, or knows who does.
func (b *block) ref(k int32) {
	b.home.mu.Lock()
	b.refs += k
	b.home.mu.Unlock()
}

// unref gives k references back, the last of which puts b into the magazine. It never sends: it is called with routes locked.
func (b *block) unref(k int32) {
	m := b.group.mag
	b.home.mu.Lock()
	kept := b.home.drop(b, k)
	b.home.mu.Unlock()
	if !kept {
		m.giveBack(b)
	}
}

// fill makes of b, which has no references, a message of payload's bytes, with so many references.
func (b *block) fill(payload []byte, refs int32) {
	b.own(refs)
	b.size = len(payload)
	copy(b.mem[wire.HeaderSize:], payload)
}

// loan hands b, which has no references, to a caller.
func (b *block) loan(size int) Loan {
	b.own(1)
	b.size = size
	b.group.mag.loaned.Add(1)
	if b.group.mag.n.cfg.Debug {
		b.origin = callers()
	}
	return Loan{b: b, serial: b.serial.Add(1)}
}

// Loan is a message being made: a block of this node's own memory, the caller's until Send or Release. It is a small
// value; copies are the same loan. Not for concurrent use.
type Loan struct {
	b      *block
	serial uint64
}

// Bytes is the payload to fill, of the size asked for; nil once sent or released.
func (l Loan) Bytes() []byte {
	if !l.valid() {
		return nil
	}
	return l.b.mem[wire.HeaderSize : wire.HeaderSize+l.b.size : wire.HeaderSize+l.b.size]
}

// Cap is the most that Resize can ask for, in bytes.
func (l Loan) Cap() int {
	if !l.valid() {
		return 0
	}
	return int(wire.GetAllocSize(int(l.b.class)))
}

// Resize sets the payload's size, 0 to Cap bytes; what was written stays.
func (l Loan) Resize(size int) error {
	if !l.valid() {
		return fmt.Errorf("resize a loan: %w", ErrReleased)
	}
	if size < 0 || size > l.Cap() {
		return fmt.Errorf("resize a loan to %d bytes: %w: its block holds %d", size, ErrTooLarge, l.Cap())
	}
	l.b.size = size
	return nil
}

// Release gives the loan back unsent. The second time, or after Send, it is refused with ErrReleased and counted.
func (l Loan) Release() error {
	if !l.take() {
		return l.misuse("release a loan")
	}
	l.b.unref(1)
	return nil
}

func (l Loan) valid() bool { return l.b != nil && l.b.serial.Load() == l.serial }

// take ends the loan; false if it had ended.
func (l Loan) take() bool {
	if l.b == nil || !l.b.serial.CompareAndSwap(l.serial, l.serial+1) {
		return false
	}
	l.b.group.mag.loaned.Add(-1)
	return true
}

func (l Loan) misuse(what string) error {
	if l.b == nil {
		return fmt.Errorf("%s: %w: it is no loan", what, ErrInvalid)
	}
	n := l.b.group.mag.n
	n.stats.misused.Add(1)
	if n.cfg.Debug {
		n.log.Warn("a loan is used after it was sent or released", "what", what, "by", callers())
	}
	return fmt.Errorf("%s: %w", what, ErrReleased)
}
