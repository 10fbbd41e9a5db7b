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
	place, generation, err := w.Message()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrBadBlock, err)
	}
	list := *sp.list.Load()
	for i := range list {
		e := &list[i]
		at := uint64(place) - e.base // beyond any segment if place is below base
		if at >= e.places || e.generation != generation {
			continue
		}
		off := at * placeUnit
		size := e.seg.spec.Size
		if off < FirstBlock || off+wire.HeaderSize > size {
			return badBlock(w, "it lies in a segment's header or at its end")
		}
		mem := e.seg.mem
		if err := b.Header.Decode(mem[off:]); err != nil {
			return fmt.Errorf("%w: %#x: %w", ErrBadBlock, uint64(w), err)
		}
		from := off + wire.HeaderSize
		length := uint64(b.Header.Size)
		if length > size-from {
			return badBlock(w, "its payload goes beyond its segment")
		}
		b.Payload = mem[from : from+length : from+length]
		return nil
	}
	return unknownSegment(w)
}

// Touch reads of each block that recs name the line where it begins: these come from the sender's core all at once, and not each
// when Block gets there. What the sum means only the senders know; nothing is to be made of it.
//
//go:noinline
func (sp *Space) Touch(recs []*Record) (sum byte) {
	list := *sp.list.Load()
	for _, rec := range recs {
		if rec.Word.IsCommand() {
			continue
		}
		place, generation, err := rec.Word.Message()
		if err != nil {
			continue
		}
		for i := range list {
			e := &list[i]
			if at := uint64(place) - e.base; at < e.places && e.generation == generation {
				sum += e.seg.mem[at*placeUnit]
				break
			}
		}
	}
	return sum
}

// badBlock and unknownSegment are kept out of the hot function.
func badBlock(w wire.Word, why string) error {
	return fmt.Errorf("%w: %#016x: %s", ErrBadBlock, uint64(w), why)
}

func unknownSegment(w wire.Word) error {
	return fmt.Errorf("%w: %#016x", ErrUnknownSegment, uint64(w))
}
