package node

import (
	"fmt"
	"sync"
	"sync/atomic"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio"
	"github.com/bhome-bus/bhome/wire"
)

const (
	processSegmentSize = 512 << 10
	controlSegmentSize = 1 << 20
	firstDataSize      = 256 << 10
	firstHalf          = 4096
	halfAlign          = 128
	linkArea           = 64 << 10 // of segment 0, for the link's halves
)

// memory is this node's own segments: segment 0 and the control segments, from which halves are cut, and the data
// segments, from which the center grants blocks.
type memory struct {
	segment0 *shmio.Segment // of the process; never changes

	cgroups shmio.Cgroups // ours

	mu       sync.Mutex
	control  map[uint32]*controlSegment // by number; 0 is the process segment
	next     uint32                     // number of the next segment
	linkHalf *shmio.Arena               // of segment 0

	data   atomic.Pointer[[]*shmio.Segment] // copied on write under mu; pairs with ownBlock's load
	access map[*shmio.Segment]string        // the access groups of those that have one
}

type controlSegment struct {
	seg    *shmio.Segment
	arena  *shmio.Arena
	used   int
	access string // the access group of what is in it
}

// half is a piece of this node's control memory that holds one end of a route.
type half struct {
	number uint32
	offset uint64
	size   uint64
	mem    []byte
}

func (h half) proto() *bhomev1.Half { return &bhomev1.Half{Segment: h.number, Offset: h.offset} }

func newMemory() (*memory, error) {
	seg0, err := shmio.CreateSegment("bhome-process", shmio.SegmentSpec{Kind: shmio.KindProcess, Size: processSegmentSize})
	if err != nil {
		return nil, fmt.Errorf("make segment 0: %w", err)
	}
	seg0.Publish(shmio.StateLaidOut)
	m := &memory{segment0: seg0, control: map[uint32]*controlSegment{}, access: map[*shmio.Segment]string{}, next: 1, linkHalf: shmio.NewArena(firstHalf, firstHalf+linkArea, halfAlign)}
	m.control[0] = &controlSegment{seg: seg0, arena: shmio.NewArena(firstHalf+linkArea, processSegmentSize, halfAlign)}
	m.data.Store(&[]*shmio.Segment{})
	return m, nil
}

// allocLink cuts a half for the link from segment 0.
func (m *memory) allocLink(size uint64) (half, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	h, ok, err := cut(m.segment0, m.linkHalf, size)
	if !ok {
		return half{}, fmt.Errorf("segment 0 has no room for a link half of %d bytes", size)
	}
	return h, err
}

// cut takes size bytes of a segment, which are zero; false if there aren't so many.
func cut(seg *shmio.Segment, arena *shmio.Arena, size uint64) (h half, ok bool, err error) {
	used := arena.Used()
	off, ok := arena.Alloc(size)
	if !ok {
		return half{}, false, nil
	}
	mem, err := seg.Memory(off, size)
	if err == nil && off < used {
		clear(mem)
	}
	return half{offset: off, size: size, mem: mem}, true, err
}

func (m *memory) freeLink(h half) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.linkHalf.Free(h.offset, h.size)
}

// allocHalf cuts a half for a route of an access group: what lies in a ring may be read by whom the segment goes to. If that took a new control segment, it is returned too: the center must be told
// of it before the half.
func (m *memory) allocHalf(size uint64, session uint64, access string) (h half, added *shmio.Segment, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for number, c := range m.control {
		if c.access != access {
			continue
		}
		if h, ok, err := cut(c.seg, c.arena, size); ok {
			c.used++
			h.number = number
			return h, nil, err
		}
	}
	want := uint64(controlSegmentSize)
	for want < size+firstHalf {
		want *= 2
	}
	seg, err := m.create("bhome-control", shmio.SegmentSpec{Kind: shmio.KindControl, Number: m.next, Size: want, Session: session})
	if err != nil {
		return half{}, nil, fmt.Errorf("make control segment %d: %w", m.next, err)
	}
	seg.Publish(shmio.StateAttached)
	c := &controlSegment{seg: seg, arena: shmio.NewArena(firstHalf, want, halfAlign), used: 1, access: access}
	m.control[m.next] = c
	h, _, err = cut(seg, c.arena, size)
	h.number = m.next
	m.next++
	return h, seg, err
}

