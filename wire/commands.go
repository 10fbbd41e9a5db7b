package wire

import "fmt"

const (
	maxRequestID = 1<<28 - 1
	maxSession   = 1<<60 - 1
)

// command makes the word of a command from its data, which is in place from bit 4 on.
func command(c Cmd, data uint64) Word { return Word(1 | uint64(c)<<cmdShift | data) }

// expect checks that w is command c and that no reserved bit is set.
func (w Word) expect(c Cmd, reserved uint64) error {
	if !w.IsCommand() || w.Cmd() != c || uint64(w)&reserved != 0 {
		return badWord(w)
	}
	return nil
}

func outOfRange(c Cmd, field string, v uint64) error {
	return fmt.Errorf("%v word: %s %#x: %w", c, field, v, ErrRange)
}

// bitsAt is a mask of n bits from bit at.
func bitsAt(at, n uint) uint64 { return (1<<n - 1) << at }

// NodeInit begins the conversation in words: this session is here.
type NodeInit struct{ Session uint64 } // base id, 60 bits

// Encode makes the word.
func (c NodeInit) Encode() (Word, error) {
	if c.Session > maxSession {
		return 0, outOfRange(CmdNodeInit, "session", c.Session)
	}
	return command(CmdNodeInit, c.Session<<dataShift), nil
}

// DecodeNodeInit is Encode's inverse.
func DecodeNodeInit(w Word) (NodeInit, error) {
	if err := w.expect(CmdNodeInit, 0); err != nil {
		return NodeInit{}, err
	}
	return NodeInit{Session: w.field(4, 60)}, nil
}

// NodeInitReply grants the block for ProcInit, of the class of 900 bytes.
type NodeInitReply struct {
	Place uint32 // 31 bits
	ID    uint32 // request id of the grant, 28 bits
}

// Encode makes the word.
func (c NodeInitReply) Encode() (Word, error) {
	switch {
	case c.Place > maxPlace:
		return 0, outOfRange(CmdNodeInitReply, "place", uint64(c.Place))
	case c.ID > maxRequestID:
		return 0, outOfRange(CmdNodeInitReply, "request id", uint64(c.ID))
	}
	return command(CmdNodeInitReply, uint64(c.Place)<<4|uint64(c.ID)<<35), nil
}

// DecodeNodeInitReply is Encode's inverse.
func DecodeNodeInitReply(w Word) (NodeInitReply, error) {
	if err := w.expect(CmdNodeInitReply, bitsAt(63, 1)); err != nil {
		return NodeInitReply{}, err
	}
	return NodeInitReply{Place: uint32(w.field(4, 31)), ID: uint32(w.field(35, 28))}, nil
}

// AllocRequest asks for one block (AllocRequest0), or with Batch for 2^Log2 of them (AllocBatch).
type AllocRequest struct {
	ID     uint32 // 28 bits
	Proc   uint16
	Socket uint8 // 4 bits
	Class  uint8
	Log2   uint8 // 0 to MaxBatchLog2; only with Batch
	Batch  bool
}

// MaxBatchLog2 bounds a batch: 256 blocks.
const MaxBatchLog2 = 8

// Encode makes the word.
func (c AllocRequest) Encode() (Word, error) {
	cmd := CmdAllocRequest0
	if c.Batch {
		cmd = CmdAllocBatch
	}
	switch {
	case c.ID > maxRequestID:
		return 0, outOfRange(cmd, "request id", uint64(c.ID))
	case c.Socket > 15:
		return 0, outOfRange(cmd, "socket index", uint64(c.Socket))
	case c.Log2 > MaxBatchLog2 || c.Log2 > 0 && !c.Batch:
		return 0, outOfRange(cmd, "log2 of the count", uint64(c.Log2))
	}
	return command(cmd, uint64(c.ID)<<4|uint64(c.Proc)<<32|uint64(c.Socket)<<48|uint64(c.Class)<<52|uint64(c.Log2)<<60), nil
}

