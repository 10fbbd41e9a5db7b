package soak

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// A payload of the soak says whose it is and proves that all its bytes are:
//
//	0  u32  member that sent it
//	4  u32  slot of the member's journal: which of its publishers, or clients
//	8  u64  position: how many that slot has sent before; of a request, its number
//	16 u32  flags; of a request, what the handler shall do
//	20 u32  CRC-32C of all other bytes
//	24      a piece of the pattern
const headBytes = 24

// lossless: the publisher waits for whoever asks it to, so that Block subscribers lose nothing.
const lossless = 1

// What a handler shall do with a request.
const (
	doAnswer = iota
	doFail
	doPanic
	doSleep
	doExit
)

var errPayload = errors.New("corrupt payload")

type head struct {
	Member, Slot uint32
	Position     uint64
	Flags        uint32
}

// pattern is what payloads are filled with.
type pattern []byte

// maxPayload is the most that a payload is, in bytes.
const maxPayload = 4 << 20

func newPattern() pattern {
	p := make(pattern, maxPayload+4096)
	x := uint64(0x9e3779b97f4a7c15)
	for i := 0; i+8 <= len(p); i += 8 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		binary.LittleEndian.PutUint64(p[i:], x)
	}
	return p
}

func table() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

func sum(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[:20], table()), table(), b[headBytes:])
}

// put fills b, of at least headBytes.
func (p pattern) put(b []byte, h head) {
	binary.LittleEndian.PutUint32(b, h.Member)
	binary.LittleEndian.PutUint32(b[4:], h.Slot)
	binary.LittleEndian.PutUint64(b[8:], h.Position)
	binary.LittleEndian.PutUint32(b[16:], h.Flags)
	copy(b[headBytes:], p[h.Position%4096:])
	binary.LittleEndian.PutUint32(b[20:], sum(b))
}

// parse checks a payload and returns its head.
func parse(b []byte) (h head, err error) {
	if len(b) < headBytes {
		return h, fmt.Errorf("%w: %d bytes", errPayload, len(b))
	}
	h = head{binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:]), binary.LittleEndian.Uint64(b[8:]), binary.LittleEndian.Uint32(b[16:])}
	if got, want := sum(b), binary.LittleEndian.Uint32(b[20:]); got != want {
		return h, fmt.Errorf("%w: %d bytes, CRC %08x, it should be %08x; its head says %+v", errPayload, len(b), got, want, h)
	}
	return h, nil
}
