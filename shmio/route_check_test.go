package shmio

import (
	"errors"
	"math"
	"testing"

	"github.com/bhome-bus/bhome/wire"
)

// onlyMessages is what a route between nodes may carry besides inline records.
func onlyMessages(w wire.Word) error {
	_, _, err := w.Message()
	return err
}

// What an honest pair shows is right at every step, also where cursors wrap; each planted word isn't.
func TestCheckRoute(t *testing.T) {
	spec := RouteSpec{ID: 7, Slots: 16, Depth: 4, Out: 8, Policy: DropOldest, First: math.MaxUint64 - 20}
	p := newPair(t, spec)
	tail := spec.First
	look := func() (WriterView, ReaderView, error) {
		before := tail
		r, err := ScanReader(p.rmem)
		if err != nil {
			t.Fatal(err)
		}
		v, err := ScanOut(p.wmem, nil)
		if err != nil {
			t.Fatal(err)
		}
		tail = v.Tail
		if err := CheckCursors(before, r, v); err != nil {
			return v, r, err
		}
		_, err = CheckSlots(p.wmem, v, r.Head, onlyMessages)
		return v, r, err
	}
	for i := range uint64(60) {
		p.w.Push(blockWord(i), 1, nil)
		p.w.PushInline(wire.Inline{}, []byte("twelve bytes"))
		p.w.Commit()
		if i%7 == 0 {
			var rec Record
			for {
				got, err := p.r.TryReceive(&rec)
				if err != nil {
					t.Fatal(err)
				}
				if !got {
					break
				}
				if rec.IsBlock() {
					p.r.Return(rec.Seq)
				}
			}
		}
		if _, _, err := look(); err != nil {
			t.Fatalf("after %d messages: %v", i+1, err)
		}
	}
	v, r, _ := look()
	for name, c := range map[string]func(v *WriterView, r *ReaderView, tail *uint64){
		"head beyond tail":   func(v *WriterView, r *ReaderView, _ *uint64) { r.Head = v.Tail + 1 },
		"claim beyond tail":  func(v *WriterView, r *ReaderView, _ *uint64) { r.Claim = v.Tail + 1 },
		"dropTo beyond tail": func(v *WriterView, _ *ReaderView, _ *uint64) { v.DropTo = v.Tail + 1 },
		"first beyond tail":  func(v *WriterView, _ *ReaderView, _ *uint64) { v.First = v.Tail + 1 },
		"too much waits":     func(v *WriterView, r *ReaderView, tail *uint64) { *tail = v.DropTo + 1000 },
	} {
		v, r, tail := v, r, v.Tail
		c(&v, &r, &tail)
		if err := CheckCursors(tail, r, v); !errors.Is(err, ErrCorruptRoute) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ring := words(p.wmem, ringOffset, uint64(spec.Slots))
	from := r.Head
	if ahead(v.DropTo, from) {
		from = v.DropTo
	}
	for _, bad := range []uint64{3, 1 | 7<<1, 1<<63 | 16, 1 | uint64(wire.CmdInline)<<1 | 1023<<4, 1 | uint64(wire.CmdInline)<<1 | 256<<4} {
		was := ring[from&15]
		ring[from&15] = bad
		if at, err := CheckSlots(p.wmem, v, r.Head, onlyMessages); !errors.Is(err, ErrCorruptRoute) || at != from {
			t.Errorf("slot %#x: at %d, %v; want at %d", bad, at, err, from)
		}
		ring[from&15] = was
	}
	if _, err := CheckSlots(p.wmem, WriterView{ID: 7, Slots: 16, Tail: 99}, 0, onlyMessages); !errors.Is(err, ErrCorruptRoute) {
		t.Errorf("more than the ring waits: %v", err)
	}
}
