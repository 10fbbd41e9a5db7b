package shmio

import (
	"errors"
	"fmt"
	"math/bits"
	"reflect"
	"structs"
	"sync/atomic"

	"github.com/bhome-bus/bhome/wire"
)

// ErrCorruptRoute says that a peer's half of a route holds what no honest peer writes: a cursor that jumped, a word that
// is none, fixed fields that differ from what the center said. The route is lost; nothing else is. Errors that wrap it
// name the word and its value.
var ErrCorruptRoute = errors.New("shmio: corrupt route")

// ErrRouteSpec says that a RouteSpec (or the memory given for it) can't be a route.
var ErrRouteSpec = errors.New("shmio: invalid route")

// Limits of a route (docs/abi.md section 4).
const (
	MaxSlots = 1 << 16 // slots of a ring
	MaxOut   = 1 << 17 // unreturned blocks of a route
)

// Offsets of what follows the fixed part of the halves.
const (
	halfAlign    = 128
	ringOffset   = 640
	returnOffset = 512
)

// Policy says what a full route does with one message too many.
type Policy uint32

// The policies, as they stand in a writer half.
const (
	DropOldest   Policy = 0 // the oldest unread message goes
	DropNewest   Policy = 1 // the new message goes
	BlockOnFull  Policy = 2 // nothing goes: the sender waits, or tries later
	policyBeyond Policy = 3
)

// String names the policy as bhctl shows it.
func (p Policy) String() string {
	switch p {
	case DropOldest:
		return "drop-oldest"
	case DropNewest:
		return "drop-newest"
	case BlockOnFull:
		return "block"
	}
	return fmt.Sprintf("policy(%d)", uint32(p))
}

// RouteSpec is what both ends of a route are told of it.
type RouteSpec struct {
	ID     uint64 // not 0
	Slots  uint32 // 64-bit words of the ring: a power of two, 1 to MaxSlots
	Depth  uint32 // messages that may wait unread: 1 to Slots
	Out    uint32 // blocks that may be unreturned (unread or held): 1 to MaxOut
	Policy Policy // when Depth, Out or Quota is used up
	Quota  uint64 // payload bytes of unreturned blocks; 0: no limit. One message may exceed it while nothing else is out
	First  uint64 // where the cursors start; anything
}

// Validate tells whether the spec can be a route; the error wraps ErrRouteSpec.
func (s RouteSpec) Validate() error {
	switch {
	case s.ID == 0:
		return fmt.Errorf("%w: id 0", ErrRouteSpec)
	case s.Slots == 0 || s.Slots > MaxSlots || s.Slots&(s.Slots-1) != 0:
		return fmt.Errorf("%w %#x: %d slots, not a power of two from 1 to %d", ErrRouteSpec, s.ID, s.Slots, MaxSlots)
	case s.Depth == 0 || s.Depth > s.Slots:
		return fmt.Errorf("%w %#x: depth %d, not from 1 to %d (slots)", ErrRouteSpec, s.ID, s.Depth, s.Slots)
	case s.Out == 0 || s.Out > MaxOut:
		return fmt.Errorf("%w %#x: out %d, not from 1 to %d", ErrRouteSpec, s.ID, s.Out, MaxOut)
	case s.Policy >= policyBeyond:
		return fmt.Errorf("%w %#x: %v", ErrRouteSpec, s.ID, s.Policy)
	}
	return nil
}

// twiceOut is the size of the out table and of the return ring: the power of two that is at least 2 × Out.
func (s RouteSpec) twiceOut() uint32 { return 1 << bits.Len32(2*s.Out-1) }

func (s RouteSpec) tableOffset() uint32 { return ringOffset + 8*s.Slots }

// WriterSize is how many bytes the writer half takes, a multiple of 128.
func (s RouteSpec) WriterSize() uint64 {
	return roundHalf(uint64(s.tableOffset()) + 16*uint64(s.twiceOut()))
}

// ReaderSize is how many bytes the reader half takes, a multiple of 128.
func (s RouteSpec) ReaderSize() uint64 {
	return roundHalf(returnOffset + 8*uint64(s.twiceOut()))
}

func roundHalf(n uint64) uint64 { return (n + halfAlign - 1) &^ (halfAlign - 1) }

// recordLimit is how many slots an inline record may take. Depth records of that length fit the ring. A link (Out not
// above Depth) promises no depth: its few blocks are the tighter limit.
func (s RouteSpec) recordLimit() uint64 {
	per := s.Slots / s.Depth
	if s.Out <= s.Depth {
		per = s.Slots
	}
	return uint64(min(per, 2+wire.MaxInline/8))
}

// InlineLimit is how many bytes of payload (correlation id and trace context counted) travel inside the ring: 0 to
// wire.MaxInline; -1: none, not even an empty message. Longer messages need a block.
func (s RouteSpec) InlineLimit() int {
	if limit := s.recordLimit(); limit >= 2 {
		return 8 * (int(limit) - 2)
	}
	return -1
}

