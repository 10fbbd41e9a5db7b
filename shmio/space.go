package shmio

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/bhome-bus/bhome/wire"
)

// What Space.Block refuses, for errors.Is.
var (
	ErrUnknownSegment = errors.New("the word names a segment that isn't known")
	ErrBadBlock       = errors.New("the word names no valid block")
)

// Space is the data segments of one sender, as this process sees them. All methods are safe for concurrent use.
type Space struct {
	mu   sync.Mutex
	list atomic.Pointer[[]spaceEntry] // copied on write under mu; pairs with Block's load
}

type spaceEntry struct {
	seg        *Segment
	base       uint64 // first place
	places     uint64
	generation uint16
}

// Block is one resolved message.
type Block struct {
	Header  wire.Header // a copy, loaded once and checked
	Payload []byte      // Header.Size bytes of the sender's memory
}

// NewSpace is a space without segments.
func NewSpace() *Space {
	sp := &Space{}
	sp.list.Store(&[]spaceEntry{})
	return sp
}

// Add makes a data segment known. A link segment counts from place 0.
func (sp *Space) Add(s *Segment) error {
	if s.Kind() != KindData && s.Kind() != KindLink {
		return fmt.Errorf("%w: a %v segment holds no blocks", ErrBadSegment, s.Kind())
	}
	e := spaceEntry{seg: s, base: uint64(s.Base()), places: s.Size() / placeUnit, generation: uint16(s.Generation())}
	sp.mu.Lock()
	defer sp.mu.Unlock()
	old := *sp.list.Load()
	for _, o := range old {
		if e.base < o.base+o.places && o.base < e.base+e.places {
			return fmt.Errorf("%w: places %#x+%#x overlap %#x+%#x", ErrBadSegment, e.base, e.places, o.base, o.places)
		}
	}
	list := append(append(make([]spaceEntry, 0, len(old)+1), old...), e)
	sp.list.Store(&list)
	return nil
}

// Remove forgets a segment and returns it, nil if it wasn't known. Closing it is the caller's, once nobody uses it.
func (sp *Space) Remove(base, generation uint32) *Segment {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	old := *sp.list.Load()
	for i, o := range old {
		if o.base == uint64(base) && o.generation == uint16(generation) {
			list := append(append(make([]spaceEntry, 0, len(old)), old[:i]...), old[i+1:]...)
			sp.list.Store(&list)
			return o.seg
		}
	}
	return nil
}

// Segments lists what is known.
func (sp *Space) Segments() []*Segment {
	list := *sp.list.Load()
	segs := make([]*Segment, len(list))
	for i, e := range list {
		segs[i] = e.seg
	}
	return segs
}

// Block resolves a message word into b: the segment, the header (loaded once, checked), the payload. It allocates nothing.
// The payload is the sender's to change, and is valid until its segment is closed. Errors: ErrUnknownSegment,
// ErrBadBlock; b is not to be used then.
func (sp *Space) Block(w wire.Word, b *Block) error {
	mem, err := sp.Memory(w)
	if err != nil {
		return err
	}
	if err := b.Header.Decode(mem); err != nil {
		return fmt.Errorf("%w: %#x: %w", ErrBadBlock, uint64(w), err)
	}
	var ok bool
	if b.Payload, ok = Payload(mem, b.Header.Size); !ok {
		return BadSize(w)
	}
	return nil
}

// Memory is the first half of Block: from the block's header to the end of its segment, at least a header long.
func (sp *Space) Memory(w wire.Word) ([]byte, error) {
	place, generation, ok := w.Place()
	if !ok {
		return nil, badBlock(w, "it isn't a message's word")
	}
	e, off := find(*sp.list.Load(), place, generation)
	switch {
	case e == nil:
		return nil, unknownSegment(w)
	case off < FirstBlock || off+wire.HeaderSize > uint64(len(e.seg.mem)):
		return nil, badBlock(w, "it lies in a segment's header or at its end")
	}
	return e.seg.mem[off:], nil
}

// find is the segment in which a place lies, and where in it; nil: in none.
func find(list []spaceEntry, place uint32, generation uint16) (e *spaceEntry, off uint64) {
	for i := range list {
		e := &list[i]
		at := uint64(place) - e.base // beyond any segment if place is below base
		if at < e.places && e.generation == generation {
			return e, at * placeUnit
		}
	}
	return nil, 0
}

// LookUp is Memory of the blocks among recs: it notes in their Payload where they lie, where that can be told. What can't, Memory says.
func (sp *Space) LookUp(recs []*Record) {
	list := *sp.list.Load()
	if len(list) == 0 {
		return
	}
	e := &list[0] // the segment of the block before
	for _, rec := range recs {
		place, generation, ok := rec.Word.Place()
		if !ok {
			continue
		}
		at := uint64(place) - e.base
		off := at * placeUnit
		if at >= e.places || e.generation != generation {
			other, there := find(list, place, generation)
			if other == nil {
				continue
			}
			e, off = other, there
		}
		if mem := e.seg.mem; off >= FirstBlock && off+wire.HeaderSize <= uint64(len(mem)) {
			rec.Payload = mem[off:]
		}
	}
}

// View is one segment of a Space, to find many blocks in.
type View struct {
	mem   []byte
	first wire.Word // that would name its first byte
}

// View is the segment in which the block lies that w names. !ok: it isn't known.
func (sp *Space) View(w wire.Word) (v View, ok bool) {
	place, generation, _ := w.Place()
	e, off := find(*sp.list.Load(), place, generation)
	if e == nil {
		return View{}, false
	}
	return View{e.seg.mem, w.Alone() - wire.Word(off)}, true
}

// Memory is Space.Memory of a block that w, as it was received, names in the view; nil: it lies elsewhere, or isn't valid.
func (v *View) Memory(w wire.Word) []byte {
	off := w.Alone().From(v.first)
	if off < FirstBlock || off > uint64(len(v.mem))-wire.HeaderSize {
		return nil
	}
	return v.mem[off:]
}

// Payload is the second half: the size bytes behind the header at the start of mem, which Memory gave. !ok: they go beyond its segment.
func Payload(mem []byte, size uint32) (payload []byte, ok bool) {
	end := wire.HeaderSize + int(size)
	if end > len(mem) {
		return nil, false
	}
	return mem[wire.HeaderSize:end:end], true
}

// BadSize is the error of a block whose payload goes beyond its segment.
func BadSize(w wire.Word) error { return badBlock(w, "its payload goes beyond its segment") }

// BadHeader is the error of a block whose header can't be one.
func BadHeader(w wire.Word) error {
	return fmt.Errorf("%w: %#x: %w", ErrBadBlock, uint64(w), wire.ErrBadHeader)
}

// badBlock and unknownSegment are kept out of the hot function.
func badBlock(w wire.Word, why string) error {
	return fmt.Errorf("%w: %#016x: %s", ErrBadBlock, uint64(w), why)
}

func unknownSegment(w wire.Word) error {
	return fmt.Errorf("%w: %#016x", ErrUnknownSegment, uint64(w))
}
