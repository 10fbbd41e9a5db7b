package actors

import (
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/bhome-bus/bhome/shmio"
	"github.com/bhome-bus/bhome/wire"
)

// modelBlock is a granted block as the model knows it.
type modelBlock struct {
	grant      wire.Grant
	class      uint8
	from, to   uint64 // bytes of the node's space
	base       uint32 // of its segment
	generation uint32
}

// pagesModel says what nodePages may do, in the simplest way: all granted blocks in one list.
type pagesModel struct {
	n      *nodePages
	nextID uint32
	live   []modelBlock
	dead   []wire.Grant // given back
	segs   map[uint32]*dataSegment
	gens   map[uint32]uint32 // generation after the last drop of a base
}

func newPagesModel() *pagesModel {
	return &pagesModel{n: newNodePages(), segs: map[uint32]*dataSegment{}, gens: map[uint32]uint32{}}
}

func (m *pagesModel) addSegment(t rapidT, size uint64) {
	base, gen, ok := m.n.reserve(size)
	if !ok {
		t.Fatalf("no room for a segment of %d bytes", size)
	}
	if base == 0 || base%256 != 0 || uint64(base)*placeBytes+size > spaceBytes {
		t.Fatalf("a segment of %d bytes at base %#x", size, base)
	}
	if gen != m.gens[base] {
		t.Fatalf("base %#x has generation %d, want %d", base, gen, m.gens[base])
	}
	for _, d := range m.segs {
		if uint64(base)*placeBytes < uint64(d.base)*placeBytes+d.size && uint64(d.base)*placeBytes < uint64(base)*placeBytes+size {
			t.Fatalf("segment at %#x overlaps that at %#x", base, d.base)
		}
	}
	d := &dataSegment{base: base, generation: gen, size: size}
	m.n.add(d)
	m.segs[base] = d
}

type rapidT interface {
	Fatalf(format string, args ...any)
	Helper()
}

func (m *pagesModel) alloc(t rapidT, class uint8) bool {
	t.Helper()
	id := m.nextID
	m.nextID = (m.nextID + 1) % (1 << 28)
	place, ok := m.n.alloc("", class, id, 1)
	if !ok {
		return false
	}
	if _, err := wire.Message(place, 0); err != nil || place%4 != 0 || place == 0 {
		t.Fatalf("place %#x: %v", place, err)
	}
	b := modelBlock{grant: wire.NewGrant(id, place), class: class, from: uint64(place) * placeBytes, to: uint64(place)*placeBytes + wire.BlockSize(class)}
	in := false
	for _, d := range m.segs {
		if b.from >= uint64(d.base)*placeBytes+shmio.FirstBlock && b.to <= uint64(d.base)*placeBytes+d.size {
			in, b.base, b.generation = true, d.base, d.generation
		}
	}
	if !in {
		t.Fatalf("a block of class %d at place %#x lies in no segment", class, place)
	}
	for _, o := range m.live {
		if b.from < o.to && o.from < b.to {
			t.Fatalf("a block of class %d at %#x overlaps one of class %d at %#x", class, b.from, o.class, o.from)
		}
	}
	m.live = append(m.live, b)
	return true
}

func (m *pagesModel) free(t rapidT, i int) {
	t.Helper()
	b := m.live[i]
	m.live = slices.Delete(m.live, i, i+1)
	if !m.n.release(b.grant, 2) {
		t.Fatalf("grant %#x isn't freed", uint64(b.grant))
	}
	if m.n.release(b.grant, 2) {
		t.Fatalf("grant %#x is freed twice", uint64(b.grant))
	}
	m.dead = append(m.dead, b.grant)
}

// check compares the sums and the listing.
func (m *pagesModel) check(t rapidT) {
	t.Helper()
	var bytes uint64
	want := map[uint32]modelBlock{}
	for _, b := range m.live {
		bytes += b.to - b.from
		want[uint32(b.from/placeBytes)] = b
	}
	if m.n.blocks != len(m.live) || m.n.bytes != bytes {
		t.Fatalf("%d blocks of %d bytes are counted, %d of %d are out", m.n.blocks, m.n.bytes, len(m.live), bytes)
	}
	m.n.each(func(d *dataSegment, place uint32, class uint8, rec grantRec) bool {
		b, ok := want[place]
		if !ok || b.class != class || b.grant.ID() != rec.id || b.base != d.base {
			t.Fatalf("place %#x of class %d is listed; the model has %+v", place, class, b)
		}
		delete(want, place)
		return true
	})
	if len(want) > 0 {
		t.Fatalf("%d granted blocks are not listed", len(want))
	}
}

