package wire

import (
	"errors"
	"testing"
)

// The literals in this file are worked out by hand from docs/abi.md, not by the code under test.

func TestMessageWord(t *testing.T) {
	for _, c := range []struct {
		place      uint32
		generation uint16
		want       Word
	}{
		{4, 0, 0x40},
		{4, 1, 0x0000_0008_0000_0040},                   // generation from bit 35
		{0x7ffffffc, 0, 0x0000_0007_ffff_ffc0},          // place up to bit 34
		{0x7ffffffc, 8191, 0x0000_ffff_ffff_ffc0},       // generation up to bit 47
		{0x100, 0x1000, 0x0000_8000_0000_1000},          // the highest bit of the generation alone
		{0x40000000, 0x0aaa, 0x0000_5554_0000_0000},     // the highest bit of the place alone
		{0x12345678, 0x1234, 0x0000_91a1_2345_6780},     // both
		{0x12345678 | 4, 1, 0x0000_0009_2345_67c0},      // an odd generation next to the place
		{0x7ffffff8, 0x1fff - 1, 0x0000_fff7_ffff_ff80}, // no carry between them
	} {
		w, err := Message(c.place, c.generation)
		if err != nil || w != c.want {
			t.Errorf("Message(%#x, %#x) = %#016x, %v; want %#016x", c.place, c.generation, uint64(w), err, uint64(c.want))
			continue
		}
		if w.IsCommand() {
			t.Errorf("%#x is a command", uint64(w))
		}
		place, generation, err := w.Message()
		if err != nil || place != c.place || generation != c.generation {
			t.Errorf("%#x.Message() = %#x, %#x, %v; want %#x, %#x", uint64(w), place, generation, err, c.place, c.generation)
		}
	}
}

func TestMessageWordRefusesWhatDoesNotFit(t *testing.T) {
	for _, c := range []struct {
		place      uint32
		generation uint16
	}{
		{0, 0}, {0, 5}, {1, 0}, {2, 0}, {3, 0}, {0x7fffffff, 0}, {0x80000000, 0}, {0x80000004, 0}, {0xfffffffc, 0},
		{4, 8192}, {4, 0xffff},
	} {
		if w, err := Message(c.place, c.generation); !errors.Is(err, ErrRange) || w != 0 {
			t.Errorf("Message(%#x, %#x) = %#x, %v; want ErrRange", c.place, c.generation, uint64(w), err)
		}
	}
}

func TestMessageWordRefusesRubbish(t *testing.T) {
	const good = 0x0000_91a1_2345_6780
	if _, _, err := Word(good).Message(); err != nil {
		t.Fatal(err)
	}
	bad := []Word{0, 0x10, 0x20, 0x30, good | 0x10, good | 0x20, 1 << 35, 1<<64 - 1}
	for _, bit := range []uint{0, 1, 2, 3, 49, 50, 55, 62, 63} {
		bad = append(bad, good|1<<bit)
	}
	for _, w := range bad {
		if place, generation, err := w.Message(); !errors.Is(err, ErrBadWord) || place != 0 || generation != 0 {
			t.Errorf("%#016x.Message() = %#x, %d, %v; want ErrBadWord", uint64(w), place, generation, err)
		}
	}
}

// Words of messages in one block: bit 48 says that there are more, and places count 16 bytes.
func TestWordsOfOneBlock(t *testing.T) {
	w, err := Message(0x12345678, 0x1234)
	if err != nil {
		t.Fatal(err)
	}
	more := w.WithMore()
	if w.More() || !more.More() || more != w|1<<48 || more.Alone() != w || w.Alone() != w {
		t.Errorf("%#x, %#x", w, more)
	}
	if place, generation, err := more.Message(); place != 0x12345678 || generation != 0x1234 || err != nil {
		t.Errorf("%#x, %d, %v", place, generation, err)
	}
	behind := w.Behind(5 * 64)
	if place, generation, err := behind.Message(); place != 0x12345678+5*4 || generation != 0x1234 || err != nil {
		t.Errorf("%#x, %d, %v", place, generation, err)
	}
	if d := behind.From(w); d != 5*64 {
		t.Errorf("%d bytes", d)
	}
	other, _ := Message(0x12345678, 0x1233)
	if d, e := w.From(behind), w.From(other); d < 1<<35 || e < 1<<35 { // the space has no more
		t.Errorf("%#x, %#x", d, e)
	}
}

func TestCmd(t *testing.T) {
	for i, name := range []string{"NodeInit", "NodeInitReply", "AllocRequest0", "AllocReply0", "Free", "Inline", "AllocBatch", "Control"} {
		w := Word(i<<1 | 1)
		if !w.IsCommand() || w.Cmd() != Cmd(i) || w.Cmd().String() != name {
			t.Errorf("%#x: command %v, %v; want %s", uint64(w), w.IsCommand(), w.Cmd(), name)
		}
		if w := ^Word(0)&^0xf & ^Word(1) | Word(i<<1); w.IsCommand() || w.Cmd() != Cmd(i) {
			t.Errorf("%#x: command %v, %v: bits from 4 on are data", uint64(w), w.IsCommand(), w.Cmd())
		}
	}
	if s := Cmd(8).String(); s != "Cmd(8)" {
		t.Errorf("Cmd(8) is called %q", s)
	}
}
