package shmio

import (
	"testing"

	"pgregory.net/rapid"
)

// Against a model that knows for each unit whether it is out.
func TestArenaModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const align = 64
		from := rapid.Uint64Range(0, 5).Draw(t, "from") * align
		units := rapid.Uint64Range(0, 40).Draw(t, "units")
		a := NewArena(from, from+units*align, align)
		out := make([]bool, units)
		used := from
		type given struct{ off, n uint64 }
		var held []given
		mark := func(off, n uint64, to bool) {
			for u := (off - from) / align; u < (off-from+n+align-1)/align; u++ {
				if out[u] == to {
					t.Fatalf("unit %d at offset %d given twice or freed twice", u, off)
				}
				out[u] = to
				used = max(used, from+(u+1)*align)
			}
		}
		gap := func(need uint64) (first uint64, ok bool) { // the model's first fit
			run := uint64(0)
			for u := range units {
				if run++; out[u] {
					run = 0
				}
				if run == need {
					return from + (u+1-need)*align, true
				}
			}
			return 0, false
		}
		free := func(off, need uint64) bool {
			for u := range need {
				if i := (off-from)/align + u; off < from || i >= units || out[i] {
					return false
				}
			}
			return true
		}
		t.Repeat(map[string]func(*rapid.T){
			"alloc": func(t *rapid.T) {
				n := rapid.Uint64Range(1, 12*align).Draw(t, "n")
				off, ok := a.Alloc(n)
				wantOff, wantOK := gap((n + align - 1) / align)
				if ok != wantOK || ok && off != wantOff {
					t.Fatalf("Alloc(%d) = %d, %v; first fit is %d, %v", n, off, ok, wantOff, wantOK)
				}
				if ok {
					mark(off, n, true)
					held = append(held, given{off, n})
				}
			},
			"take": func(t *rapid.T) {
				off := rapid.Uint64Range(0, 50).Draw(t, "unit") * align
				n := rapid.Uint64Range(1, 4*align).Draw(t, "n")
				ok := a.Take(off, n)
				if want := free(off, (n+align-1)/align); ok != want {
					t.Fatalf("Take(%d, %d) = %v", off, n, ok)
				}
				if ok {
					mark(off, n, true)
					held = append(held, given{off, n})
				}
			},
			"free": func(t *rapid.T) {
				if len(held) == 0 {
					t.Skip("nothing is out")
				}
				i := rapid.IntRange(0, len(held)-1).Draw(t, "i")
				g := held[i]
				held = append(held[:i], held[i+1:]...)
				a.Free(g.off, g.n)
				mark(g.off, g.n, false)
			},
			"": func(t *rapid.T) {
				if a.Empty() != (len(held) == 0) {
					t.Fatalf("Empty is %v with %d out", a.Empty(), len(held))
				}
				if a.Used() != used {
					t.Fatalf("used up to %d, want %d", a.Used(), used)
				}
			},
		})
	})
}

func TestArenaEdges(t *testing.T) {
	a := NewArena(4096, 8192, 128)
	for _, n := range []uint64{4097, 1 << 63, ^uint64(0), ^uint64(0) - 126} {
		if off, ok := a.Alloc(n); ok {
			t.Errorf("Alloc(%d) gives %d", n, off)
		}
		if a.Take(4096, n) {
			t.Errorf("Take of %d succeeds", n)
		}
	}
	if a.Take(4097, 1) || a.Take(8192, 1) || a.Take(0, 1) {
		t.Error("Take of what isn't there succeeds")
	}
	off, ok := a.Alloc(0)
	if !ok || off != 4096 || a.Empty() {
		t.Errorf("Alloc(0) is %d, %v", off, ok)
	}
	for name, f := range map[string]func(){
		"free of a gap": func() { a.Free(4224, 128) }, "free beyond": func() { a.Free(8192, 1) }, "free before": func() { a.Free(0, 1) },
		"free of too much": func() { a.Free(4096, 129) }, "odd free": func() { a.Free(4097, 1) }, "huge free": func() { a.Free(4096, ^uint64(0)) },
		"odd arena": func() { NewArena(1, 128, 128) }, "odd alignment": func() { NewArena(0, 96, 96) }, "backwards": func() { NewArena(128, 0, 128) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			f()
		}()
	}
	a.Free(4096, 0)
	if !a.Empty() {
		t.Error("not empty at the end")
	}
}

func TestArenaLeft(t *testing.T) {
	a := NewArena(4096, 64<<10, 64)
	off, _ := a.Alloc(100)
	if _, ok := a.Alloc(64); !ok || a.Left() != 60<<10-128-64 {
		t.Errorf("%d bytes left", a.Left())
	}
	a.Free(off, 100)
	if a.Left() != 60<<10-64 {
		t.Errorf("%d bytes left", a.Left())
	}
}