// DecodeAllocRequest is Encode's inverse, for both commands.
func DecodeAllocRequest(w Word) (AllocRequest, error) {
	r := AllocRequest{ID: uint32(w.field(4, 28)), Proc: uint16(w.field(32, 16)), Socket: uint8(w.field(48, 4)),
		Class: uint8(w.field(52, 8)), Log2: uint8(w.field(60, 4)), Batch: w.Cmd() == CmdAllocBatch}
	if !w.IsCommand() || w.Cmd() != CmdAllocRequest0 && w.Cmd() != CmdAllocBatch || r.Log2 > MaxBatchLog2 || r.Log2 > 0 && !r.Batch {
		return AllocRequest{}, badWord(w)
	}
	return r, nil
}

// AllocReply grants a block, or with place 0 refuses.
type AllocReply struct {
	ID    uint32 // 28 bits, the request's
	Place uint32 // 31 bits
}

// Encode makes the word.
func (c AllocReply) Encode() (Word, error) {
	switch {
	case c.ID > maxRequestID:
		return 0, outOfRange(CmdAllocReply0, "request id", uint64(c.ID))
	case c.Place > maxPlace:
		return 0, outOfRange(CmdAllocReply0, "place", uint64(c.Place))
	}
	return command(CmdAllocReply0, uint64(c.ID)<<4|uint64(c.Place)<<32), nil
}

// DecodeAllocReply is Encode's inverse.
func DecodeAllocReply(w Word) (AllocReply, error) {
	if err := w.expect(CmdAllocReply0, bitsAt(63, 1)); err != nil {
		return AllocReply{}, err
	}
	return AllocReply{ID: uint32(w.field(4, 28)), Place: uint32(w.field(32, 31))}, nil
}

// Grant names one grant of one block: the request id (bits 0–27) and the place (bits 28–58) of the AllocReply0 that
// made it, so that a late or repeated Free never meets a later grant of the same block.
type Grant uint64

// NewGrant joins a request id (28 bits) and a place (31 bits). What doesn't fit makes no other grant's name, but one that
// Free refuses to encode.
func NewGrant(id, place uint32) Grant {
	if id > maxRequestID || place > maxPlace {
		return ^Grant(0)
	}
	return Grant(uint64(id) | uint64(place)<<28)
}

// ID is the request id.
func (g Grant) ID() uint32 { return uint32(g & maxRequestID) }

// Place is where the block is.
func (g Grant) Place() uint32 { return uint32(g >> 28 & maxPlace) }

// Free gives a grant back.
type Free struct{ Grant Grant }

// Encode makes the word.
func (c Free) Encode() (Word, error) {
	if c.Grant>>59 != 0 {
		return 0, outOfRange(CmdFree, "grant", uint64(c.Grant))
	}
	return command(CmdFree, uint64(c.Grant)<<dataShift), nil
}

// DecodeFree is Encode's inverse.
func DecodeFree(w Word) (Free, error) {
	if err := w.expect(CmdFree, bitsAt(63, 1)); err != nil {
		return Free{}, err
	}
	return Free{Grant: Grant(w.field(4, 59))}, nil
}

// ControlTrim, as Control.Op, asks a node to keep at most Arg bytes idle.
const ControlTrim = 0

// Control is what the center tells a node besides.
type Control struct {
	Op  uint8  // 4 bits
	Arg uint64 // 56 bits
}

// Encode makes the word.
func (c Control) Encode() (Word, error) {
	switch {
	case c.Op > 15:
		return 0, outOfRange(CmdControl, "operation", uint64(c.Op))
	case c.Arg >= 1<<56:
		return 0, outOfRange(CmdControl, "argument", c.Arg)
	}
	return command(CmdControl, uint64(c.Op)<<4|c.Arg<<8), nil
}

// DecodeControl is Encode's inverse.
func DecodeControl(w Word) (Control, error) {
	if err := w.expect(CmdControl, 0); err != nil {
		return Control{}, err
	}
	return Control{Op: uint8(w.field(4, 4)), Arg: w.field(8, 56)}, nil
}
