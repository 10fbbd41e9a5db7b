package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
)

func header() Header {
	return Header{Tag: 0xf1e2d3c4, Size: 0x11121314, ID: 0x2122232425262728, Stamp: 0x3132333435363738, Seq: 0x4142434445464748,
		Topic: 0x51525354, Publisher: 0x6162, Kind: KindErrorReply, Socket: 2, Flags: 0x73, Trace: trace()}
}

// TestHeaderOffsets pins every field to its offset of docs/abi.md.
func TestHeaderOffsets(t *testing.T) {
	h := header()
	b := bytes.Repeat([]byte{0xee}, 80)
	if err := h.Put(b); err != nil {
		t.Fatal(err)
	}
	e := binary.NativeEndian
	for _, c := range []struct {
		name      string
		got, want uint64
	}{
		{"tag", uint64(e.Uint32(b[0:])), 0xf1e2d3c4},
		{"size", uint64(e.Uint32(b[4:])), 0x11121314},
		{"id", e.Uint64(b[8:]), 0x2122232425262728},
		{"stamp", e.Uint64(b[16:]), 0x3132333435363738},
		{"seq", e.Uint64(b[24:]), 0x4142434445464748},
		{"topic", uint64(e.Uint32(b[32:])), 0x51525354},
		{"publisher", uint64(e.Uint16(b[36:])), 0x6162},
		{"kind and socket", uint64(b[38]), 0x23},
		{"flags", uint64(b[39]), 0x73},
		{"size of the header", HeaderSize, 64},
		{"BlockTag", BlockTag, 0xf1e2d3c4},
	} {
		if c.got != c.want {
			t.Errorf("%s: %#x, want %#x", c.name, c.got, c.want)
		}
	}
	if want := trace(); !bytes.Equal(b[40:64], want[:]) {
		t.Errorf("trace: % x", b[40:64])
	}
	if !bytes.Equal(b[64:], bytes.Repeat([]byte{0xee}, 16)) {
		t.Error("wrote into the payload")
	}
	if got, err := decodeHeader(b); err != nil || got != h {
		t.Errorf("decoded %+v, %v; want %+v", got, err, h)
	}
}

func decodeHeader(b []byte) (Header, error) {
	h := header() // what was there before doesn't matter
	err := h.Decode(b)
	return h, err
}

func TestHeaderRefuses(t *testing.T) {
	good := header()
	buf := make([]byte, HeaderSize)
	for n := range HeaderSize {
		if err := good.Put(buf[:n]); !errors.Is(err, ErrBadHeader) {
			t.Errorf("put into %d bytes: %v", n, err)
		}
		if _, err := decodeHeader(buf[:n]); !errors.Is(err, ErrBadHeader) {
			t.Errorf("decode %d bytes: %v", n, err)
		}
	}
	for _, change := range []func(*Header){func(h *Header) { h.Kind = 16 }, func(h *Header) { h.Socket = 16 }, func(h *Header) { h.Kind = 255 }} {
		h := good
		change(&h)
		clear(buf)
		if err := h.Put(buf); !errors.Is(err, ErrRange) || !bytes.Equal(buf, make([]byte, HeaderSize)) {
			t.Errorf("put %+v: %v, wrote % x", h, err, buf)
		}
	}
	for _, change := range []func(*Header){func(h *Header) { h.Tag = 0 }, func(h *Header) { h.Tag ^= 1 }, func(h *Header) { h.Kind = 6 }, func(h *Header) { h.Kind = 15 }} {
		h := good
		change(&h)
		if err := h.Put(buf); err != nil {
			t.Fatal(err)
		}
		if got, err := decodeHeader(buf); !errors.Is(err, ErrBadHeader) || got != (Header{}) {
			t.Errorf("decode %+v: %+v, %v", h, got, err)
		}
	}
}

func TestHeaderTakesAllThatFits(t *testing.T) {
	var buf [HeaderSize]byte
	for kind := KindPublish; kind <= KindControl; kind++ {
		for socket := range uint8(16) {
			h := header()
			h.Kind, h.Socket = kind, socket
			if err := h.Put(buf[:]); err != nil {
				t.Fatal(err)
			}
			if got, err := decodeHeader(buf[:]); err != nil || got != h || buf[38] != byte(kind)|socket<<4 {
				t.Errorf("kind %d, socket %d: byte %#x, %+v, %v", kind, socket, buf[38], got, err)
			}
		}
	}
}