// classGen draws classes that share runs, such that do not, and some in between.
func classGen() *rapid.Generator[uint8] {
	return rapid.OneOf(rapid.Uint8Range(0, 110), rapid.SampledFrom([]uint8{0, 6, 34, 50, 51, 62, 75, 76, 77, 90}))
}

func TestNodePagesModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newPagesModel()
		m.addSegment(t, 64<<10)
		t.Repeat(map[string]func(*rapid.T){
			"alloc": func(t *rapid.T) { m.alloc(t, classGen().Draw(t, "class")) },
			"alloc many": func(t *rapid.T) {
				class := classGen().Draw(t, "class")
				for range rapid.IntRange(1, 40).Draw(t, "count") {
					m.alloc(t, class)
				}
			},
			"free": func(t *rapid.T) {
				if len(m.live) == 0 {
					t.Skip()
				}
				m.free(t, rapid.IntRange(0, len(m.live)-1).Draw(t, "which"))
			},
			"free all": func(t *rapid.T) {
				for len(m.live) > 0 {
					m.free(t, len(m.live)-1)
				}
				m.n.releaseIdleRuns(3)
				for _, d := range m.segs {
					if d.used != 0 || !d.free.Empty() {
						t.Fatalf("an empty segment has %d runs", d.used)
					}
				}
			},
			"last in, first out": func(t *rapid.T) {
				class := classGen().Draw(t, "class")
				if !m.alloc(t, class) {
					t.Skip()
				}
				at := m.live[len(m.live)-1].from
				m.free(t, len(m.live)-1)
				if !m.alloc(t, class) || m.live[len(m.live)-1].from != at {
					t.Fatalf("the block freed last, at %#x, isn't the next", at)
				}
			},
			"late free": func(t *rapid.T) {
				var g wire.Grant
				switch k := rapid.IntRange(0, 2).Draw(t, "kind"); {
				case k == 0 && len(m.dead) > 0:
					g = rapid.SampledFrom(m.dead).Draw(t, "dead")
				case k == 1 && len(m.live) > 0: // the right place under another id
					b := rapid.SampledFrom(m.live).Draw(t, "live")
					g = wire.NewGrant((b.grant.ID()+1)%(1<<28), b.grant.Place())
				default:
					g = wire.NewGrant(rapid.Uint32Range(0, 1<<28-1).Draw(t, "id"), rapid.Uint32Range(0, 1<<31-1).Draw(t, "place"))
				}
				for _, b := range m.live {
					if b.grant == g {
						t.Skip()
					}
				}
				if m.n.release(g, 2) {
					t.Fatalf("grant %#x, which nobody has, is freed", uint64(g))
				}
			},
			"add a segment": func(t *rapid.T) {
				if len(m.segs) < 6 {
					m.addSegment(t, uint64(rapid.IntRange(2, 64).Draw(t, "pages"))*pageBytes)
				}
			},
			"drop a segment": func(t *rapid.T) {
				m.n.releaseIdleRuns(3)
				for base, d := range m.segs {
					busy := slices.ContainsFunc(m.live, func(b modelBlock) bool { return b.base == base })
					if m.n.drop(base, d.generation+1) != nil {
						t.Fatalf("segment %#x is dropped under another generation", base)
					}
					if got := m.n.drop(base, d.generation); (got == nil) != busy {
						t.Fatalf("segment %#x, in use: %v, dropped: %v", base, busy, got != nil)
					} else if got != nil {
						delete(m.segs, base)
						m.gens[base] = d.generation + 1
					}
					return
				}
			},
			"": func(t *rapid.T) { m.check(t) },
		})
	})
}

