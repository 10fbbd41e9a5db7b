package wire

import (
	"encoding/binary"
	"fmt"
)

// Bounds of a control frame.
const (
	MaxFrame     = 64 << 10
	MaxFrameHead = 4 << 10
)

// AppendFrame appends `u32 head length, head, u32 body length, body` to dst. Whether the result keeps to MaxFrame and
// MaxFrameHead is for the caller, who knows whom to tell; SplitFrame refuses it otherwise.
func AppendFrame(dst, head, body []byte) []byte {
	dst = binary.NativeEndian.AppendUint32(dst, uint32(len(head)))
	dst = append(dst, head...)
	dst = binary.NativeEndian.AppendUint32(dst, uint32(len(body)))
	return append(dst, body...)
}

// SplitFrame is AppendFrame's inverse: head and body are views into b, which may be empty. Lengths that lie, and bytes
// after the body, are ErrBadFrame.
func SplitFrame(b []byte) (head, body []byte, err error) {
	if len(b) > MaxFrame {
		return nil, nil, fmt.Errorf("%w: %d bytes, at most %d", ErrBadFrame, len(b), MaxFrame)
	}
	head, rest, err := part(b, "head")
	if err != nil {
		return nil, nil, err
	}
	if len(head) > MaxFrameHead {
		return nil, nil, fmt.Errorf("%w: head of %d bytes, at most %d", ErrBadFrame, len(head), MaxFrameHead)
	}
	body, rest, err = part(rest, "body")
	if err != nil {
		return nil, nil, err
	}
	if len(rest) != 0 {
		return nil, nil, fmt.Errorf("%w: %d bytes after the body", ErrBadFrame, len(rest))
	}
	return head, body, nil
}

func part(b []byte, what string) (p, rest []byte, err error) {
	if len(b) < 4 {
		return nil, nil, fmt.Errorf("%w: it ends before the length of its %s", ErrBadFrame, what)
	}
	n := uint64(binary.NativeEndian.Uint32(b))
	if n > uint64(len(b)-4) {
		return nil, nil, fmt.Errorf("%w: %s of %d bytes where %d are left", ErrBadFrame, what, n, len(b)-4)
	}
	return b[4 : 4+n : 4+n], b[4+n:], nil
}
