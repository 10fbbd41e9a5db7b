package shmio

import (
	"bytes"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/bhome-bus/bhome/wire"
)

// dataSegment is a segment with one block, of that payload, at each of the given offsets.
func dataSegment(t testing.TB, base, generation uint32, payload string, at ...uint64) *Segment {
	t.Helper()
	s, err := HeapSegment(SegmentSpec{Kind: KindData, Size: 1 << 17, Base: base, Generation: generation})
	if err != nil {
		t.Fatal(err)
	}
	for _, off := range at {
		m, err := s.Memory(off, uint64(wire.HeaderSize+len(payload)))
		if err != nil {
			t.Fatal(err)
		}
		h := wire.Header{Tag: wire.BlockTag, Size: uint32(len(payload)), Topic: 7, Seq: 9}
		if err := h.Put(m); err != nil {
			t.Fatal(err)
		}
		copy(m[wire.HeaderSize:], payload)
	}
	return s
}

func word(t testing.TB, place uint32, generation uint16) wire.Word {
	t.Helper()
	w, err := wire.Message(place, generation)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestSpaceResolves(t *testing.T) {
	const places = 1 << 17 / 16
	sp := NewSpace()
	a, b := dataSegment(t, 0, 5, "first", 4096, 1<<17-128), dataSegment(t, places, 6, "second", 4096)
	noErr(t, sp.Add(a))
	noErr(t, sp.Add(b))
	for _, c := range []struct {
		place      uint32
		generation uint16
		want       string
	}{
		{256, 5, "first"}, {places - 8, 5, "first"}, {places + 256, 6, "second"},
	} {
		var got Block
		err := sp.Block(word(t, c.place, c.generation), &got)
		noErr(t, err)
		if string(got.Payload) != c.want || cap(got.Payload) != len(c.want) || got.Header.Seq != 9 || got.Header.Topic != 7 {
			t.Errorf("place %d: %q (capacity %d), %+v", c.place, got.Payload, cap(got.Payload), got.Header)
		}
	}
	for _, c := range []struct {
		name string
		w    wire.Word
		want error
	}{
		{"old generation", word(t, 256, 4), ErrUnknownSegment},
		{"no segment", word(t, 2*places+256, 5), ErrUnknownSegment},
		{"the segment's header", word(t, 4, 5), ErrBadBlock},
		{"just before the blocks", word(t, 252, 5), ErrBadBlock},
		{"no block there", word(t, 512, 5), ErrBadBlock},
		{"the last header's place", word(t, places-4, 5), ErrBadBlock}, // tag 0
		{"a command", wire.Word(1), ErrBadBlock},
		{"reserved bits", word(t, 256, 5) | 1<<50, ErrBadBlock},
		{"misaligned", wire.Word(257<<4 | 5<<35), ErrBadBlock},
		{"place 0", wire.Word(5 << 35), ErrBadBlock},
	} {
		if err := sp.Block(c.w, new(Block)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	if got := sp.Remove(0, 4); got != nil {
		t.Error("another generation is removed")
	}
	if got := sp.Remove(0, 5); got != a {
		t.Error("Remove gives something else")
	}
	if err := sp.Block(word(t, 256, 5), new(Block)); !errors.Is(err, ErrUnknownSegment) {
		t.Errorf("after Remove: %v", err)
	}
	if s := sp.Segments(); len(s) != 1 || s[0] != b {
		t.Errorf("left is %v", s)
	}
}

func TestSpaceHostileSizes(t *testing.T) {
	s := dataSegment(t, 0, 0, "", 4096, 1<<17-64)
	sp := NewSpace()
	noErr(t, sp.Add(s))
	set := func(off uint64, size uint32) {
		m, _ := s.Memory(off, 64)
		h := wire.Header{Tag: wire.BlockTag, Size: size}
		noErr(t, h.Put(m))
	}
	for _, c := range []struct {
		off  uint64
		size uint32
		ok   bool
	}{
		{4096, 1<<17 - 4096 - 64, true}, {4096, 1<<17 - 4096 - 63, false}, {4096, ^uint32(0), false},
		{1<<17 - 64, 0, true}, {1<<17 - 64, 1, false},
	} {
		set(c.off, c.size)
		var b Block
		err := sp.Block(word(t, uint32(c.off/16), 0), &b)
		if (err == nil) != c.ok || err == nil && len(b.Payload) != int(c.size) || err != nil && !errors.Is(err, ErrBadBlock) {
			t.Errorf("size %d at %d: %d bytes, %v", c.size, c.off, len(b.Payload), err)
		}
	}
}

func TestSpaceAdd(t *testing.T) {
	sp := NewSpace()
	noErr(t, sp.Add(dataSegment(t, 8192, 1, "")))
	for _, base := range []uint32{8192, 8192 - 256, 8192 + 256, 8192 + 7936} {
		if err := sp.Add(dataSegment(t, base, 2, "")); !errors.Is(err, ErrBadSegment) {
			t.Errorf("base %d overlaps: %v", base, err)
		}
	}
	noErr(t, sp.Add(dataSegment(t, 0, 1, "")))
	noErr(t, sp.Add(dataSegment(t, 16384, 1, "")))
	c, err := HeapSegment(SegmentSpec{Kind: KindControl, Size: 1 << 17})
	noErr(t, err)
	wantErr(t, sp.Add(c), ErrBadSegment, "control")
	l, err := HeapSegment(SegmentSpec{Kind: KindLink, Size: 1 << 17})
	noErr(t, err)
	noErr(t, NewSpace().Add(l))
}

// The header that is checked is the header that is used, whatever the sender does meanwhile; and Add and Remove go on
// beside it. Under -race the list's copying is checked too (the block's bytes stay as they are there).
func TestSpaceConcurrent(t *testing.T) {
	sp := NewSpace()
	noErr(t, sp.Add(dataSegment(t, 0, 1, "steady", 4096)))
	w := word(t, 256, 1)
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for !stop.Load() {
				var b Block
				if err := sp.Block(w, &b); err != nil || !bytes.Equal(b.Payload, []byte("steady")) {
					t.Error(b, err)
					return
				}
			}
		})
	}
	other := dataSegment(t, 8192, 3, "x", 4096)
	for range 2000 {
		noErr(t, sp.Add(other))
		if sp.Remove(8192, 3) != other {
			t.Fatal("it is not removed")
		}
	}
	stop.Store(true)
	wg.Wait()
}

func FuzzSpaceBlock(f *testing.F) {
	f.Add(uint64(256<<4), []byte("\xc4\xd3\xe2\xf1\x05\x00\x00\x00"))
	f.Add(^uint64(0), []byte{})
	f.Fuzz(func(t *testing.T, w uint64, head []byte) {
		s := dataSegment(t, 0, 0, "")
		m, _ := s.Memory(4096, s.Size()-4096)
		copy(m, head)
		sp := NewSpace()
		noErr(t, sp.Add(s))
		var b Block
		err := sp.Block(wire.Word(w), &b)
		if err == nil && (uint32(len(b.Payload)) != b.Header.Size || b.Header.Tag != wire.BlockTag || len(b.Payload) > len(m)-64) {
			t.Fatalf("%+v", b.Header)
		}
		if err != nil && !errors.Is(err, ErrBadBlock) && !errors.Is(err, ErrUnknownSegment) {
			t.Fatal(err)
		}
	})
}
