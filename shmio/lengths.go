package shmio

// lengths is how many slots each of the unread messages of a route takes, the oldest first: as runs, since most messages are
// as long as the one before. To look it up in the ring would take the lines there from the reader. The zero lengths has none.
type lengths struct {
	runs []lengthRun // a power of two of them; those in use are consecutive
	at   int         // the oldest
	n    int         // runs in use
	last *lengthRun  // the youngest; nil if there is none
}

type lengthRun struct {
	slots uint32 // of each message
	count uint32 // messages, at least one
}

// add appends so many messages of the same length.
func (l *lengths) add(slots, messages uint32) {
	if messages == 0 {
		return
	}
	if last := l.last; last != nil && last.slots == slots {
		last.count += messages
		return
	}
	l.begin(slots, messages)
}

// begin begins a run.
func (l *lengths) begin(slots, messages uint32) {
	if l.n == len(l.runs) {
		runs := make([]lengthRun, max(2, 2*l.n))
		for i := range l.n {
			runs[i] = l.runs[(l.at+i)&(l.n-1)]
		}
		l.runs, l.at = runs, 0
	}
	l.last = &l.runs[(l.at+l.n)&(len(l.runs)-1)]
	*l.last = lengthRun{slots, messages}
	l.n++
}

// pop takes the oldest message out and returns its length. There must be one.
func (l *lengths) pop() uint64 {
	r := &l.runs[l.at]
	l.take(r, 1)
	return uint64(r.slots)
}

// pass takes out the messages that begin in the first so many slots, and returns how many they are and how many slots
// they take: more than asked for if the last of them ends beyond.
func (l *lengths) pass(slots uint64) (messages uint32, took uint64) {
	for l.n > 0 && took < slots {
		r := &l.runs[l.at]
		each := uint64(r.slots)
		k := uint32(min((slots-took+each-1)/each, uint64(r.count)))
		l.take(r, k)
		messages += k
		took += uint64(k) * each
	}
	return messages, took
}

// take takes k messages out of the oldest run r.
func (l *lengths) take(r *lengthRun, k uint32) {
	if r.count -= k; r.count == 0 {
		l.at = (l.at + 1) & (len(l.runs) - 1)
		if l.n--; l.n == 0 {
			l.last = nil
		}
	}
}

// walk calls f with the place of each message, the oldest of which begins at c, until f returns false.
func (l *lengths) walk(c uint64, f func(c uint64) bool) {
	for i := range l.n {
		r := l.runs[(l.at+i)&(len(l.runs)-1)]
		for range r.count {
			if !f(c) {
				return
			}
			c += uint64(r.slots)
		}
	}
}
