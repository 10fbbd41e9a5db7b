package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"testing"
)

func u32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func TestFrame(t *testing.T) {
	for _, c := range []struct {
		head, body, want []byte
	}{
		{nil, nil, make([]byte, 8)},
		{[]byte("h"), nil, join(u32(1), []byte("h"), u32(0))},
		{nil, []byte("body"), join(u32(0), u32(4), []byte("body"))},
		{[]byte("head"), []byte("the body"), join(u32(4), []byte("head"), u32(8), []byte("the body"))},
	} {
		got := AppendFrame([]byte("before"), c.head, c.body)
		if !bytes.Equal(got, join([]byte("before"), c.want)) {
			t.Errorf("AppendFrame(%q, %q) = % x", c.head, c.body, got)
		}
		head, body, err := SplitFrame(c.want)
		if err != nil || !bytes.Equal(head, c.head) || !bytes.Equal(body, c.body) {
			t.Errorf("SplitFrame(% x) = %q, %q, %v", c.want, head, body, err)
		}
		if cap(head) != len(head) || cap(body) != len(body) {
			t.Errorf("SplitFrame(% x): an append would write into the rest of the frame", c.want)
		}
		for n := range c.want {
			if head, body, err := SplitFrame(c.want[:n]); !errors.Is(err, ErrBadFrame) || head != nil || body != nil {
				t.Errorf("cut to %d of %d bytes: %q, %q, %v", n, len(c.want), head, body, err)
			}
		}
	}
}

func TestSplitFrameRefuses(t *testing.T) {
	h4k, rest := make([]byte, 4096), make([]byte, 65536-8-4096)
	for _, c := range []struct {
		name  string
		frame []byte
		ok    bool
	}{
		{"the largest frame", join(u32(4096), h4k, u32(uint32(len(rest))), rest), true},
		{"one byte more", join(u32(4096), h4k, u32(uint32(len(rest)+1)), rest, []byte{0}), false},
		{"a head too long", join(u32(4097), h4k, []byte{0}, u32(0)), false},
		{"a byte after the body", join(u32(1), []byte("h"), u32(1), []byte("b"), []byte{0}), false},
		{"a head longer than the frame", join(u32(9), []byte("h"), u32(0)), false},
		{"a head of 4 GiB", join(u32(math.MaxUint32), make([]byte, 100)), false},
		{"a body of 4 GiB", join(u32(0), u32(math.MaxUint32), make([]byte, 100)), false},
		{"lengths that wrap around 32 bits", join(u32(math.MaxUint32-3), u32(0)), false},
		{"a head that swallows the body's length", join(u32(4), u32(0)), false},
	} {
		if _, _, err := SplitFrame(c.frame); (err == nil) != c.ok || err != nil && !errors.Is(err, ErrBadFrame) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
