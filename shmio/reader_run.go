package shmio

import (
	"sync/atomic"

	"github.com/bhome-bus/bhome/wire"
)

// Run is messages that lie in one block: their words follow one another, all but the last with wire.Word.More. The block is returned
// once, under the number of the last, when all of them are released.
type Run struct {
	left  atomic.Int64 // of them that are not released; runOpen more until the last has come. Pairs with ReturnRun
	last  uint64       // number of the last one; set before left loses runOpen
	count int64        // that have come; the receiver's alone
}

// runOpen is more than there are slots.
const runOpen = 1 << 32

// runNext tells whether the next message is of a run.
func (r *Reader) runNext() bool {
	w := wire.Word(atomic.LoadUint64(&r.ring[r.next&uint64(len(r.ring)-1)]))
	return !w.IsCommand() && (r.run != nil || w.More())
}

// takeOfRun takes what it can of the run that the next message is of, of which there is room for so many, and returns how many it took.
// What is next then is for take to look at.
func (r *Reader) takeOfRun(recs []*Record, room int64) (n int) {
	run := r.begin()
	ring, seq := r.ring, r.next
	most := min(len(recs), int(min(r.tail-seq, uint64(max(room, 0)))))
	over := false
	for n < most && !over {
		w := wire.Word(atomic.LoadUint64(&ring[seq&uint64(len(ring)-1)])) // once: the writer may be hostile
		if _, _, ok := w.Place(); !ok {
			break
		}
		over = !w.More()
		rec := recs[n]
		rec.Seq, rec.Word, rec.Payload, rec.run = seq, w, nil, run
		seq++
		n++
	}
	r.next = seq
	run.count += int64(n)
	if over {
		r.endRun(seq - 1)
	} else {
		r.checkRun(seq)
	}
	return n
}

// checkRun cuts the route if the run, of which more is to come from slot seq on, is longer than the queue.
func (r *Reader) checkRun(seq uint64) {
	if r.run.count >= int64(r.spec.Depth) {
		_ = r.fail("slot %#x: after %d messages in a block there are to be more, in a queue for %d", seq, r.run.count, r.spec.Depth) // it stays
	}
}

// inRun is the run of the block message w, number seq, which is in one: the one before says so, or w does.
func (r *Reader) inRun(w wire.Word, seq uint64) *Run {
	run := r.begin()
	run.count++
	if w.More() {
		r.checkRun(seq + 1)
	} else {
		r.endRun(seq)
	}
	return run
}

// endRun ends the run of which the last message, number seq, has just come.
func (r *Reader) endRun(seq uint64) {
	run := r.run
	run.last, r.run = seq, nil
	run.left.Add(run.count - runOpen) // the last one isn't released yet: more than 0 is left
}

// begin is the run that messages are taken of: the one that has begun, or else a new one.
func (r *Reader) begin() *Run {
	if r.run != nil {
		return r.run
	}
	r.mu.Lock()
	if n := len(r.runs); n > 0 {
		r.run = r.runs[n-1]
		r.runs = r.runs[:n-1]
	}
	r.mu.Unlock()
	if r.run == nil {
		r.run = new(Run)
	}
	r.run.count = 0
	r.run.left.Store(runOpen)
	return r.run
}

// Run is that of a message that lies in a block with others; nil: it doesn't.
func (r *Record) Run() *Run {
	if !r.IsBlock() {
		return nil // run is that of what was in the Record before
	}
	return r.run
}

// ReturnRecord is Return or ReturnRun of a message that lies in a block.
func (r *Reader) ReturnRecord(rec *Record) {
	if rec.run != nil {
		r.ReturnRun(rec.run, 1)
	} else {
		r.Return(rec.Seq)
	}
}

// ReturnRun is Return of n messages of a run: with the last of them the block goes back.
func (r *Reader) ReturnRun(run *Run, n int) {
	if run.left.Add(-int64(n)) == 0 { // pairs with endRun
		r.giveBack(run.last)
		r.mu.Lock()
		r.runs = append(r.runs, run)
		r.mu.Unlock()
	}
	r.released(int64(n))
}
