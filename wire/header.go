package wire

import (
	"encoding/binary"
	"fmt"
)

// The block header.
const (
	HeaderSize = 64
	BlockTag   = 0xf1e2d3c4
	blockAlign = 64
)

// Header is what a block begins with.
type Header struct {
	Tag       uint32 // BlockTag
	Size      uint32 // bytes of payload
	ID        uint64 // message id; requests, replies: the correlation id
	Stamp     uint64 // ns of CLOCK_MONOTONIC_COARSE
	Seq       uint64 // the publisher's, from 1
	Topic     uint32
	Publisher uint16 // proc index
	Kind      Kind   // 4 bits
	Socket    uint8  // 4 bits
	Flags     uint8  // bit 0: Trace is valid; 1–7 the W3C trace flags
	Trace     [24]byte
}

// loadWord and storeWord move 8 bytes as they lie in memory.
func loadWord(b []byte) uint64     { return binary.NativeEndian.Uint64(b) }
func storeWord(b []byte, v uint64) { binary.NativeEndian.PutUint64(b, v) }

// Put writes h to the first HeaderSize bytes of b. Fewer are ErrBadHeader, a Kind or Socket that doesn't fit is ErrRange;
// then nothing is written. The tag is written as it is.
func (h *Header) Put(b []byte) error {
	if len(b) < HeaderSize {
		return fmt.Errorf("put a block header into %d bytes: %w", len(b), ErrBadHeader)
	}
	if h.Kind > 15 || h.Socket > 15 {
		return fmt.Errorf("put a block header with kind %d, socket %d: %w", h.Kind, h.Socket, ErrRange)
	}
	b = b[:HeaderSize]
	e := binary.NativeEndian
	e.PutUint32(b[0:], h.Tag)
	e.PutUint32(b[4:], h.Size)
	e.PutUint64(b[8:], h.ID)
	e.PutUint64(b[16:], h.Stamp)
	e.PutUint64(b[24:], h.Seq)
	e.PutUint32(b[32:], h.Topic)
	e.PutUint16(b[36:], h.Publisher)
	b[38] = uint8(h.Kind) | h.Socket<<4
	b[39] = h.Flags
	copy(b[40:], h.Trace[:])
	return nil
}

// DecodeHeader reads the header at the start of b once, and checks its tag and kind (ErrBadHeader). Whether Size fits is
// for the caller, who knows the block.
func DecodeHeader(b []byte) (Header, error) {
	if len(b) < HeaderSize {
		return Header{}, fmt.Errorf("%w: %d bytes", ErrBadHeader, len(b))
	}
	b = b[:HeaderSize]
	e := binary.NativeEndian
	kind := b[38]
	h := Header{Tag: e.Uint32(b[0:]), Size: e.Uint32(b[4:]), ID: e.Uint64(b[8:]), Stamp: e.Uint64(b[16:]), Seq: e.Uint64(b[24:]),
		Topic: e.Uint32(b[32:]), Publisher: e.Uint16(b[36:]), Kind: Kind(kind & 15), Socket: kind >> 4, Flags: b[39]}
	copy(h.Trace[:], b[40:])
	if h.Tag != BlockTag || h.Kind > KindControl {
		return Header{}, badHeader(h)
	}
	return h, nil
}

func badHeader(h Header) error {
	return fmt.Errorf("%w: tag %#x, kind %d", ErrBadHeader, h.Tag, h.Kind)
}
