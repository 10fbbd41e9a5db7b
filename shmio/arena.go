package shmio

import (
	"fmt"
	"slices"
)

// Arena hands out byte ranges of a segment, first fit, coalescing what comes back. It is its owner's bookkeeping, in
// private memory; not for concurrent use.
type Arena struct {
	align    uint64
	from, to uint64
	free     []span // by offset, never adjacent, never empty
	used     uint64 // from here on nothing was ever handed out
}

type span struct{ off, n uint64 }

// NewArena manages [from, to), both multiples of align, which is a power of two. Anything else is a mistake: it panics.
func NewArena(from, to, align uint64) *Arena {
	if align == 0 || align&(align-1) != 0 || from > to || from%align != 0 || to%align != 0 {
		panic(fmt.Sprintf("shmio: an arena of [%d, %d) aligned to %d", from, to, align))
	}
	a := &Arena{align: align, from: from, to: to, used: from}
	if from < to {
		a.free = []span{{from, to - from}}
	}
	return a
}

// rounded is n as it is handed out; false if it is more than there is at all.
func (a *Arena) rounded(n uint64) (uint64, bool) {
	if n > a.to-a.from { // also keeps the rounding from overflowing
		return 0, false
	}
	return roundUp(max(n, 1), a.align), true
}

// Alloc takes n bytes, rounded up to the alignment; false if there is no such gap.
func (a *Arena) Alloc(n uint64) (off uint64, ok bool) {
	if n, ok = a.rounded(n); !ok {
		return 0, false
	}
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
		a.used = max(a.used, off+n)
		return off, true
	}
	return 0, false
}

// Used is where the bytes begin that were never handed out: in a new segment they are zero, and take no memory.
func (a *Arena) Used() uint64 { return a.used }

// Take takes exactly [off, off+n), n rounded up to the alignment; false if it isn't all free.
func (a *Arena) Take(off, n uint64) bool {
	n, ok := a.rounded(n)
	if !ok || off%a.align != 0 {
		return false
	}
	for i, f := range a.free {
		if off < f.off || off-f.off > f.n || n > f.n-(off-f.off) {
			continue
		}
		rest := make([]span, 0, 2)
		for _, s := range []span{{f.off, off - f.off}, {off + n, f.off + f.n - off - n}} {
			if s.n > 0 {
				rest = append(rest, s)
			}
		}
		a.free = slices.Replace(a.free, i, i+1, rest...)
		a.used = max(a.used, off+n)
		return true
	}
	return false
}

// Free returns what Alloc gave for the same n. A range that isn't out is a mistake of the owner's: it panics, before
// two users get the same memory.
func (a *Arena) Free(off, n uint64) {
	n, ok := a.rounded(n)
	i, _ := slices.BinarySearchFunc(a.free, off, func(s span, off uint64) int {
		if s.off < off {
			return -1
		}
		return 1
	}) // the first gap at off or after
	if !ok || off%a.align != 0 || off < a.from || off > a.to-n ||
		i > 0 && a.free[i-1].off+a.free[i-1].n > off || i < len(a.free) && a.free[i].off < off+n {
		panic(fmt.Sprintf("shmio: arena: %d bytes at %d are not out", n, off))
	}
	a.free = slices.Insert(a.free, i, span{off, n})
	if i+1 < len(a.free) && off+n == a.free[i+1].off {
		a.free[i].n += a.free[i+1].n
		a.free = slices.Delete(a.free, i+1, i+2)
	}
	if i > 0 && a.free[i-1].off+a.free[i-1].n == off {
		a.free[i-1].n += a.free[i].n
		a.free = slices.Delete(a.free, i, i+1)
	}
}

// Empty reports whether nothing is out.
func (a *Arena) Empty() bool {
	return a.from == a.to || len(a.free) == 1 && a.free[0] == span{a.from, a.to - a.from}
}

// Left is how many bytes aren't out.
func (a *Arena) Left() (n uint64) {
	for _, s := range a.free {
		n += s.n
	}
	return n
}
