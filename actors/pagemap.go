package actors

import (
	"github.com/bhome-bus/bhome/shmio"
	"github.com/bhome-bus/bhome/wire"
)

const (
	pageBytes   = 4096
	smallBlock  = 32 << 10 // blocks up to this size share runs of pages
	maxRunPages = 64
	placeBytes  = 16
)

// nodePages is the map of one node's data segments: which block, which class, whose, since when. It lives in the
// center's private memory; no word of the node's memory takes part. Small blocks come from runs of pages that hold one
// class, as in tcmalloc; large ones are runs of their own. Freed blocks are used again last in, first out.
type nodePages struct {
	segs    []*dataSegment
	groups  map[string]*groupPages // by access group, made at the first segment or request of it
	places  *shmio.Arena           // bases, in bytes of the node's 32 GiB space
	gens    map[uint32]uint32      // next generation of a base that was used
	blocks  int                    // granted
	bytes   uint64                 // of the granted blocks
	segSize uint64                 // of all segments
	garbage int                    // bytes of heap let go since somebody looked
}

// Bytes of heap that records take.
const (
	pageRecord  = 8
	blockRecord = 18
	runRecord   = 160
)

// groupPages is what segments of one access group have: nothing is cut from another group's.
type groupPages struct {
	partial runRows
	last    uint64 // size of the segment added last
	segs    int
}

type dataSegment struct {
	base, generation uint32
	number           uint32
	group            string
	rows             *groupPages // of the group
	size             uint64
	pages            []*run // by page; nil: free
	free             *shmio.Arena
	used             int // runs
	emptySince       int64
	dropping         bool
	seg              *shmio.Segment // to read headers from; nil in tests
}

// run is consecutive pages that hold blocks of one class.
type run struct {
	seg   *dataSegment
	at    uint64 // offset in the segment
	pages uint64
	class uint8
	block uint64 // bytes
	free  []uint16
	recs  []grantRec
	inRow int // index in partial, -1: full
}

type grantRec struct {
	id    uint32 // request id; meaningful while since isn't 0
	since int64  // ns, monotonic; 0: free
}

const spaceBytes = 32 << 30

func newNodePages() *nodePages {
	return &nodePages{groups: map[string]*groupPages{}, places: shmio.NewArena(pageBytes, spaceBytes, pageBytes), gens: map[uint32]uint32{}}
}

// group finds or makes what there is of an access group.
func (n *nodePages) group(name string) *groupPages {
	g := n.groups[name]
	if g == nil {
		g = &groupPages{}
		n.groups[name] = g
	}
	return g
}

// reserve picks base and generation for a segment of size bytes; false: the node's space is used up.
func (n *nodePages) reserve(size uint64) (base, generation uint32, ok bool) {
	off, ok := n.places.Alloc(size)
	if !ok {
		return 0, 0, false
	}
	base = uint32(off / placeBytes)
	return base, n.gens[base], true
}

func (n *nodePages) unreserve(base uint32, size uint64) { n.places.Free(uint64(base)*placeBytes, size) }

// claim reserves the given place, for a segment that exists already; false: it isn't free.
func (n *nodePages) claim(base uint32, size uint64) bool {
	return n.places.Take(uint64(base)*placeBytes, size)
}

// add makes a segment's pages usable.
func (n *nodePages) add(d *dataSegment) {
	d.pages = make([]*run, d.size/pageBytes)
	d.free = shmio.NewArena(shmio.FirstBlock, d.size/pageBytes*pageBytes, pageBytes)
	n.segs = append(n.segs, d)
	n.segSize += d.size
	d.rows = n.group(d.group)
	d.rows.last = d.size
	d.rows.segs++
}

// drop forgets an empty segment; its base may be used again under the next generation.
func (n *nodePages) drop(base, generation uint32) *dataSegment {
	for i, d := range n.segs {
		if d.base == base && d.generation == generation && d.used == 0 {
			n.segs = append(n.segs[:i], n.segs[i+1:]...)
			n.segSize -= d.size
			n.garbage += pageRecord * len(d.pages)
			n.gens[base] = (generation + 1) % 8192
			n.unreserve(base, d.size)
			if d.rows.segs--; d.rows.segs == 0 && d.group != "" {
				delete(n.groups, d.group) // it is empty: there are no runs without segments
			}
			return d
		}
	}
	return nil
}

