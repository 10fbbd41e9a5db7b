package shmio

import (
	"encoding/binary"
	"errors"
	"math"
	"testing"

	"github.com/bhome-bus/bhome/wire"
)

// TestWriterAgainstRubbish lets a reader half say what no honest one does.
func TestWriterAgainstRubbish(t *testing.T) {
	spec := RouteSpec{Slots: 8, Depth: 4, Out: 8, Policy: DropNewest, First: math.MaxUint64 - 2}
	for name, c := range map[string]struct {
		spoil func(h *readerHalf, rets []uint64)
		err   bool
	}{
		"head beyond tail":          {func(h *readerHalf, _ []uint64) { h.head.Store(spec.First + 7) }, true},
		"head backwards":            {func(h *readerHalf, _ []uint64) { h.head.Store(spec.First - 1) }, true},
		"head far away":             {func(h *readerHalf, _ []uint64) { h.head.Store(1 << 63) }, true},
		"head in a record":          {func(h *readerHalf, _ []uint64) { h.head.Store(spec.First + 2) }, true},
		"returnedTail jumps":        {func(h *readerHalf, _ []uint64) { h.returnedTail.Store(17) }, true},
		"returnedTail backwards":    {func(h *readerHalf, _ []uint64) { h.returnedTail.Store(math.MaxUint64) }, true},
		"a full ring of inventions": {func(h *readerHalf, r []uint64) { h.returnedTail.Store(16) }, false},
		"claims everything":         {func(h *readerHalf, _ []uint64) { h.claim.Store(spec.First + 1<<62) }, false},
		"skipped everything":        {func(h *readerHalf, _ []uint64) { h.skippedTo.Store(spec.First + 1<<62) }, false},
		"other fixed fields":        {func(h *readerHalf, _ []uint64) { h.returnSlots, h.returnOffset = 1<<31, 1<<30 }, false},
		"armed changes":             {func(h *readerHalf, _ []uint64) { h.armed.Store(math.MaxUint64) }, false},
		"another route's id":        {func(h *readerHalf, _ []uint64) { h.routeID.Store(99) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			for k, policy := range []Policy{DropOldest, DropNewest, BlockOnFull, DropOldest, DropNewest, BlockOnFull} {
				spec := spec
				spec.Policy = policy
				p := newPair(t, spec)
				if k >= 3 {
					returnTogether(p.w)
				}
				back := map[uint64]int{}
				held := func(n uint64) Held { return heldFunc(func(uint64) { back[n]++ }) }
				p.w.Push(blockWord(0), 1, held(0))
				p.w.PushInline(wire.Inline{}, nil)
				p.w.Push(blockWord(1), 1, held(1))
				p.w.Commit()
				c.spoil(p.r.half, p.r.rets)
				var o Outcome
				for i := range uint64(20) {
					o = p.w.Push(blockWord(2+i), 1, held(2+i))
					p.w.Commit()
				}
				_, err := p.w.Reclaim()
				if c.err != errors.Is(err, ErrCorruptRoute) || c.err != (o == Ended) || c.err != (p.w.Err() != nil) {
					t.Errorf("%v: pushing %v, reclaiming: %v", policy, o, err)
				}
				// Whatever it said: each block comes back once, at the latest when the reader is dead.
				p.w.ReclaimAll()
				for s, n := range back {
					if n != 1 {
						t.Errorf("block %d came back %d times", s, n)
					}
				}
				if p.w.Out() != 0 {
					t.Errorf("%d are out", p.w.Out())
				}
			}
		})
	}
}

