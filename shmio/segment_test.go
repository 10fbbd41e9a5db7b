package shmio

import (
	"encoding/binary"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bhome-bus/bhome/wire"
)

func newSegment(t *testing.T, spec SegmentSpec) *Segment {
	t.Helper()
	s, err := CreateSegment("test", spec)
	noErr(t, err)
	t.Cleanup(func() { noErr(t, s.Close()) })
	return s
}

// The offsets of docs/abi.md section 3.
func TestSegmentHeaderLayout(t *testing.T) {
	want := map[string]uintptr{"Magic": 0, "Kind": 8, "Number": 12, "Size": 16, "Base": 24, "Generation": 28,
		"Session": 32, "State": 40, "PID": 44, "Version": 48}
	typ := reflect.TypeFor[segmentHeader]()
	for name, off := range want {
		if f, ok := typ.FieldByName(name); !ok || f.Offset != off {
			t.Errorf("%s lies at %d, want %d", name, f.Offset, off)
		}
	}
	if typ.Size() != 128 {
		t.Errorf("the header is %d bytes long, want 128", typ.Size())
	}
}

// What lands in memory, byte for byte, without the struct.
func TestSegmentHeaderBytes(t *testing.T) {
	spec := SegmentSpec{Kind: KindData, Number: 7, Size: 3 << 16, Base: 512, Generation: 8191, Session: 77}
	heap, err := HeapSegment(spec)
	noErr(t, err)
	for _, s := range []*Segment{newSegment(t, spec), heap} {
		m, err := s.Memory(0, 4096)
		noErr(t, err)
		u32 := func(off int) uint64 { return uint64(binary.NativeEndian.Uint32(m[off:])) }
		u64 := func(off int) uint64 { return binary.NativeEndian.Uint64(m[off:]) }
		if v := u32(48); v != 0 {
			t.Errorf("version is %#x before Publish", v)
		}
		s.Publish(StateLaidOut)
		s.SetSession(78)
		s.Counter(0).Store(100)
		s.Counter(15).Store(115)
		s.RouteGeneration().Store(42)
		for _, c := range []struct {
			what      string
			got, want uint64
		}{
			{"magic", u64(0), 0x6765736d6f6862}, {"kind", u32(8), 3}, {"number", u32(12), 7}, {"size", u64(16), 3 << 16},
			{"base", u32(24), 512}, {"generation", u32(28), 8191}, {"session", u64(32), 78}, {"state", u32(40), 1},
			{"pid", u32(44), uint64(unix.Getpid())}, {"version", u32(48), 1 << 16}, {"counter 0", u64(128), 100},
			{"counter 15", u64(128 + 15*8), 115}, {"route generation", u64(2048), 42},
		} {
			if c.got != c.want {
				t.Errorf("%s is %#x, want %#x", c.what, c.got, c.want)
			}
		}
		if string(m[:8]) != "bhomseg\x00" && binary.NativeEndian.Uint16([]byte{1, 0}) == 1 {
			t.Errorf("the magic reads %q", m[:8])
		}
	}
}

func TestSegmentRefusesBadSpecs(t *testing.T) {
	for name, spec := range map[string]SegmentSpec{
		"kind":       {Kind: 0, Size: 1 << 20},
		"kind 6":     {Kind: 6, Size: 1 << 20},
		"small":      {Kind: KindData, Size: 4096 - uint64(0)},
		"large":      {Kind: KindData, Size: 32<<30 + 1},
		"huge":       {Kind: KindData, Size: ^uint64(0)},
		"base":       {Kind: KindData, Size: 1 << 20, Base: 255},
		"beyond":     {Kind: KindData, Size: 1 << 20, Base: 1<<31 - 256},
		"generation": {Kind: KindData, Size: 1 << 20, Generation: 8192},
	} {
		t.Run(name, func(t *testing.T) {
			checkLeaks(t)
			if spec.Size == 4096 && pageSize() > 4096 {
				t.Skip("a page is larger")
			}
			if s, err := CreateSegment("bad", spec); err == nil {
				s.Close()
				t.Errorf("%+v is accepted", spec)
			}
			if _, err := HeapSegment(spec); err == nil {
				t.Errorf("%+v is accepted on the heap", spec)
			}
		})
	}
}

