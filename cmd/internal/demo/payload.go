package demo

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// A message of the demo is one file: a header, the file's name, its bytes.
//
//	0  u64  position: how many files this publisher has sent before; its place in the pass is position mod files
//	8  i64  when it was sent, Unix ns
//	16 u16  length of the name
//	18      name, relative to the tree
const headSize = 18

// errShort is a message that ends before its header does.
var errShort = errors.New("not a file of the demo: too short")

type fileHead struct {
	Position uint64
	SentNs   int64
	Name     string
}

func messageSize(name string, size int) int { return headSize + len(name) + size }

// putFileHead writes h and returns where the file's bytes go.
func putFileHead(b []byte, h fileHead) []byte {
	binary.LittleEndian.PutUint64(b, h.Position)
	binary.LittleEndian.PutUint64(b[8:], uint64(h.SentNs))
	binary.LittleEndian.PutUint16(b[16:], uint16(len(h.Name)))
	copy(b[headSize:], h.Name)
	return b[headSize+len(h.Name):]
}

// splitFile takes a message apart; content is a part of b.
func splitFile(b []byte) (h fileHead, content []byte, err error) {
	if len(b) < headSize {
		return h, nil, errShort
	}
	n := int(binary.LittleEndian.Uint16(b[16:]))
	if len(b) < headSize+n {
		return h, nil, fmt.Errorf("%w: a name of %d bytes in a message of %d", errShort, n, len(b))
	}
	h.Position = binary.LittleEndian.Uint64(b)
	h.SentNs = int64(binary.LittleEndian.Uint64(b[8:]))
	h.Name = string(b[headSize : headSize+n])
	return h, b[headSize+n:], nil
}