// TestReaderAgainstRubbish lets a writer half say what no honest one does.
func TestReaderAgainstRubbish(t *testing.T) {
	first := uint64(math.MaxUint64) - 2 // cursors wrap
	inline := func(n int) uint64 {
		var w [wire.MaxInlineHead]uint64
		(&wire.Inline{Len: n}).PutWords(w[:])
		return w[0]
	}
	for name, c := range map[string]struct {
		spoil func(h *writerHalf, ring []uint64)
		err   bool
		only  Policy // policyBeyond: all
	}{
		"tail jumps":             {func(h *writerHalf, _ []uint64) { h.tail.Store(first + 9) }, true, policyBeyond},
		"tail backwards":         {func(h *writerHalf, _ []uint64) { h.tail.Store(first - 1) }, true, policyBeyond},
		"dropTo beyond tail":     {func(h *writerHalf, _ []uint64) { h.dropTo.Store(first + 2); h.tail.Store(first + 1) }, true, DropOldest},
		"dropTo far beyond":      {func(h *writerHalf, _ []uint64) { h.dropTo.Store(first + 1<<62); h.tail.Store(first + 1) }, true, DropOldest},
		"dropTo backwards":       {func(h *writerHalf, _ []uint64) { h.dropTo.Store(first - 1) }, false, DropOldest},
		"message to place 0":     {func(h *writerHalf, r []uint64) { r[first&7] = 0; h.tail.Store(first + 1) }, true, policyBeyond},
		"message askew":          {func(h *writerHalf, r []uint64) { r[first&7] = 1 << 4; h.tail.Store(first + 1) }, true, policyBeyond},
		"message, reserved bits": {func(h *writerHalf, r []uint64) { r[first&7] = 1<<63 | 4<<4; h.tail.Store(first + 1) }, true, policyBeyond},
		"record too long":        {func(h *writerHalf, r []uint64) { r[first&7] = inline(8); h.tail.Store(first + 2) }, true, policyBeyond},
		"record cut short":       {func(h *writerHalf, r []uint64) { r[first&7] = inline(0); h.tail.Store(first + 1) }, true, policyBeyond},
		"record beyond the ring": {func(h *writerHalf, r []uint64) { r[first&7] = inline(256); h.tail.Store(first + 8) }, true, policyBeyond},
		"record, reserved bits":  {func(h *writerHalf, r []uint64) { r[first&7] = inline(8) | 1<<30; h.tail.Store(first + 8) }, true, policyBeyond},
		"record, kind":           {func(h *writerHalf, r []uint64) { r[first&7] = inline(8) | 15<<14; h.tail.Store(first + 8) }, true, policyBeyond},
		"record, length":         {func(h *writerHalf, r []uint64) { r[first&7] = inline(0) | 1023<<4; h.tail.Store(first + 8) }, true, policyBeyond},
		"fixed fields later": {func(h *writerHalf, r []uint64) {
			h.slots, h.out, h.ringOffset, h.tableOffset = 1<<31, 0, 1<<31, 7
		}, false, policyBeyond},
		"unjoined later": {func(h *writerHalf, r []uint64) { h.joined.Store(0) }, false, policyBeyond},
	} {
		for _, policy := range []Policy{DropOldest, DropNewest, BlockOnFull} {
			if c.only != policyBeyond && c.only != policy {
				continue
			}
			p := newPair(t, RouteSpec{Slots: 8, Depth: 8, Out: 16, Policy: policy, First: first})
			c.spoil(p.w.half, p.w.ring)
			var rec Record
			ok, err := p.r.TryReceive(&rec)
			if ok || c.err != errors.Is(err, ErrCorruptRoute) {
				t.Errorf("%s, %v: %v %v %+v", name, policy, ok, err, rec.Word)
			}
			if c.err {
				if _, again := p.r.TryReceive(&rec); !errors.Is(again, ErrCorruptRoute) {
					t.Errorf("%s, %v: healed: %v", name, policy, again)
				}
			}
		}
	}
}

