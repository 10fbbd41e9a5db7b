package shmio

import (
	"sync/atomic"

	"github.com/bhome-bus/bhome/wire"
)

// outEntry is the private twin of one entry of the shared out table. It is half a cache line: the tables of a message that
// goes to many are what its sender's cache has to hold.
type outEntry struct {
	held  Held
	seq   uint64
	size  uint32
	used  bool
	limbo bool // dropped while the reader was taking it: what its return says tells which it was
}

// outTable knows which blocks of a route are out. The shared words are there for others to read (inspection, a
// restarted center); decisions are made on the private twin alone, which has the same entries at the same places: open
// addressing from seq mod size, linear probing, deletion by shifting back, so that no tombstones gather. What is out
// usually stands in one run without gaps, in which everything has its own place: nothing is looked for to shift then.
type outTable struct {
	shared  []uint64   // {seq+1, word} pairs in the writer half
	entries []outEntry // nil until something is out: most links never send a block
	mask    uint64
	n       int
	strays  int // entries that aren't at their own place
	bytes   uint64
}

func newOutTable(shared []uint64) outTable {
	return outTable{shared: shared, mask: uint64(len(shared)/2 - 1)}
}

// put enters a block that isn't in the table; there is always room, as the table is twice as long as Out.
func (t *outTable) put(seq, word, size uint64, h Held) {
	if t.entries == nil {
		t.entries = make([]outEntry, t.mask+1)
	}
	i := seq & t.mask
	for t.entries[i].used {
		i = (i + 1) & t.mask
	}
	e := &t.entries[i]
	e.held, e.seq, e.size, e.used, e.limbo = h, seq, uint32(size), true, false // size is of at most wire.MaxMessage
	t.show(i, seq, word)
	if i != seq&t.mask {
		t.strays++
	}
	t.n++
	t.bytes += size
}

// putRun is put of the first of ms, which get the numbers from seq on, as long as they may have their own places and are of no more than so
// many bytes together; it returns how many those are.
func (t *outTable) putRun(seq uint64, ms []Outgoing, most uint64) (n int) {
	if t.entries == nil {
		t.entries = make([]outEntry, t.mask+1)
	}
	entries, shared, bytes := t.entries, t.shared, uint64(0)
	for i := range ms {
		m := &ms[i]
		at := seq & uint64(len(entries)-1)
		e := &entries[at]
		if e.used || bytes+m.Size > most || m.Word.IsCommand() {
			break
		}
		bytes += m.Size
		e.held, e.seq, e.size, e.used, e.limbo = m.Held, seq, uint32(m.Size), true, false
		storeStat(&shared[2*at+1], uint64(m.Word)) // as show does
		storeStat(&shared[2*at], seq+1)
		seq++
		n++
	}
	t.n += n
	t.bytes += bytes
	return n
}

// find returns the place of seq in the table, -1 when it isn't out.
func (t *outTable) find(seq uint64) int {
	if t.n == 0 {
		return -1
	}
	for i := seq & t.mask; t.entries[i].used; i = (i + 1) & t.mask {
		if t.entries[i].seq == seq {
			return int(i)
		}
	}
	return -1
}

// remove takes the entry at place i out, and returns who held it.
func (t *outTable) remove(at int) Held {
	e := &t.entries[at]
	held, size := e.held, e.size
	hole := uint64(at)
	if hole != e.seq&t.mask {
		t.strays--
	}
	for i := (hole + 1) & t.mask; t.strays > 0 && t.entries[i].used; i = (i + 1) & t.mask {
		// An entry may move back into the hole unless its own place lies behind it.
		if (i-t.entries[i].seq)&t.mask < (i-hole)&t.mask {
			continue
		}
		t.entries[hole] = t.entries[i]
		if hole == t.entries[i].seq&t.mask { // it was a stray: it had another place than this
			t.strays--
		}
		// Before its old place is cleared: who dies or looks in between shows it twice, never not at all.
		t.hide(hole)
		t.show(hole, t.entries[hole].seq, t.shared[2*i+1])
		hole = i
	}
	e = &t.entries[hole]
	e.held, e.used = nil, false
	t.hide(hole)
	t.n--
	t.bytes -= uint64(size)
	return held
}

// removeRun takes out what the returns in rets say, in turn, from from on and before to, as long as that is simple: each stands in its own
// place, so does everything else, and none is in limbo. Who held them it puts into held, as long as there is room; it returns how many
// it took out.
func (t *outTable) removeRun(rets []uint64, from, to uint64, held []Held) (n int) {
	if t.n == 0 || t.strays > 0 {
		return 0
	}
	entries, shared, bytes := t.entries, t.shared, uint64(0)
	for ; from != to && n < len(held); from++ {
		seq := atomic.LoadUint64(&rets[from&uint64(len(rets)-1)])
		at := seq & uint64(len(entries)-1)
		e := &entries[at]
		if !e.used || e.limbo || e.seq != seq || e.held == nil {
			break
		}
		held[n] = e.held
		e.held, e.used = nil, false
		storeStat(&shared[2*at], 0) // as hide does
		bytes += uint64(e.size)
		n++
	}
	t.n -= n
	t.bytes -= bytes
	return n
}

// show enters a block at place i of the shared words, which shows none: the key last.
func (t *outTable) show(i, seq, word uint64) {
	storeStat(&t.shared[2*i+1], word)
	storeStat(&t.shared[2*i], seq+1)
}

// hide takes it out: without a key the word says nothing.
func (t *outTable) hide(i uint64) { storeStat(&t.shared[2*i], 0) }

// scanTable calls f for what a (hostile) table shows to be out.
func scanTable(shared []uint64, f func(seq uint64, word wire.Word)) {
	for i := 0; i+1 < len(shared); i += 2 {
		key, word := atomic.LoadUint64(&shared[i]), atomic.LoadUint64(&shared[i+1])
		if key != 0 {
			f(key-1, wire.Word(word))
		}
	}
}