func TestSegmentSizeIsRoundedToPages(t *testing.T) {
	s := newSegment(t, SegmentSpec{Kind: KindProcess, Size: 5*pageSize() + 1})
	if s.Size() != 6*pageSize() {
		t.Errorf("size is %d", s.Size())
	}
}

func TestSegmentBounds(t *testing.T) {
	const size = 1 << 16
	s := newSegment(t, SegmentSpec{Kind: KindData, Size: size, Base: 256})
	for _, c := range []struct {
		off, n uint64
		ok     bool
	}{
		{0, size, true}, {size, 0, true}, {size - 8, 8, true}, {4096, 64, true},
		{size - 8, 9, false}, {size + 8, 0, false}, {8, ^uint64(0), false}, {^uint64(7), 16, false}, {4, 8, false},
	} {
		m, err := s.Memory(c.off, c.n)
		if (err == nil) != c.ok {
			t.Errorf("Memory(%d, %d): %v", c.off, c.n, err)
		}
		if err == nil && (uint64(len(m)) != c.n || uint64(cap(m)) != c.n) {
			t.Errorf("Memory(%d, %d) has length %d, capacity %d", c.off, c.n, len(m), cap(m))
		}
	}
	if p := s.Place(4096); p != 512 {
		t.Errorf("place of 4096 is %d", p)
	}
	m, err := s.At(512, 8)
	noErr(t, err)
	m[0] = 9
	if b, _ := s.Memory(4096, 1); b[0] != 9 {
		t.Error("At and Memory differ")
	}
	for _, p := range []uint32{0, 255, 256 + size/16 + 1, 1<<32 - 1} {
		if _, err := s.At(p, 8); err == nil {
			t.Errorf("place %d is accepted", p)
		}
	}
}

func TestSegmentStringsAndClose(t *testing.T) {
	if KindLink.String() != "link" || Kind(9).String() != "Kind(9)" || StateDetached.String() != "detached" || State(9).String() != "State(9)" {
		t.Error("bad names")
	}
	checkLeaks(t)
	s, err := CreateSegment("closing", SegmentSpec{Kind: KindPublic, Size: 1 << 16})
	noErr(t, err)
	maps := func() bool { return strings.Contains(procMaps(t), "memfd:closing") }
	if !maps() || s.FD() == nil || !s.Writable() {
		t.Error("it isn't mapped under its name")
	}
	noErr(t, s.Close())
	noErr(t, s.Close())
	if maps() {
		t.Error("it is still mapped")
	}
}

func TestForeignSegmentRefusesStores(t *testing.T) {
	own := newSegment(t, SegmentSpec{Kind: KindData, Size: 1 << 16})
	own.Publish(StateLaidOut)
	fd, err := own.FD().Dup()
	noErr(t, err)
	s, err := OpenSegment(fd, Want{Kinds: []Kind{KindData}})
	noErr(t, err)
	defer s.Close()
	for name, store := range map[string]func(){
		"Publish": func() { s.Publish(StateClosed) }, "SetState": func() { s.SetState(StateClosed) }, "SetSession": func() { s.SetSession(1) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s doesn't panic", name)
				}
			}()
			store()
		}()
	}
	s.SetBase(256, 3) // the center's: the view alone
	own.SetBase(512, 4)
	if s.Base() != 256 || s.Generation() != 3 || own.Base() != 512 || own.Generation() != 4 {
		t.Error("SetBase doesn't set what it should")
	}
}

func TestABIVersions(t *testing.T) {
	noErr(t, CheckABI(wire.ABIVersion))
	noErr(t, CheckABI(wire.ABIVersion+5)) // a newer minor
	err := CheckABI(2<<16 | 3)
	wantErr(t, err, ErrIncompatibleABI, "ours is 1.0", "theirs 2.3")
}
