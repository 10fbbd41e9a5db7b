// Package wire is what travels: the 64-bit words of the queues, the size classes, the block header, the inline record,
// the control frame, addresses and topics, bit for bit as docs/abi.md has them.
//
// It is pure: no I/O, no clock, no memory of its own. Encoding refuses what doesn't fit instead of truncating it; decoding
// treats its input as hostile, never panics and allocates nothing on the data path.
package wire

import "errors"

// ABIVersion is major << 16 | minor; different majors don't talk to each other.
const ABIVersion uint32 = 1 << 16 // 1.0

// What encoding and decoding refuse, for errors.Is.
var (
	ErrRange     = errors.New("value doesn't fit its field")
	ErrBadWord   = errors.New("malformed word")
	ErrBadHeader = errors.New("malformed block header")
	ErrBadFrame  = errors.New("malformed frame")
	ErrBadTopic  = errors.New("bad topic")
)

// Kind tells what a message is, in inline records and block headers.
type Kind uint8

// The kinds of messages.
const (
	KindPublish    Kind = 0
	KindRequest    Kind = 1
	KindReply      Kind = 2
	KindErrorReply Kind = 3
	KindCancel     Kind = 4
	KindControl    Kind = 5
)
