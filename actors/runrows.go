package actors

import "iter"

// runRows are the runs with room of an access group, by class; in each row the last is used first. A node uses few of the 256
// classes, and a thousand idle nodes hardly any: a row takes memory from its first run on.
type runRows struct {
	tiers [16]*[16][]*run
}

func (rr *runRows) row(class uint8) []*run {
	if t := rr.tiers[class/16]; t != nil {
		return t[class%16]
	}
	return nil
}

func (rr *runRows) set(class uint8, row []*run) {
	t := rr.tiers[class/16]
	if t == nil {
		t = new([16][]*run)
		rr.tiers[class/16] = t
	}
	t[class%16] = row
}

// all yields the rows that aren't empty. They may change meanwhile.
func (rr *runRows) all() iter.Seq2[uint8, []*run] {
	return func(yield func(uint8, []*run) bool) {
		for class := range 256 {
			if row := rr.row(uint8(class)); len(row) > 0 && !yield(uint8(class), row) {
				return
			}
		}
	}
}
