package shmio

// Return gives back blocks of one message each, in any order, each once for each time that it was received. While the ring of returns is
// full they wait in the Reader and go with a later call.
func (r *Reader) Return(seqs ...uint64) {
	r.giveBack(seqs...)
	r.released(int64(len(seqs)))
}

// released counts k blocks as held no more.
func (r *Reader) released(k int64) {
	if left := r.held.Add(-k); left < 0 {
		r.held.Add(min(-left, k)) // more returns than blocks: the writer ignores and counts them
	}
	if r.starved.Load() && r.held.Load() < r.spec.holdLimit() && r.starved.CompareAndSwap(true, false) {
		if in := r.inbox.Load(); in != nil {
			in.Wake(r)
		}
	}
}

// skip returns a message that was found dropped, without having read it: twice, which tells the writer so.
func (r *Reader) skip(seq uint64) {
	r.at("return")
	r.giveBack(seq, seq)
}

// giveBack writes returns and publishes them together; what finds the ring full is kept.
func (r *Reader) giveBack(seqs ...uint64) {
	r.mu.Lock()
	defer r.mu.Unlock() // also when the peer's memory faults
	if r.peer == nil || r.gone || r.dead.Load() {
		return // nobody takes it
	}
	for _, seq := range seqs {
		if len(r.backlog) > 0 || !r.putReturn(seq) {
			r.backlog = append(r.backlog, seq)
			r.waiting.Store(true)
		}
	}
	r.flush()
}

// putReturn writes one entry; false: the ring is full. Called with mu held.
func (r *Reader) putReturn(seq uint64) bool {
	size := uint64(len(r.rets))
	if r.retTail-r.retHead >= size {
		h := r.peer.returnedHd.Load() // pairs with Writer.Reclaim: entries before it were taken
		if r.retTail-h > size {
			return false // rubbish; the ring just stays full
		}
		if r.retHead = h; r.retTail-h == size {
			return false
		}
	}
	// Plainly: the writer doesn't read it before returnedTail is stored, and has done reading what was there.
	r.rets[r.retTail&(size-1)] = seq
	r.retTail++
	return true
}

// flush writes what waited and publishes all. Called with mu held.
func (r *Reader) flush() {
	if len(r.backlog) > 0 {
		if r.dead.Load() {
			r.backlog = nil
		}
		n := 0
		for n < len(r.backlog) && r.putReturn(r.backlog[n]) {
			n++
		}
		r.backlog = r.backlog[:copy(r.backlog, r.backlog[n:])]
		if len(r.backlog) == 0 {
			r.backlog = nil
			r.waiting.Store(false)
		}
	}
	if r.half.returnedTail.Load() != r.retTail {
		r.half.returnedTail.Store(r.retTail) // pairs with Writer.Reclaim
		r.ringSpace()
	}
}

// With how many other routes that have something to read a reader may let a writer sleep longer, and until it has read all.
const (
	manyOthers    = 8
	crowdOfOthers = 64
)

// ringSpace rings a writer that waits for space, once for each time that it fell asleep: not for each slot that gets
// free, or the two would take turns at every message, but when a quarter of what waited then is read (three where the reader
// has enough else to read), or all.
func (r *Reader) ringSpace() {
	last := r.spaceFor.Load() // first: or an epoch that another goroutine has since rung beyond would look like a new one
	r.at("wantsSpace")
	e := r.peer.wantsSpace.Load() // pairs with Writer.ArmSpace: it stores wantsSpace, then loads head and returnedTail
	if e == 0 || e == last || r.bell == nil {
		return
	}
	head, tail := r.half.head.Load(), r.peer.tail.Load()
	if r.spaceSeen.Swap(e) != e { // several may see it first: they come to about the same
		part := uint64(1)
		if in := r.inbox.Load(); in != nil { // pairs with Inbox.heat
			switch others := in.others.Load(); {
			case others >= crowdOfOthers:
				part = 4
			case others >= manyOthers:
				part = 3 // there is enough to read meanwhile
			}
		}
		r.spaceAt.Store(head + (tail-head)*part/4)
	}
	if head != tail && ahead(r.spaceAt.Load(), head) {
		return
	}
	if r.spaceFor.CompareAndSwap(last, e) {
		r.bell.Ring(uint32(r.id))
	}
}

// flushReturns tries again what found the ring of returns full. false: there is more waiting than a writer that takes
// returns at all leaves.
func (r *Reader) flushReturns() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gone {
		return true
	}
	r.flush()
	return len(r.backlog) <= len(r.rets) || r.dead.Load()
}
