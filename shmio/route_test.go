package shmio

import (
	"errors"
	"reflect"
	"testing"

	"github.com/bhome-bus/bhome/wire"
)

// pair is a route whose halves lie on the heap.
type pair struct {
	w          *Writer
	r          *Reader
	wmem, rmem []byte
	toReader   *countRinger
	toWriter   *countRinger
}

type countRinger struct {
	n    int
	hint uint32
	on   func()
}

func (c *countRinger) Ring(hint uint32) {
	c.n++
	c.hint = hint
	if c.on != nil {
		c.on()
	}
}

// failer is a testing.TB or a rapid.T.
type failer interface {
	Helper()
	Fatal(...any)
}

func newPair(t failer, spec RouteSpec) *pair {
	t.Helper()
	p := halfPair(t, spec)
	if err := p.r.Join(p.wmem, p.toWriter); err != nil {
		t.Fatal(err)
	}
	if err := p.w.Join(p.rmem, p.toReader); err != nil {
		t.Fatal(err)
	}
	return p
}

// returnTogether has w tell of all that come back by one look at once.
func returnTogether(w *Writer) {
	w.TakeReturns(func(hs []Held) {
		for _, h := range hs {
			h.Returned(0)
		}
	})
}

// halfPair is a pair neither end of which has joined.
func halfPair(t failer, spec RouteSpec) *pair {
	t.Helper()
	if spec.ID == 0 {
		spec.ID = 0x1234567800000042
	}
	p := &pair{wmem: make([]byte, spec.WriterSize()), rmem: make([]byte, spec.ReaderSize()),
		toReader: &countRinger{}, toWriter: &countRinger{}}
	var err error
	if p.w, err = NewWriter(p.wmem, spec); err != nil {
		t.Fatal(err)
	}
	if p.r, err = NewReader(p.rmem, spec); err != nil {
		t.Fatal(err)
	}
	return p
}

// blockWord is the message word of the n-th block there is.
func blockWord(n uint64) wire.Word {
	w, err := wire.Message(uint32(n%(1<<28)+1)*4, uint16(n>>28))
	if err != nil {
		panic(err)
	}
	return w
}

func cmdWord(n uint64) wire.Word {
	return wire.Word(1 | uint64(wire.CmdFree)<<1 | n<<4)
}

type heldFunc func(seq uint64)

func (f heldFunc) Returned(seq uint64) { f(seq) }

func TestHalvesAreLaidOutAsTheABISays(t *testing.T) {
	for _, c := range []struct {
		typ  reflect.Type
		size uintptr
		want map[string]uintptr
	}{
		{reflect.TypeFor[writerHalf](), 640, map[string]uintptr{
			"routeID": 0, "slots": 8, "depth": 12, "out": 16, "policy": 20, "tableSlots": 24, "ringOffset": 28,
			"tableOffset": 32, "zero": 36, "first": 40, "tail": 128, "dropTo": 256, "wantsSpace": 384, "returnedHd": 392,
			"joined": 400, "over": 408, "sent": 512, "dropped": 520, "bytesOut": 528, "badReturns": 536,
		}},
		{reflect.TypeFor[readerHalf](), 512, map[string]uintptr{
			"routeID": 0, "returnSlots": 8, "returnOffset": 12, "head": 128, "claim": 136, "skippedTo": 144, "armed": 256, "returnedTail": 384, "left": 392,
		}},
	} {
		if got := c.typ.Size(); got != c.size {
			t.Errorf("%v: %d bytes, want %d", c.typ, got, c.size)
		}
		n := 0
		for i := range c.typ.NumField() {
			if f := c.typ.Field(i); f.Name != "_" {
				n++
				if want, ok := c.want[f.Name]; !ok || want != f.Offset {
					t.Errorf("%v.%s at %d, want %d", c.typ, f.Name, f.Offset, want)
				}
			}
		}
		if n != len(c.want) {
			t.Errorf("%v: %d fields, want %d", c.typ, n, len(c.want))
		}
	}
}