// holdLimit is how many blocks a receiver may hold read and unreturned. Where Out is not above Depth (the links), only
// Out itself limits it.
func (s RouteSpec) holdLimit() int64 {
	if s.Out > s.Depth {
		return int64(s.Out - s.Depth)
	}
	return int64(s.Out)
}

// Held is told when a block that was pushed is the sender's own again: returned, dropped and taken back, or its reader
// died. It is called by Push, Reclaim and ReclaimAll, with whatever lock their caller holds, and must not call the
// Writer.
type Held interface{ Returned(seq uint64) }

// returnsAtOnce is how many blocks whoever takes returns together gets at most.
const returnsAtOnce = 64

// Ringer wakes the peer. Ring must not block. *Bell is one.
type Ringer interface{ Ring(hint uint32) }

// LinkRinger makes of a bell that of a link, whose rings carry no route (hint 0).
func LinkRinger(b Ringer) Ringer { return linkRinger{b} }

type linkRinger struct{ b Ringer }

func (l linkRinger) Ring(uint32) { l.b.Ring(0) }

// Outcome is what became of a pushed message.
type Outcome int

// The outcomes. Only Sent takes the block.
const (
	Sent          Outcome = iota // in the ring; visible after Commit
	DroppedNewest                // the policy dropped this one, and it is counted
	Full                         // BlockOnFull and no room: nothing counted, try later
	TooLarge                     // inline payload above InlineLimit: needs a block
	Ended                        // the route is closed, corrupt (Err says how) or its reader dead
)

// String names the outcome.
func (o Outcome) String() string {
	switch o {
	case Sent:
		return "sent"
	case DroppedNewest:
		return "dropped-newest"
	case Full:
		return "full"
	case TooLarge:
		return "too-large"
	case Ended:
		return "ended"
	}
	return fmt.Sprintf("outcome(%d)", int(o))
}

// writerHalf is the fixed part of the half that the sender writes and everybody else reads (docs/abi.md section 4).
// Fields are grouped by who reads them when; each group has a line of 128 bytes of its own.
type writerHalf struct {
	_           structs.HostLayout
	routeID     atomic.Uint64
	slots       uint32
	depth       uint32
	out         uint32
	policy      uint32
	tableSlots  uint32
	ringOffset  uint32
	tableOffset uint32
	zero        uint32
	first       uint64
	_           [80]byte
	tail        atomic.Uint64 // pairs with Reader.load and with Reader.Arm
	_           [120]byte
	dropTo      atomic.Uint64 // pairs with readerHalf.claim: each side stores its own, then loads the other's
	_           [120]byte
	wantsSpace  atomic.Uint64 // pairs with readerHalf.head and returnedTail: store, then load
	returnedHd  atomic.Uint64 // pairs with Reader.flush
	joined      atomic.Uint64 // pairs with Reader.ready
	over        atomic.Uint64 // pairs with Reader.WriterOver: stored after the last tail
	_           [96]byte
	sent        uint64 // statistics: stored by storeStat, loaded atomically
	dropped     uint64
	bytesOut    uint64
	badReturns  uint64
	_           [96]byte
}

// readerHalf is the fixed part of the half that the receiver writes and everybody else reads.
type readerHalf struct {
	_            structs.HostLayout
	routeID      atomic.Uint64
	returnSlots  uint32
	returnOffset uint32
	_            [112]byte
	head         atomic.Uint64 // pairs with Writer.refresh: slots before it may be reused
	claim        atomic.Uint64 // pairs with writerHalf.dropTo: each side stores its own, then loads the other's
	skippedTo    atomic.Uint64 // pairs with Writer.dropOne: where the last skip went on; stored before head and the next claim
	_            [104]byte
	armed        atomic.Uint64 // pairs with writerHalf.tail: store, then load the other's
	_            [120]byte
	returnedTail atomic.Uint64 // pairs with Writer.Reclaim
	left         atomic.Uint64 // pairs with Writer.ReaderLeft: stored after the last returnedTail
	_            [112]byte
}

// ahead tells whether cursor a lies beyond cursor b, also when they wrapped past 2^64.
func ahead(a, b uint64) bool { return int64(a-b) > 0 }

// storeStat stores a statistic that other processes look at, where a full barrier per message would be all its cost.
// An aligned 64-bit store is whole on every 64-bit machine; nothing is published by it, and who reads it reads
// atomically.
//
//go:norace
func storeStat(p *uint64, v uint64) { *p = v }

// checkHalf refuses memory that is too small for a half or lies askew.
func checkHalf(what string, mem []byte, size uint64) error {
	if uint64(len(mem)) < size {
		return fmt.Errorf("%w: %s half of %d bytes in %d bytes", ErrRouteSpec, what, size, len(mem))
	}
	if reflect.ValueOf(mem).Pointer()%8 != 0 {
		return fmt.Errorf("%w: %s half is not 8-aligned", ErrRouteSpec, what)
	}
	return nil
}