// A center that was restarted learns from its nodes what is granted: all of it, in whatever order, and no lie.
func TestNodePagesAdopt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		old := newPagesModel()
		for range rapid.IntRange(1, 3).Draw(t, "segments") {
			old.addSegment(t, uint64(rapid.IntRange(4, 128).Draw(t, "pages"))*pageBytes)
		}
		for range rapid.IntRange(1, 30).Draw(t, "bursts") {
			class := classGen().Draw(t, "class")
			for range rapid.IntRange(1, 20).Draw(t, "count") {
				old.alloc(t, class)
			}
			for range rapid.IntRange(0, 15).Draw(t, "frees") {
				if len(old.live) > 0 {
					old.free(t, rapid.IntRange(0, len(old.live)-1).Draw(t, "which"))
				}
			}
		}
		m := newPagesModel()
		m.nextID = 1 << 20
		for _, d := range old.segs {
			if !m.n.claim(d.base, d.size) {
				t.Fatalf("the segment at %#x is refused", d.base)
			}
			s := &dataSegment{base: d.base, generation: d.generation, size: d.size}
			m.n.add(s)
			m.segs[s.base] = s
			if m.n.claim(d.base, d.size) {
				t.Fatalf("the segment at %#x is claimed twice", d.base)
			}
		}
		blocks := slices.Clone(old.live)
		rand.New(rand.NewPCG(1, rapid.Uint64().Draw(t, "order"))).Shuffle(len(blocks), func(i, j int) { blocks[i], blocks[j] = blocks[j], blocks[i] })
		for _, b := range blocks {
			if !m.n.adopt(b.grant, b.class, 1) {
				t.Fatalf("the grant of class %d at %#x, one of %d, is refused", b.class, b.from, len(blocks))
			}
			m.live = append(m.live, b)
			if m.n.adopt(b.grant, b.class, 1) {
				t.Fatalf("a grant is adopted twice")
			}
			// Lies: what overlaps, lies outside, or is not aligned.
			lie := wire.NewGrant(9, b.grant.Place()+4*rapid.Uint32Range(0, 16).Draw(t, "shift"))
			class := classGen().Draw(t, "lie's class")
			from := uint64(lie.Place()) * placeBytes
			to := from + wire.BlockSize(class)
			overlaps := slices.ContainsFunc(m.live, func(o modelBlock) bool { return from < o.to && o.from < to })
			if overlaps && m.n.adopt(lie, class, 1) {
				t.Fatalf("a grant of class %d at %#x is adopted; it overlaps another", class, from)
			}
		}
		for range 20 {
			lie := wire.NewGrant(9, rapid.Uint32Range(0, 1<<31-1).Draw(t, "place"))
			from := uint64(lie.Place()) * placeBytes
			class := classGen().Draw(t, "class")
			inside := false
			for _, d := range m.segs {
				inside = inside || from >= uint64(d.base)*placeBytes+shmio.FirstBlock && from+wire.BlockSize(class) <= uint64(d.base)*placeBytes+d.size
			}
			if !inside && m.n.adopt(lie, class, 1) {
				t.Fatalf("a grant outside all segments, at %#x, is adopted", from)
			}
		}
		m.check(t)
		// The new center's grants meet none of the adopted.
		for range 200 {
			m.alloc(t, classGen().Draw(t, "class"))
		}
		m.check(t)
		for len(m.live) > 0 {
			m.free(t, rapid.IntRange(0, len(m.live)-1).Draw(t, "which"))
		}
		m.n.releaseIdleRuns(3)
		for _, d := range m.segs {
			if d.used != 0 || !d.free.Empty() {
				t.Fatalf("%d runs are left", d.used)
			}
		}
	})
}

// adoptRun relies on it that a block's offset tells where its run begins.
func TestRunPages(t *testing.T) {
	for class := range wire.AllocClasses {
		block := wire.BlockSize(uint8(class))
		if block > smallBlock {
			continue
		}
		size := runPages(block) * pageBytes
		if waste := size % block; waste*8 > size {
			t.Errorf("class %d: a run of %d bytes wastes %d", class, size, waste)
		}
		for j := uint64(1); j < runPages(block); j++ {
			if j*pageBytes%block == 0 {
				t.Errorf("class %d: a block may lie in runs that begin %d pages apart", class, j)
			}
		}
	}
}
