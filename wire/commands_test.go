package wire

import (
	"errors"
	"testing"
)

// encoder is any command; decoders are given as functions that encode again what they decoded.
type encoder interface{ Encode() (Word, error) }

// recode decodes w as the type that its command has, and encodes the result.
func recode(w Word) (Word, error) {
	again := func(c encoder, err error) (Word, error) {
		if err != nil {
			return 0, err
		}
		return c.Encode()
	}
	switch w.Cmd() {
	case CmdNodeInit:
		return again(DecodeNodeInit(w))
	case CmdNodeInitReply:
		return again(DecodeNodeInitReply(w))
	case CmdAllocRequest0, CmdAllocBatch:
		return again(DecodeAllocRequest(w))
	case CmdAllocReply0:
		return again(DecodeAllocReply(w))
	case CmdFree:
		return again(DecodeFree(w))
	case CmdControl:
		return again(DecodeControl(w))
	}
	return 0, ErrBadWord
}

// TestCommandWords pins every field to its bits: each alone at its largest, then all with distinct patterns.
func TestCommandWords(t *testing.T) {
	for _, c := range []struct {
		cmd  encoder
		want Word
	}{
		{NodeInit{}, 0x1},
		{NodeInit{Session: 1}, 0x11},
		{NodeInit{Session: 0xfffffffffffffff}, 0xfffffffffffffff1},
		{NodeInit{Session: 0x123456789abcdef}, 0x123456789abcdef1},

		{NodeInitReply{}, 0x3},
		{NodeInitReply{Place: 1}, 0x13},
		{NodeInitReply{Place: 0x7fffffff}, 0x0000_0007_ffff_fff3},
		{NodeInitReply{ID: 1}, 0x0000_0008_0000_0003},
		{NodeInitReply{ID: 0xfffffff}, 0x7fff_fff8_0000_0003},
		{NodeInitReply{Place: 0x12345678, ID: 0xabcdef1}, 0x55e6_f789_2345_6783},

		{AllocRequest{}, 0x5},
		{AllocRequest{ID: 1}, 0x15},
		{AllocRequest{ID: 0xfffffff}, 0x0000_0000_ffff_fff5},
		{AllocRequest{Proc: 0xffff}, 0x0000_ffff_0000_0005},
		{AllocRequest{Socket: 15}, 0x000f_0000_0000_0005},
		{AllocRequest{Class: 255}, 0x0ff0_0000_0000_0005},
		{AllocRequest{ID: 0x1234567, Proc: 0x89ab, Socket: 0xc, Class: 34}, 0x022c_89ab_1234_5675},

		{AllocRequest{Batch: true}, 0xd},
		{AllocRequest{Batch: true, Log2: 8}, 0x8000_0000_0000_000d},
		{AllocRequest{Batch: true, ID: 0x1234567, Proc: 0x89ab, Socket: 3, Class: 0xfe, Log2: 5}, 0x5fe3_89ab_1234_567d},

		{AllocReply{}, 0x7},
		{AllocReply{ID: 0xfffffff}, 0x0000_0000_ffff_fff7},
		{AllocReply{Place: 1}, 0x0000_0001_0000_0007},
		{AllocReply{Place: 0x7fffffff}, 0x7fff_ffff_0000_0007},
		{AllocReply{ID: 0x1234567, Place: 0x789abcde}, 0x789a_bcde_1234_5677},

		{Free{}, 0x9},
		{Free{Grant: NewGrant(0xfffffff, 0)}, 0x0000_0000_ffff_fff9},
		{Free{Grant: NewGrant(0, 0x7fffffff)}, 0x7fff_ffff_0000_0009},
		{Free{Grant: NewGrant(0x1234567, 0x789abcde)}, 0x789a_bcde_1234_5679},

		{Control{Op: ControlTrim}, 0xf},
		{Control{Op: 15}, 0xff},
		{Control{Arg: 1}, 0x10f},
		{Control{Arg: 1<<56 - 1}, 0xffff_ffff_ffff_ff0f},
		{Control{Op: 9, Arg: 0x0123456789abcd}, 0x0123_4567_89ab_cd9f},
	} {
		w, err := c.cmd.Encode()
		if err != nil || w != c.want {
			t.Errorf("%T%+v: %#016x, %v; want %#016x", c.cmd, c.cmd, uint64(w), err, uint64(c.want))
			continue
		}
		if again, err := recode(w); err != nil || again != w {
			t.Errorf("%T%+v: decoded and encoded again it is %#016x, %v", c.cmd, c.cmd, uint64(again), err)
		}
	}
}