// runPages is how many pages a run of a class has: so many that at most an eighth is left over.
func runPages(block uint64) uint64 {
	if block > smallBlock {
		return (block + pageBytes - 1) / pageBytes
	}
	for p := uint64(1); ; p++ {
		if size := p * pageBytes; size >= block && (size%block)*8 <= size && (size/block >= 4 || p >= maxRunPages/4) || p == maxRunPages {
			return p
		}
	}
}

// alloc takes a block of the class for an access group; false: no segment has room.
func (n *nodePages) alloc(group string, class uint8, id uint32, now int64) (place uint32, ok bool) {
	g := n.groups[group]
	if g == nil {
		return 0, false
	}
	row := g.partial.row(class)
	if len(row) == 0 {
		if !n.addRun(g, class) {
			return 0, false
		}
		row = g.partial.row(class)
	}
	r := row[len(row)-1]
	k := r.free[len(r.free)-1]
	r.free = r.free[:len(r.free)-1]
	if len(r.free) == 0 {
		g.partial.set(class, row[:len(row)-1])
		r.inRow = -1
	}
	r.recs[k] = grantRec{id: id, since: max(now, 1)}
	n.blocks++
	n.bytes += r.block
	return r.place(k), true
}

func (r *run) place(k uint16) uint32 {
	return r.seg.base + uint32((r.at+uint64(k)*r.block)/placeBytes)
}

func (n *nodePages) addRun(g *groupPages, class uint8) bool {
	block := wire.BlockSize(class)
	pages := runPages(block)
	for _, d := range n.segs {
		if d.dropping || d.rows != g {
			continue
		}
		at, ok := d.free.Alloc(pages * pageBytes)
		if !ok {
			continue
		}
		n.putRun(d, class, at, pages)
		return true
	}
	return false
}

func (n *nodePages) putRun(d *dataSegment, class uint8, at, pages uint64) *run {
	block := wire.BlockSize(class)
	count := pages * pageBytes / block
	r := &run{seg: d, at: at, pages: pages, class: class, block: block, free: make([]uint16, count), recs: make([]grantRec, count), inRow: len(d.rows.partial.row(class))}
	for i := range r.free {
		r.free[i] = uint16(int(count) - 1 - i) // the first block is used first
	}
	for p := at / pageBytes; p < at/pageBytes+pages; p++ {
		d.pages[p] = r
	}
	d.used++
	d.emptySince = 0
	d.rows.partial.set(class, append(d.rows.partial.row(class), r))
	return r
}

// find is the record of the block at place; nil if no block begins there.
func (n *nodePages) find(place uint32) (*run, uint16) {
	for _, d := range n.segs {
		if place < d.base || uint64(place-d.base) >= d.size/placeBytes {
			continue
		}
		off := uint64(place-d.base) * placeBytes
		r := d.pages[min(off/pageBytes, uint64(len(d.pages)-1))]
		if r == nil || off < r.at || (off-r.at)%r.block != 0 || (off-r.at)/r.block >= uint64(len(r.recs)) {
			return nil, 0
		}
		return r, uint16((off - r.at) / r.block)
	}
	return nil, 0
}

// release frees a grant; false: it isn't granted (any more), or under another id.
func (n *nodePages) release(g wire.Grant, now int64) bool {
	r, k := n.find(g.Place())
	if r == nil || r.recs[k].since == 0 || r.recs[k].id != g.ID() {
		return false
	}
	r.recs[k] = grantRec{}
	n.blocks--
	n.bytes -= r.block
	r.free = append(r.free, k)
	rows := r.seg.rows
	row := rows.partial.row(r.class)
	if r.inRow < 0 {
		r.inRow = len(row)
		row = append(row, r)
		rows.partial.set(r.class, row)
	}
	// A run that is all free goes back, unless it is the class's only one and small.
	if len(r.free) == len(r.recs) && (len(row) > 1 || len(r.recs) == 1) {
		n.removeRun(r, now)
	}
	return true
}

