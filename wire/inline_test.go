package wire

import (
	"encoding/binary"
	"testing"
)

func trace() (t [24]byte) {
	for i := range t {
		t[i] = byte(0xa0 + i)
	}
	return t
}

func TestInlineWords(t *testing.T) {
	tr := trace()
	// The trace context is bytes, not numbers: the words are what lies in memory.
	t0, t1, t2 := binary.NativeEndian.Uint64(tr[0:]), binary.NativeEndian.Uint64(tr[8:]), binary.NativeEndian.Uint64(tr[16:])
	for _, c := range []struct {
		in    Inline
		want  []uint64
		slots int
	}{
		{Inline{}, []uint64{0xb, 0}, 2},
		{Inline{Len: 1}, []uint64{0x1b, 0}, 3},
		{Inline{Len: 8}, []uint64{0x8b, 0}, 3},
		{Inline{Len: 9}, []uint64{0x9b, 0}, 4},
		{Inline{Len: 256}, []uint64{0x100b, 0}, 34},
		{Inline{Kind: KindControl}, []uint64{0x1400b, 0}, 2},
		{Inline{Topic: 0xffffffff}, []uint64{0xffff_ffff_0000_000b, 0}, 2},
		{Inline{Seq: 0xffffffff}, []uint64{0xb, 0x0000_0000_ffff_ffff}, 2},
		{Inline{Stamp: 0xffffffff}, []uint64{0xb, 0xffff_ffff_0000_0000}, 2},
		{Inline{HasTrace: true, Trace: tr}, []uint64{0x4000b, 0, t0, t1, t2}, 5},
		{Inline{HasCorr: true, Corr: 0x1122334455667788}, []uint64{0x8000b, 0, 0x1122334455667788}, 3},
		{Inline{Len: 255, Kind: KindReply, Topic: 0x12345678, Seq: 0x9abcdef0, Stamp: 0x0fedcba9, HasCorr: true, Corr: 7, HasTrace: true, Trace: tr},
			[]uint64{0x1234_5678_000c_8ffb, 0x0fed_cba9_9abc_def0, 7, t0, t1, t2}, 38},
	} {
		dst := [MaxInlineHead + 1]uint64{}
		for i := range dst {
			dst[i] = 0xdeadbeef
		}
		n := c.in.PutWords(dst[:])
		if n != len(c.want) || c.in.HeadWords() != n || c.in.Slots() != c.slots {
			t.Errorf("%+v: %d head words (%d), %d slots; want %d, %d", c.in, n, c.in.HeadWords(), c.in.Slots(), len(c.want), c.slots)
			continue
		}
		for i, w := range c.want {
			if dst[i] != w {
				t.Errorf("%+v: word %d is %#016x, want %#016x", c.in, i, dst[i], w)
			}
		}
		if dst[n] != 0xdeadbeef {
			t.Errorf("%+v: wrote beyond its head", c.in)
		}
		h := InlineHead{Word(dst[0]), dst[1]}
		if slots, ok := h.First.InlineSlots(); !ok || slots != uint64(c.slots) || !h.First.IsInline() || h != c.in.Head() {
			t.Errorf("%+v: the head says %d slots, %v", c.in, slots, ok)
		}
		if h.Len() != c.in.Len || h.Kind() != c.in.Kind || h.Topic() != c.in.Topic || h.Seq() != c.in.Seq || h.Stamp() != c.in.Stamp ||
			h.HasCorr() != c.in.HasCorr || h.HasTrace() != c.in.HasTrace {
			t.Errorf("%+v: the head says %+v", c.in, h)
		}
	}
}

func TestInlineRefusesWhatIsOutOfRange(t *testing.T) {
	for _, w := range []Word{257<<4 | 0xb, 1023<<4 | 0xb, 6<<14 | 0xb, 15<<14 | 0xb} {
		if slots, ok := w.InlineSlots(); ok || slots != 0 {
			t.Errorf("head %#x: %d slots", uint64(w), slots)
		}
	}
	for w := range Word(16) {
		if want := w.IsCommand() && w.Cmd() == CmdInline; w.IsInline() != want {
			t.Errorf("%#x is inline: %v", uint64(w), !want)
		}
		if _, ok := w.InlineSlots(); ok && !w.IsInline() {
			t.Errorf("%#x has slots", uint64(w))
		}
	}
	for _, in := range []Inline{{Len: -1}, {Len: 257}, {Len: 1 << 20}, {Kind: 6}, {Kind: 16}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("PutWords took %+v", in)
				}
			}()
			in.PutWords(make([]uint64, MaxInlineHead))
		}()
	}
}

func TestMaxInlineHead(t *testing.T) {
	if n := (&Inline{HasCorr: true, HasTrace: true}).HeadWords(); n != MaxInlineHead {
		t.Errorf("a head of %d words, MaxInlineHead is %d", n, MaxInlineHead)
	}
}
