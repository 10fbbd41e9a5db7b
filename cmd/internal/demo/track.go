package demo

import (
	"fmt"
	"sort"
)

// Track is what a subscriber has seen of one publisher's session. Positions are contiguous if nothing was lost, doubled or
// misplaced, and then, with the names right, each file came exactly once per pass.
type Track struct {
	Publisher string
	Session   uint64
	First     uint64 // position of the first message received
	Next      uint64 // after the last
	Count     uint64
	Gaps      uint64 // positions skipped
	Repeats   uint64 // positions that came again, or late
	Misnamed  uint64 // files that aren't the ones of their position
}

// add notes a message; named says whether it carried the right name.
func (t *Track) add(position uint64, named bool) {
	switch {
	case t.Count == 0:
		t.First = position
	case position > t.Next:
		t.Gaps += position - t.Next
	case position < t.Next:
		t.Repeats++
	}
	t.Count++
	t.Next = max(t.Next, position+1)
	if !named {
		t.Misnamed++
	}
}

// expectation is what a subscriber must have of one publisher's session.
type expectation struct {
	Publisher string
	Session   uint64
	// From is the position from which on everything must be there; earlier ones may.
	From uint64
	// Least and Most bound how many the publisher sent, counted from position 0; equal for one that ended well.
	Least, Most uint64
	// Exact: nothing before From may be there.
	Exact bool
}

// check compares what a subscriber tracked with what it must have; each fault is a sentence.
func check(subscriber string, tracks []Track, want []expectation) (faults []string) {
	fault := func(format string, args ...any) {
		faults = append(faults, subscriber+": "+fmt.Sprintf(format, args...))
	}
	seen := make(map[uint64]Track, len(tracks))
	for _, t := range tracks {
		seen[t.Session] = t
	}
	for _, w := range want {
		t, ok := seen[w.Session]
		delete(seen, w.Session)
		if !ok {
			if w.Least > w.From {
				fault("nothing of %s (session %x) arrived, %d files were due", w.Publisher, w.Session, w.Least-w.From)
			}
			continue
		}
		if t.First > w.From {
			fault("of %s, files %d to %d are missing at the beginning", w.Publisher, w.From, t.First-1)
		}
		if w.Exact && t.First < w.From {
			fault("of %s, file %d came, from before the beginning at %d", w.Publisher, t.First, w.From)
		}
		if t.Gaps > 0 {
			fault("of %s, %d files were lost in between", w.Publisher, t.Gaps)
		}
		if t.Repeats > 0 {
			fault("of %s, %d files came twice or out of order", w.Publisher, t.Repeats)
		}
		if t.Misnamed > 0 {
			fault("of %s, %d messages carried another file than was due", w.Publisher, t.Misnamed)
		}
		if t.Next < w.Least {
			fault("of %s, only %d of %d files arrived", w.Publisher, t.Next, w.Least)
		}
		if t.Next > w.Most {
			fault("of %s, %d files arrived, though it sent at most %d", w.Publisher, t.Next, w.Most)
		}
	}
	var strangers []uint64
	for s := range seen {
		strangers = append(strangers, s)
	}
	sort.Slice(strangers, func(i, j int) bool { return strangers[i] < strangers[j] })
	for _, s := range strangers {
		fault("%d files came from %s (session %x), which wasn't expected", seen[s].Count, seen[s].Publisher, s)
	}
	return faults
}
