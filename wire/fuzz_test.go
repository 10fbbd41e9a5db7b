package wire

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

// FuzzWord: whatever is decoded from a word is encoded to that word again; what isn't gives ErrBadWord.
func FuzzWord(f *testing.F) {
	for _, w := range []uint64{0, 0x40, 1, 0x0000_ffff_ffff_ffc0, 0xfffffffffffffff1, 0x55e6_f789_2345_6783, 0x022c_89ab_1234_5675,
		0x5fe3_89ab_1234_567d, 0x1_ffff_ffff_ffc0, 0x789a_bcde_1234_5677, 0x789a_bcde_1234_5679, 0x1234_5678_000c_8ffb, 0x0123_4567_89ab_cd9f, 1<<64 - 1} {
		f.Add(w)
	}
	f.Fuzz(func(t *testing.T, raw uint64) {
		w := Word(raw)
		place, generation, err := w.Message()
		if err == nil {
			again, err := Message(place, generation)
			if w.More() {
				again = again.WithMore()
			}
			if err != nil || again != w {
				t.Errorf("message %#x became %#x, %v", raw, uint64(again), err)
			}
		} else if !errors.Is(err, ErrBadWord) {
			t.Errorf("message %#x: %v", raw, err)
		}
		if w.IsCommand() && err == nil {
			t.Errorf("%#x is both a command and a message", raw)
		}
		again, err := recode(w)
		if !w.IsCommand() && err == nil {
			t.Errorf("%#x is no command, but decodes as %v", raw, w.Cmd())
		}
		if err == nil && again != w || err != nil && !errors.Is(err, ErrBadWord) {
			t.Errorf("%v %#x became %#x, %v", w.Cmd(), raw, uint64(again), err)
		}
	})
}

// FuzzCommands: whatever is encoded is decoded to what it was.
func FuzzCommands(f *testing.F) {
	f.Add(uint32(0), uint32(0), uint64(0), uint16(0), uint8(0), uint8(0), uint8(0))
	f.Add(uint32(1<<28-1), uint32(1<<31-1), uint64(1<<60-1), uint16(1<<16-1), uint8(15), uint8(255), uint8(8))
	f.Add(uint32(1<<28), uint32(1<<31), uint64(1<<60), uint16(1<<13), uint8(16), uint8(34), uint8(9))
	f.Fuzz(func(t *testing.T, id, place uint32, long uint64, proc uint16, small, class, log2 uint8) {
		roundTrip(t, NodeInit{long}, DecodeNodeInit)
		roundTrip(t, NodeInitReply{Place: place, ID: id}, DecodeNodeInitReply)
		roundTrip(t, AllocRequest{ID: id, Proc: proc, Socket: small, Class: class}, DecodeAllocRequest)
		roundTrip(t, AllocRequest{ID: id, Proc: proc, Socket: small, Class: class, Log2: log2, Batch: true}, DecodeAllocRequest)
		roundTrip(t, AllocReply{ID: id, Place: place}, DecodeAllocReply)
		roundTrip(t, Free{Grant(long)}, DecodeFree)
		roundTrip(t, Free{NewGrant(id, place)}, DecodeFree)
		roundTrip(t, Control{Op: small, Arg: long}, DecodeControl)
	})
}

func roundTrip[T interface {
	comparable
	encoder
}](t *testing.T, v T, decode func(Word) (T, error)) {
	t.Helper()
	w, err := v.Encode()
	if err != nil {
		if !errors.Is(err, ErrRange) || w != 0 {
			t.Errorf("%T%+v: %#x, %v", v, v, uint64(w), err)
		}
		return
	}
	if got, err := decode(w); err != nil || got != v {
		t.Errorf("%T%+v became %+v, %v", v, v, got, err)
	}
}