// TestReturnsToAWriterThatTakesNone: its returnedHead is rubbish, so the ring of returns stays full, and reading ends.
func TestReturnsToAWriterThatTakesNone(t *testing.T) {
	p := newPair(t, RouteSpec{Slots: 4, Depth: 1, Out: 3})
	var rec Record
	for i := range uint64(10_000) {
		p.w.half.returnedHd.Store(1 << 60)
		p.w.half.dropTo.Store(i + 1) // everything was dropped, again and again
		p.w.half.tail.Store(i + 2)
		p.w.ring[(i+1)&3] = uint64(blockWord(i))
		if _, err := p.r.TryReceive(&rec); err != nil {
			t.Fatal(err)
		}
		if n := len(p.r.backlog); n > 100 {
			t.Fatalf("%d returns wait after %d messages", n, i)
		}
	}
}

func TestScansOfRubbish(t *testing.T) {
	if _, err := ScanOut(make([]byte, 100), nil); !errors.Is(err, ErrCorruptRoute) {
		t.Error(err)
	}
	if _, err := ScanReader(make([]byte, 511)); !errors.Is(err, ErrCorruptRoute) {
		t.Error(err)
	}
	p := newPair(t, RouteSpec{Slots: 8, Depth: 4, Out: 8})
	for name, spoil := range map[string]func(){
		"size":  func() { p.w.half.slots = 1 << 16 },
		"slots": func() { p.w.half.slots = 7 },
		"table": func() { p.w.half.slots, p.w.half.tableOffset = 8, 1<<32-16 },
		"out":   func() { p.w.half.tableOffset, p.w.half.out = 704, 1<<32-1 },
	} {
		_ = name
		spoil()
		if _, err := ScanOut(p.wmem, func(uint64, wire.Word) { t.Error("believed it") }); !errors.Is(err, ErrCorruptRoute) {
			t.Error(name, err)
		}
		*p.w.half = writerHalf{}
		fresh := newPair(t, RouteSpec{Slots: 8, Depth: 4, Out: 8})
		p.w, p.wmem = fresh.w, fresh.wmem
	}
}

// FuzzReader feeds a reader a writer half of rubbish, which may change between any two looks.
func FuzzReader(f *testing.F) {
	f.Add(uint8(0), uint64(0), []byte{1, 2, 3})
	f.Add(uint8(2), uint64(math.MaxUint64), binary.LittleEndian.AppendUint64(nil, 1|5<<1|64<<4))
	run := []byte{0x80, 0, 0, 0, 0, 0, 0, 0} // tail
	for k := range byte(4) {                 // then slots that say that there is more
		run = append(run, 5|k<<3, 0, 0, 0, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 1, 0)
	}
	f.Add(uint8(2|2<<2), uint64(0), run)
	f.Fuzz(func(t *testing.T, shape uint8, first uint64, b []byte) {
		spec := RouteSpec{Slots: 1 << (shape >> 2 & 7), Depth: 1, Out: 5, Policy: Policy(shape & 3 % 3), First: first}
		p := newPair(t, spec)
		n := 0
		next := func() uint64 {
			var v [8]byte
			n += copy(v[:], b[min(n, len(b)):])
			return binary.LittleEndian.Uint64(v[:])
		}
		spoil := func(string) {
			if n >= len(b) {
				return
			}
			switch v := next(); v & 7 {
			case 0, 1:
				p.w.half.tail.Store(p.r.next + v>>3&0xfff - 2)
			case 2:
				p.w.half.dropTo.Store(p.r.next + v>>3&0xff - 2)
			case 3:
				p.w.half.tail.Store(next())
			case 4:
				p.w.half.returnedHd.Store(v >> 3 & 31)
			default:
				p.w.ring[v>>3&uint64(spec.Slots-1)] = next()
			}
		}
		p.r.step = spoil
		recs := []*Record{{}, {}, {}}
		for i := range 100 {
			spoil("")
			got, err := 1, error(nil)
			if i%3 == 0 {
				got, err = p.r.TryReceiveBatch(recs)
			} else if ok, e := p.r.TryReceive(recs[0]); !ok {
				got, err = 0, e
			}
			if err != nil {
				if !errors.Is(err, ErrCorruptRoute) {
					t.Fatal(err)
				}
				return
			}
			for _, rec := range recs[:got] {
				if rec.IsBlock() && rec.Seq&1 == 0 {
					p.r.ReturnRecord(rec)
				}
				if len(rec.Payload) > wire.MaxInline || len(p.r.backlog) > 400 || p.r.HeldCount() > int(spec.Out) || len(p.r.runs) > 100 {
					t.Fatal(len(rec.Payload), len(p.r.backlog), p.r.HeldCount(), len(p.r.runs))
				}
			}
			p.r.Unread()
			p.r.Arm()
		}
	})
}