func (n *nodePages) removeRun(r *run, now int64) {
	rows := r.seg.rows
	row := rows.partial.row(r.class)
	lastRun := row[len(row)-1]
	row[r.inRow] = lastRun
	lastRun.inRow = r.inRow
	row[len(row)-1] = nil
	rows.partial.set(r.class, row[:len(row)-1])
	d := r.seg
	for p := r.at / pageBytes; p < r.at/pageBytes+r.pages; p++ {
		d.pages[p] = nil
	}
	d.free.Free(r.at, r.pages*pageBytes)
	n.garbage += runRecord + blockRecord*len(r.recs)
	if d.used--; d.used == 0 {
		d.emptySince = now
	}
}

// releaseIdleRuns gives back the last, all-free runs of every class, so that segments can become empty.
func (n *nodePages) releaseIdleRuns(now int64) {
	for _, g := range n.groups {
		for _, row := range g.partial.all() {
			for i := len(row) - 1; i >= 0; i-- { // what removing puts in a place comes from behind it
				if r := row[i]; len(r.free) == len(r.recs) {
					n.removeRun(r, now)
				}
			}
		}
	}
}

// adopt records a grant that a node reports after a restart of the center. It is refused where it lies outside the
// node's segments or overlaps another.
func (n *nodePages) adopt(g wire.Grant, class uint8, now int64) bool {
	block := wire.BlockSize(class)
	r, k := n.find(g.Place())
	if r == nil {
		for _, d := range n.segs {
			if g.Place() < d.base || uint64(g.Place()-d.base) >= d.size/placeBytes {
				continue
			}
			if r, k = n.adoptRun(d, uint64(g.Place()-d.base)*placeBytes, class, block); r == nil {
				return false
			}
		}
	}
	if r == nil || r.class != class || r.recs[k].since != 0 {
		return false
	}
	for i, f := range r.free {
		if f == k {
			r.free = append(r.free[:i], r.free[i+1:]...)
			break
		}
	}
	if len(r.free) == 0 && r.inRow >= 0 {
		rows := r.seg.rows
		row := rows.partial.row(class)
		lastRun := row[len(row)-1]
		row[r.inRow] = lastRun
		lastRun.inRow = r.inRow
		rows.partial.set(class, row[:len(row)-1])
		r.inRow = -1
	}
	r.recs[k] = grantRec{id: g.ID(), since: max(now, 1)}
	n.blocks++
	n.bytes += block
	return true
}

// adoptRun finds where the run began in which the old center cut a block at off: blocks of a class lie at multiples of
// their size from a page's start, and runs are so short that only one start is possible.
func (n *nodePages) adoptRun(d *dataSegment, off uint64, class uint8, block uint64) (*run, uint16) {
	pages := runPages(block)
	if off < shmio.FirstBlock || off+block > d.size {
		return nil, 0
	}
	last := off / pageBytes * pageBytes
	for back := uint64(0); back < pages && last >= shmio.FirstBlock+back*pageBytes; back++ {
		at := last - back*pageBytes
		if (off-at)%block != 0 || off-at+block > pages*pageBytes || at+pages*pageBytes > d.size {
			continue
		}
		if d.free.Take(at, pages*pageBytes) {
			return n.putRun(d, class, at, pages), uint16((off - at) / block)
		}
	}
	return nil, 0
}

// each visits the granted blocks of a segment range, in order of place, until f returns false.
func (n *nodePages) each(f func(d *dataSegment, place uint32, class uint8, rec grantRec) bool) {
	for _, d := range n.segs {
		for p := 0; p < len(d.pages); {
			r := d.pages[p]
			if r == nil {
				p++
				continue
			}
			for k := range r.recs {
				if r.recs[k].since != 0 && !f(d, r.place(uint16(k)), r.class, r.recs[k]) {
					return
				}
			}
			p = int(r.at/pageBytes + r.pages)
		}
	}
}
