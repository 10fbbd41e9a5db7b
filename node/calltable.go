package node

// callTable knows the calls that wait for an answer, by correlation ids, which it gives: 1, 2, 3 and so on, but for those whose
// place an older call still has. The zero callTable is empty; not for concurrent use.
type callTable struct {
	entries []callEntry // a power of two; a call's is that of its id modulo their number
	n       int
	last    uint64 // id
}

type callEntry struct {
	id uint64
	c  *pendingCall // nil: free
}

// add enters a call and returns its id.
func (t *callTable) add(c *pendingCall) uint64 {
	if 2*t.n >= len(t.entries) {
		t.grow()
	}
	for {
		t.last++
		if e := t.at(t.last); e.c == nil {
			*e = callEntry{t.last, c}
			t.n++
			return t.last
		}
	}
}

func (t *callTable) at(id uint64) *callEntry { return &t.entries[id&uint64(len(t.entries)-1)] }

// grow doubles the entries: two ids that have places of their own keep having them.
func (t *callTable) grow() {
	old := t.entries
	t.entries = make([]callEntry, max(8, 2*len(old)))
	for _, e := range old {
		if e.c != nil {
			*t.at(e.id) = e
		}
	}
}

// get is the call of an id, whosever word that is; nil: there is none.
func (t *callTable) get(id uint64) *pendingCall {
	if t.n == 0 {
		return nil
	}
	if e := t.at(id); e.id == id {
		return e.c
	}
	return nil
}

// remove takes out the call of an id, which is there.
func (t *callTable) remove(id uint64) {
	t.at(id).c = nil
	t.n--
}

// all calls f for each; f may remove that one.
func (t *callTable) all(f func(id uint64, c *pendingCall)) {
	for _, e := range t.entries {
		if e.c != nil {
			f(e.id, e.c)
		}
	}
}