// FuzzInline: a head that can be one is made of what it says; its slots are within bounds.
func FuzzInline(f *testing.F) {
	for _, in := range []Inline{{}, {Len: 256, Kind: KindControl}, {Len: 9, HasCorr: true}, {HasTrace: true},
		{Len: 255, Kind: KindReply, Topic: 1, Seq: 2, Stamp: 3, HasCorr: true, HasTrace: true}} {
		f.Add(uint64(in.Head().First), in.Head().Meta)
	}
	f.Add(uint64(0), uint64(0))
	f.Fuzz(func(t *testing.T, first, meta uint64) {
		h := InlineHead{Word(first), meta}
		slots, ok := h.First.InlineSlots()
		if ok && !h.First.IsInline() {
			t.Errorf("%x: %d slots, but it isn't inline", first, slots)
		}
		if !ok {
			return
		}
		in := Inline{Len: h.Len(), Kind: h.Kind(), Topic: h.Topic(), Seq: h.Seq(), Stamp: h.Stamp(), HasCorr: h.HasCorr(), HasTrace: h.HasTrace()}
		if again := in.Head(); again != h {
			t.Errorf("%x became %x", h, again)
		}
		if slots != uint64(in.Slots()) || slots < 2 || slots > MaxInlineHead+MaxInline/8 {
			t.Errorf("%x: %d slots of %d", first, slots, in.Slots())
		}
	})
}

// FuzzHeader: a header that is decoded is encoded to the same bytes.
func FuzzHeader(f *testing.F) {
	h, b := header(), make([]byte, HeaderSize)
	if err := h.Put(b); err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:63])
	f.Add(make([]byte, HeaderSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		var h Header
		if err := h.Decode(b); err != nil {
			if !errors.Is(err, ErrBadHeader) {
				t.Error(err)
			}
			return
		}
		var out [HeaderSize]byte
		if err := h.Put(out[:]); err != nil || !bytes.Equal(out[:], b[:HeaderSize]) {
			t.Errorf("% x became % x, %v", b[:HeaderSize], out, err)
		}
	})
}

// FuzzFrame: a frame that is split is joined to the same bytes.
func FuzzFrame(f *testing.F) {
	f.Add(AppendFrame(nil, []byte("head"), []byte("body")))
	f.Add(make([]byte, 8))
	f.Add(bytes.Repeat([]byte{0xff}, 16))
	f.Fuzz(func(t *testing.T, b []byte) {
		head, body, err := SplitFrame(b)
		if err != nil {
			if !errors.Is(err, ErrBadFrame) {
				t.Error(err)
			}
			return
		}
		if out := AppendFrame(nil, head, body); !bytes.Equal(out, b) || len(head) > MaxFrameHead || len(out) > MaxFrame {
			t.Errorf("% x became % x", b, out)
		}
	})
}

// FuzzTopic compares MatchTopic with a plain recursion over tokens, and the two validations with each other.
func FuzzTopic(f *testing.F) {
	for _, c := range [][2]string{{"a.>", "a.b"}, {"*", "a"}, {"a.", "a.b.c"}, {"", ""}, {".", ".."}, {"a.*.c", "a.b.c"}, {"\xff", "a\x00"}} {
		f.Add(c[0], c[1])
	}
	f.Fuzz(func(t *testing.T, pattern, topic string) {
		pErr, tErr := ValidatePattern(pattern), ValidateTopic(topic)
		got := MatchTopic(pattern, topic) // whatever they are, it must come back
		if ValidateTopic(pattern) == nil && pErr != nil {
			t.Errorf("topic %q is no pattern: %v", pattern, pErr)
		}
		if pErr != nil || tErr != nil {
			return
		}
		if want := matches(strings.Split(pattern, "."), strings.Split(topic, ".")); got != want {
			t.Errorf("MatchTopic(%q, %q) = %v, want %v", pattern, topic, got, want)
		}
	})
}

func matches(pattern, topic []string) bool {
	switch {
	case len(pattern) == 1 && (pattern[0] == "" || pattern[0] == ">"):
		return len(topic) > 0
	case len(pattern) == 0 || len(topic) == 0:
		return len(pattern) == len(topic)
	}
	return (pattern[0] == "*" || pattern[0] == topic[0]) && matches(pattern[1:], topic[1:])
}