func TestDecodedFields(t *testing.T) {
	if v, err := DecodeNodeInit(0x123456789abcdef1); err != nil || v != (NodeInit{0x123456789abcdef}) {
		t.Errorf("NodeInit: %+v, %v", v, err)
	}
	if v, err := DecodeNodeInitReply(0x55e6_f789_2345_6783); err != nil || v != (NodeInitReply{Place: 0x12345678, ID: 0xabcdef1}) {
		t.Errorf("NodeInitReply: %+v, %v", v, err)
	}
	if v, err := DecodeAllocRequest(0x022c_89ab_1234_5675); err != nil || v != (AllocRequest{ID: 0x1234567, Proc: 0x89ab, Socket: 0xc, Class: 34}) {
		t.Errorf("AllocRequest0: %+v, %v", v, err)
	}
	if v, err := DecodeAllocRequest(0x5fe3_89ab_1234_567d); err != nil ||
		v != (AllocRequest{Batch: true, ID: 0x1234567, Proc: 0x89ab, Socket: 3, Class: 0xfe, Log2: 5}) {
		t.Errorf("AllocBatch: %+v, %v", v, err)
	}
	if v, err := DecodeAllocReply(0x789a_bcde_1234_5677); err != nil || v != (AllocReply{ID: 0x1234567, Place: 0x789abcde}) {
		t.Errorf("AllocReply0: %+v, %v", v, err)
	}
	v, err := DecodeFree(0x789a_bcde_1234_5679)
	if err != nil || v.Grant.ID() != 0x1234567 || v.Grant.Place() != 0x789abcde || v.Grant != 0x789abcde1234567 {
		t.Errorf("Free: %+v, %v", v, err)
	}
	if v, err := DecodeControl(0x0123_4567_89ab_cd9f); err != nil || v != (Control{Op: 9, Arg: 0x0123456789abcd}) {
		t.Errorf("Control: %+v, %v", v, err)
	}
}

// TestFreeIsTheGrantingReply: docs/abi.md has a Free's data equal that of the AllocReply0.
func TestFreeIsTheGrantingReply(t *testing.T) {
	reply, err := AllocReply{ID: 0xabcdef1, Place: 0x12345678}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	free, err := Free{Grant: NewGrant(0xabcdef1, 0x12345678)}.Encode()
	if err != nil || reply>>4 != free>>4 {
		t.Errorf("AllocReply0 %#x, Free %#x, %v", uint64(reply), uint64(free), err)
	}
}

func TestCommandsRefuseWhatDoesNotFit(t *testing.T) {
	for _, c := range []encoder{
		NodeInit{Session: 1 << 60}, NodeInit{Session: 1<<64 - 1},
		NodeInitReply{Place: 1 << 31}, NodeInitReply{ID: 1 << 28}, NodeInitReply{ID: 1<<32 - 1},
		AllocRequest{ID: 1 << 28}, AllocRequest{Socket: 16}, AllocRequest{Log2: 1},
		AllocRequest{Batch: true, ID: 1 << 28}, AllocRequest{Batch: true, Socket: 255}, AllocRequest{Batch: true, Log2: 9},
		AllocReply{ID: 1 << 28}, AllocReply{Place: 1 << 31}, AllocReply{ID: 1, Place: 1<<32 - 1},
		Free{Grant: 1 << 59}, Free{Grant: 1<<64 - 1},
		Free{Grant: NewGrant(1<<28, 1)}, Free{Grant: NewGrant(1, 1<<31)},
		Control{Op: 16}, Control{Arg: 1 << 56},
	} {
		if w, err := c.Encode(); !errors.Is(err, ErrRange) || w != 0 {
			t.Errorf("%T%+v: %#x, %v; want ErrRange", c, c, uint64(w), err)
		}
	}
}

func TestDecodersRefuseRubbish(t *testing.T) {
	decoders := map[Cmd]func(Word) error{
		CmdNodeInit:      func(w Word) error { _, err := DecodeNodeInit(w); return err },
		CmdNodeInitReply: func(w Word) error { _, err := DecodeNodeInitReply(w); return err },
		CmdAllocRequest0: func(w Word) error { _, err := DecodeAllocRequest(w); return err },
		CmdAllocReply0:   func(w Word) error { _, err := DecodeAllocReply(w); return err },
		CmdFree:          func(w Word) error { _, err := DecodeFree(w); return err },
		CmdInline: func(w Word) error {
			if _, ok := w.InlineSlots(); !ok {
				return badWord(w)
			}
			return nil
		},
		CmdControl: func(w Word) error { _, err := DecodeControl(w); return err },
	}
	for cmd, decode := range decoders {
		if err := decode(Word(cmd<<1 | 1)); err != nil {
			t.Errorf("%v with all data zero: %v", cmd, err)
		}
		for other := range Cmd(8) {
			if other == cmd || cmd == CmdAllocRequest0 && other == CmdAllocBatch {
				continue
			}
			if err := decode(Word(other<<1 | 1)); !errors.Is(err, ErrBadWord) {
				t.Errorf("%v decoded as %v: %v", other, cmd, err)
			}
		}
		if err := decode(Word(cmd << 1)); !errors.Is(err, ErrBadWord) {
			t.Errorf("%v without the command bit: %v", cmd, err)
		}
	}
	// Bits without a name, one by one.
	for cmd, at := range map[Cmd][]uint{CmdNodeInitReply: {63}, CmdAllocRequest0: {60, 61, 62, 63}, CmdAllocReply0: {63}, CmdFree: {63},
		CmdInline: {20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31}} {
		for _, bit := range at {
			if err := decoders[cmd](Word(cmd<<1|1) | 1<<bit); !errors.Is(err, ErrBadWord) {
				t.Errorf("%v with bit %d: %v", cmd, bit, err)
			}
		}
	}
	for log2 := range Word(16) {
		r, err := DecodeAllocRequest(log2<<60 | 0xd)
		if log2 <= 8 && (err != nil || r.Log2 != uint8(log2)) || log2 > 8 && !errors.Is(err, ErrBadWord) {
			t.Errorf("AllocBatch of 2^%d: %+v, %v", log2, r, err)
		}
	}
}
