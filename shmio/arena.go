package shmio

import "slices"

// Arena hands out ranges of a segment, first fit, coalescing what comes back. It is its owner's bookkeeping, in private
// memory; not for concurrent use.
type Arena struct {
	align uint64
	total uint64
	free  []span // by offset, never adjacent
}

type span struct{ off, n uint64 }

// NewArena manages [from, to), both multiples of align.
func NewArena(from, to, align uint64) *Arena {
	return &Arena{align: align, total: to - from, free: []span{{from, to - from}}}
}

// Alloc takes n bytes, rounded up to the alignment; false if there is no such gap.
func (a *Arena) Alloc(n uint64) (off uint64, ok bool) {
	n = roundUp(max(n, 1), a.align)
	for i := range a.free {
		f := &a.free[i]
		if f.n < n {
			continue
		}
		off = f.off
		f.off += n
		f.n -= n
		if f.n == 0 {
			a.free = slices.Delete(a.free, i, i+1)
		}
		return off, true
	}
	return 0, false
}

// Free returns what Alloc gave for the same n.
func (a *Arena) Free(off, n uint64) {
	n = roundUp(max(n, 1), a.align)
	i, _ := slices.BinarySearchFunc(a.free, off, func(s span, off uint64) int {
		if s.off < off {
			return -1
		}
		return 1
	})
	a.free = slices.Insert(a.free, i, span{off, n})
	if i+1 < len(a.free) && a.free[i].off+a.free[i].n == a.free[i+1].off {
		a.free[i].n += a.free[i+1].n
		a.free = slices.Delete(a.free, i+1, i+2)
	}
	if i > 0 && a.free[i-1].off+a.free[i-1].n == a.free[i].off {
		a.free[i-1].n += a.free[i].n
		a.free = slices.Delete(a.free, i, i+1)
	}
}

// Empty reports whether everything has come back.
func (a *Arena) Empty() bool { return len(a.free) == 1 && a.free[0].n == a.total }