// FuzzWriter feeds a writer a reader half of rubbish, which may change between any two looks.
func FuzzWriter(f *testing.F) {
	f.Add(uint8(0), uint64(0), []byte{1, 2, 3})
	f.Add(uint8(0x10), uint64(math.MaxUint64), make([]byte, 200))
	f.Fuzz(func(t *testing.T, shape uint8, first uint64, b []byte) {
		spec := RouteSpec{Slots: 1 << (shape >> 2 & 7), Depth: 1, Out: 5, Policy: Policy(shape & 3 % 3), First: first}
		if shape&0x80 != 0 {
			spec.Depth, spec.Quota = spec.Slots, 50
		}
		p := newPair(t, spec)
		if shape&0x40 != 0 {
			returnTogether(p.w)
		}
		n := 0
		next := func() uint64 {
			var v [8]byte
			n += copy(v[:], b[min(n, len(b)):])
			return binary.LittleEndian.Uint64(v[:])
		}
		h := p.r.half
		spoil := func(string) {
			if n >= len(b) {
				return
			}
			switch v := next(); v & 7 {
			case 0:
				h.head.Store(p.w.head + v>>3&0xff)
			case 1, 2:
				h.claim.Store(p.w.oldest + v>>3&7 - 2)
			case 3:
				h.skippedTo.Store(p.w.oldest + v>>3&7 - 2)
			case 4, 5:
				k := h.returnedTail.Load()
				p.r.rets[k&uint64(len(p.r.rets)-1)] = p.w.tail - v>>3&15
				h.returnedTail.Store(k + 1)
			case 6:
				h.returnedTail.Store(h.returnedTail.Load() + v>>3&31)
			default:
				h.head.Store(next())
			}
		}
		p.w.step = spoil
		back := map[uint64]int{}
		pushed := 0
		for i := range uint64(100) {
			spoil("")
			o := Sent
			if i%3 == 1 {
				o = p.w.PushInline(wire.Inline{}, nil)
			} else if held := heldFunc(func(uint64) { back[i]++ }); i%3 == 2 {
				if n := p.w.PushBlocks([]Outgoing{{Held: held, Word: blockWord(i), Size: 20}}); n == 1 {
					pushed++
				}
			} else if i%6 == 3 {
				var n int
				if n, o = p.w.PushRun([]Outgoing{{Word: blockWord(i).WithMore()}, {Word: blockWord(i + 1).WithMore()}}, blockWord(i), 20, held); n > 0 {
					pushed++
				}
			} else if o = p.w.Push(blockWord(i), 20, held); o == Sent {
				pushed++
			}
			p.w.Commit()
			if o == Full {
				p.w.ArmSpace()
			}
			if p.w.Out() > int(spec.Out) || p.w.Unread() > int(spec.Depth) || p.w.tail-p.w.free > uint64(spec.Slots) {
				t.Fatal(p.w.Out(), p.w.Unread(), p.w.tail, p.w.free)
			}
			if o == Ended {
				if !errors.Is(p.w.Err(), ErrCorruptRoute) {
					t.Fatal(p.w.Err())
				}
				break
			}
		}
		p.w.ReclaimAll()
		for seq, n := range back {
			if n != 1 {
				t.Fatalf("block %d came back %d times", seq, n)
			}
		}
		if len(back) != pushed {
			t.Fatalf("%d of %d blocks came back", len(back), pushed)
		}
	})
}