func TestRouteSpec(t *testing.T) {
	for _, c := range []struct {
		spec           RouteSpec
		writer, reader uint64
		inline         int
	}{
		{RouteSpec{ID: 1, Slots: 1, Depth: 1, Out: 1}, 768, 640, -1},         // 640 + 8 + 2×16, 512 + 2×8
		{RouteSpec{ID: 1, Slots: 512, Depth: 512, Out: 32}, 5760, 1024, 256}, // a link
		{RouteSpec{ID: 1, Slots: 512, Depth: 512, Out: 520}, 640 + 4096 + 2048*16, 512 + 2048*8, -1},
		{RouteSpec{ID: 1, Slots: 1024, Depth: 64, Out: 128}, 640 + 8192 + 4096, 512 + 2048, 112},
		{RouteSpec{ID: 1, Slots: 8, Depth: 2, Out: 3}, 640 + 64 + 128 + 64, 640, 16},
		{RouteSpec{ID: 1, Slots: 8, Depth: 3, Out: 5}, 640 + 64 + 16*16 + 64, 640, 0},
		{RouteSpec{ID: 1, Slots: MaxSlots, Depth: 1, Out: MaxOut}, 640 + 8<<16 + 16<<18, 512 + 8<<18, 256},
	} {
		if err := c.spec.Validate(); err != nil {
			t.Error(err)
		}
		if w, r, i := c.spec.WriterSize(), c.spec.ReaderSize(), c.spec.InlineLimit(); w != c.writer || r != c.reader || i != c.inline {
			t.Errorf("%+v: sizes %d %d, inline %d; want %d %d, %d", c.spec, w, r, i, c.writer, c.reader, c.inline)
		}
	}
	usual := RouteSpec{ID: 1, Slots: 1024, Depth: 64, Out: 128} // a subscription's by default
	if size := usual.WriterSize() + usual.ReaderSize(); size >= 16<<10 {
		t.Errorf("a route of depth 64 takes %d bytes", size)
	}
	good := RouteSpec{ID: 1, Slots: 8, Depth: 8, Out: 1}
	for name, bad := range map[string]func(*RouteSpec){
		"id":         func(s *RouteSpec) { s.ID = 0 },
		"no slots":   func(s *RouteSpec) { s.Slots = 0 },
		"slots":      func(s *RouteSpec) { s.Slots = 12 },
		"many slots": func(s *RouteSpec) { s.Slots = MaxSlots * 2 },
		"no depth":   func(s *RouteSpec) { s.Depth = 0 },
		"depth":      func(s *RouteSpec) { s.Depth = 9 },
		"no out":     func(s *RouteSpec) { s.Out = 0 },
		"out":        func(s *RouteSpec) { s.Out = MaxOut + 1 },
		"policy":     func(s *RouteSpec) { s.Policy = 3 },
	} {
		s := good
		bad(&s)
		if err := s.Validate(); !errors.Is(err, ErrRouteSpec) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := NewWriter(make([]byte, 1<<20), s); !errors.Is(err, ErrRouteSpec) {
			t.Errorf("%s: NewWriter: %v", name, err)
		}
		if _, err := NewReader(make([]byte, 1<<20), s); !errors.Is(err, ErrRouteSpec) {
			t.Errorf("%s: NewReader: %v", name, err)
		}
	}
	if _, err := NewWriter(make([]byte, good.WriterSize()-1), good); !errors.Is(err, ErrRouteSpec) {
		t.Errorf("short memory: %v", err)
	}
	if _, err := NewReader(make([]byte, good.ReaderSize()+1)[1:], good); !errors.Is(err, ErrRouteSpec) {
		t.Errorf("askew memory: %v", err)
	}
}

// TestRawBytes pins the protocol to the bytes that another implementation would write and read.
func TestRawBytes(t *testing.T) {
	p := newPair(t, RouteSpec{ID: 0x77, Slots: 8, Depth: 2, Out: 4, First: 6})
	u64 := func(m []byte, off int) uint64 { return *view[uint64](m, uint64(off)) }
	if p.w.Push(blockWord(9), 100, nil) != Sent {
		t.Fatal("push")
	}
	if got := u64(p.wmem, 128); got != 6 {
		t.Fatalf("tail %d before Commit", got)
	}
	p.w.Commit()
	for _, c := range []struct {
		what      string
		mem       []byte
		off, want int
	}{
		{"routeID", p.wmem, 0, 0x77}, {"tail", p.wmem, 128, 7}, {"dropTo", p.wmem, 256, 6}, {"joined", p.wmem, 400, 0x77},
		{"sent", p.wmem, 512, 1}, {"bytesOut", p.wmem, 528, 100}, {"slot", p.wmem, 640 + 8*6, int(blockWord(9))},
		{"table key", p.wmem, 640 + 64 + 16*6, 7}, {"table word", p.wmem, 640 + 64 + 16*6 + 8, int(blockWord(9))},
		{"routeID", p.rmem, 0, 0x77}, {"head", p.rmem, 128, 6}, {"claim", p.rmem, 136, 6}, {"skippedTo", p.rmem, 144, 6},
	} {
		if got := u64(c.mem, c.off); got != uint64(c.want) {
			t.Errorf("%s is %#x, want %#x", c.what, got, c.want)
		}
	}
	var rec Record
	if ok, err := p.r.TryReceive(&rec); !ok || err != nil || rec.Seq != 6 || rec.Word != blockWord(9) || !rec.IsBlock() {
		t.Fatalf("%v %v %+v", ok, err, rec)
	}
	p.r.Return(6)
	if h, c, rt, e := u64(p.rmem, 128), u64(p.rmem, 136), u64(p.rmem, 384), u64(p.rmem, 512); h != 7 || c != 7 || rt != 1 || e != 6 {
		t.Errorf("head %d claim %d returnedTail %d entry %d", h, c, rt, e)
	}
	if n, err := p.w.Reclaim(); n != 1 || err != nil || u64(p.wmem, 392) != 1 || u64(p.wmem, 640+64+16*6) != 0 || u64(p.wmem, 528) != 0 {
		t.Errorf("%d %v", n, err)
	}
	v, err := ScanOut(p.wmem, func(seq uint64, _ wire.Word) { t.Errorf("%d is out", seq) })
	if err != nil || v.Tail != 7 || v.Sent != 1 || !v.Joined || v.Slots != 8 {
		t.Errorf("%+v %v", v, err)
	}
	p.w.Close()
	p.r.Close()
	if _, err := ScanOut(p.wmem, nil); !errors.Is(err, ErrCorruptRoute) {
		t.Errorf("a closed half: %v", err)
	}
	if _, err := ScanReader(p.rmem); !errors.Is(err, ErrCorruptRoute) {
		t.Errorf("a closed half: %v", err)
	}
}
