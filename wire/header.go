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

// Header is what a block begins with. Put has the order there; here Trace stands where its words are aligned.
type Header struct {
	Tag       uint32 // BlockTag
	Size      uint32 // bytes of payload
	ID        uint64 // message id; requests, replies: the correlation id
	Stamp     uint64 // ns of CLOCK_MONOTONIC_COARSE
	Seq       uint64 // the publisher's, from 1
	Trace     [24]byte
	Topic     uint32
	Publisher uint16 // proc index
	Kind      Kind   // 4 bits
	Socket    uint8  // 4 bits
	Flags     uint8  // bit 0: Trace is valid; 1–7 the W3C trace flags
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
	for i := 0; i < len(h.Trace); i += 8 {
		e.PutUint64(b[40+i:], e.Uint64(h.Trace[i:]))
	}
	return nil
}

// HeaderImage is a header as it lies in memory, of which others are made that differ in little.
type HeaderImage [HeaderSize]byte

// Image is what Put writes. It panics where Put has an error.
func (h *Header) Image() (image HeaderImage) {
	if err := h.Put(image[:]); err != nil {
		panic(err)
	}
	return image
}

// Put writes the header to b, which is at least HeaderSize long, but with this size, id and sequence number.
func (i *HeaderImage) Put(b []byte, size uint32, id, seq uint64) {
	at := (*HeaderImage)(b)
	*at = *i
	binary.NativeEndian.PutUint32(at[4:], size)
	storeWord(at[8:], id)
	storeWord(at[24:], seq)
}

// Decode reads into h the header at the start of b, once, and checks its tag and kind; ErrBadHeader leaves h zero.
// Whether Size fits is for the caller, who knows the block.
//
// Field by field, here and in Put: a struct that is written in parts and then copied whole is loaded from stores that the
// processor can't forward, which costs more than all the rest.
func (h *Header) Decode(b []byte) error {
	if len(b) < HeaderSize {
		return h.bad(fmt.Errorf("%w: %d bytes", ErrBadHeader, len(b)))
	}
	own := [HeaderSize]byte(b) // the owner may go on writing: what is checked must be what is used
	e := binary.NativeEndian
	h.Tag = e.Uint32(own[0:])
	h.Size = e.Uint32(own[4:])
	h.ID = e.Uint64(own[8:])
	h.Stamp = e.Uint64(own[16:])
	h.Seq = e.Uint64(own[24:])
	h.Topic = e.Uint32(own[32:])
	h.Publisher = e.Uint16(own[36:])
	h.Kind = Kind(own[38] & 15)
	h.Socket = own[38] >> 4
	h.Flags = own[39]
	for i := 0; i < len(h.Trace); i += 8 {
		e.PutUint64(h.Trace[i:], e.Uint64(own[40+i:]))
	}
	if h.Tag != BlockTag || h.Kind > KindControl {
		return h.bad(fmt.Errorf("%w: tag %#x, kind %d", ErrBadHeader, h.Tag, h.Kind))
	}
	return nil
}

// Glance reads of the header at the start of b what the receiver of a message needs, and checks it as Decode does. Each field is loaded
// once: the owner may go on writing, and what is checked must be what is used.
func Glance(b []byte) (size, topic uint32, id, stamp, seq uint64, kind Kind, ok bool) {
	if len(b) < HeaderSize {
		return 0, 0, 0, 0, 0, 0, false
	}
	e := binary.NativeEndian
	kind = Kind(b[38] & 15)
	return e.Uint32(b[4:]), e.Uint32(b[32:]), loadWord(b[8:]), loadWord(b[16:]), loadWord(b[24:]), kind,
		e.Uint32(b[0:]) == BlockTag && kind <= KindControl
}

func (h *Header) bad(why error) error {
	*h = Header{}
	return why
}
