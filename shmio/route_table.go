package shmio

import (
	"sync/atomic"

	"github.com/bhome-bus/bhome/wire"
)

// outEntry is the private twin of one entry of the shared out table.
type outEntry struct {
	seq   uint64
	word  uint64
	size  uint64
	held  Held
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
	t.entries[i] = outEntry{seq: seq, word: word, size: size, held: h, used: true}
	t.publish(i)
	if i != seq&t.mask {
		t.strays++
	}
	t.n++
	t.bytes += size
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

// remove takes the entry at place i out.
func (t *outTable) remove(at int) outEntry {
	e := t.entries[at]
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
		t.publish(hole) // before its old place is cleared: who dies or looks in between shows it twice, never not at all
		hole = i
	}
	t.entries[hole] = outEntry{}
	t.publish(hole)
	t.n--
	t.bytes -= e.size
	return e
}

// publish copies entry i to the shared words, the key last when it is entered and first when it goes.
func (t *outTable) publish(i uint64) {
	e := &t.entries[i]
	if !e.used {
		storeStat(&t.shared[2*i], 0)
		storeStat(&t.shared[2*i+1], 0)
		return
	}
	storeStat(&t.shared[2*i], 0)
	storeStat(&t.shared[2*i+1], e.word)
	storeStat(&t.shared[2*i], e.seq+1)
}

// scanTable calls f for what a (hostile) table shows to be out.
func scanTable(shared []uint64, f func(seq uint64, word wire.Word)) {
	for i := 0; i+1 < len(shared); i += 2 {
		key, word := atomic.LoadUint64(&shared[i]), atomic.LoadUint64(&shared[i+1])
		if key != 0 {
			f(key-1, wire.Word(word))
		}
	}
}