// create makes a segment if our memory cgroups have room for it, and for what of the others isn't touched yet: a page that
// finds none ends the process. m.mu is held.
func (m *memory) create(name string, spec shmio.SegmentSpec) (*shmio.Segment, error) {
	need := spec.Size
	for _, c := range m.control {
		need += c.seg.Size() - c.seg.Touched()
	}
	for _, s := range *m.data.Load() {
		need += s.Size() - s.Touched()
	}
	if err := m.cgroups.Room(need); err != nil {
		return nil, err
	}
	return shmio.CreateSegment(name, spec)
}

// freeHalf takes a half back that neither end uses any more. A control segment that is empty is dropped; the returned
// number (never 0) is to be told to the center.
func (m *memory) freeHalf(h half) (dropped uint32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.control[h.number]
	if c == nil {
		return 0
	}
	c.arena.Free(h.offset, h.size)
	c.used--
	if h.number == 0 || c.used > 0 {
		return 0
	}
	delete(m.control, h.number)
	c.seg.Close()
	return h.number
}

// addData makes a data segment of an access group.
func (m *memory) addData(size uint64, base, generation uint32, session uint64, access string) (*shmio.Segment, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	seg, err := m.create("bhome-data", shmio.SegmentSpec{
		Kind: shmio.KindData, Number: m.next, Size: size, Base: base, Generation: generation, Session: session})
	if err != nil {
		return nil, fmt.Errorf("make a data segment of %d bytes: %w", size, err)
	}
	seg.Publish(shmio.StateAttached)
	m.next++
	segs := append(append([]*shmio.Segment(nil), *m.data.Load()...), seg)
	m.data.Store(&segs)
	if access != "" {
		m.access[seg] = access
	}
	return seg, nil
}

// accessOf is the access group of a data segment.
func (m *memory) accessOf(seg *shmio.Segment) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.access[seg]
}

// dropData lets a data segment go; the caller knows that no block of it is granted.
func (m *memory) dropData(base, generation uint32) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	old := *m.data.Load()
	for i, s := range old {
		if s.Base() == base && s.Generation() == generation {
			segs := append(append([]*shmio.Segment(nil), old[:i]...), old[i+1:]...)
			m.data.Store(&segs)
			delete(m.access, s)
			s.Close()
			return true
		}
	}
	return false
}

// segments lists all but segment 0, for a report to a new center.
func (m *memory) segments() (control, data []*shmio.Segment) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for number, c := range m.control {
		if number != 0 {
			control = append(control, c.seg)
		}
	}
	return control, *m.data.Load()
}

func (m *memory) bytes() (n uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.control {
		n += c.seg.Size()
	}
	for _, s := range *m.data.Load() {
		n += s.Size()
	}
	return n
}

func (m *memory) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.control {
		c.seg.SetState(shmio.StateClosed)
		c.seg.Close()
	}
	for _, s := range *m.data.Load() {
		s.SetState(shmio.StateClosed)
		s.Close()
	}
}

// ownBlock is the memory of a block that the center says to be ours.
func (n *Node) ownBlock(place uint32, size uint64) (mem []byte, generation uint16, err error) {
	for _, s := range *n.mem.data.Load() {
		base, count := s.Base(), uint32(s.Size()/16)
		if place < base || place-base >= count {
			continue
		}
		if place%4 != 0 || uint64(place-base)*16 < firstHalf {
			return nil, 0, fmt.Errorf("granted block at place %#x: %w: misaligned or within a segment's header", place, ErrInvalid)
		}
		mem, err := s.Memory(uint64(place-base)*16, size)
		if err != nil {
			return nil, 0, fmt.Errorf("granted block of %d bytes at place %#x: %w", size, place, err)
		}
		return mem, uint16(s.Generation()), nil
	}
	return nil, 0, fmt.Errorf("granted block at place %#x: %w: it lies in none of our %d data segments", place, ErrInvalid, len(*n.mem.data.Load()))
}

// putHeader puts a message's header in front of its payload.
func (b *block) putHeader(h *wire.Header) {
	h.Tag = wire.BlockTag
	if err := h.Put(b.mem); err != nil {
		panic(fmt.Sprintf("bhome: header of an own block: %v", err)) // the block is at least a header long
	}
}
