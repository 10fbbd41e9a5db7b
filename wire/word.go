package wire

import "fmt"

// Word is one slot of a queue: bit 0 tells a command (1) from a message (0).
type Word uint64

// Cmd is the kind of a command word, bits 1–3.
type Cmd uint8

// The commands; 0 to 4 are the seed's.
const (
	CmdNodeInit      Cmd = 0
	CmdNodeInitReply Cmd = 1
	CmdAllocRequest0 Cmd = 2
	CmdAllocReply0   Cmd = 3
	CmdFree          Cmd = 4
	CmdInline        Cmd = 5
	CmdAllocBatch    Cmd = 6
	CmdControl       Cmd = 7
)

// String is the name that docs/abi.md has for c.
func (c Cmd) String() string {
	switch c {
	case CmdNodeInit:
		return "NodeInit"
	case CmdNodeInitReply:
		return "NodeInitReply"
	case CmdAllocRequest0:
		return "AllocRequest0"
	case CmdAllocReply0:
		return "AllocReply0"
	case CmdFree:
		return "Free"
	case CmdInline:
		return "Inline"
	case CmdAllocBatch:
		return "AllocBatch"
	case CmdControl:
		return "Control"
	}
	return fmt.Sprintf("Cmd(%d)", uint8(c))
}

const (
	cmdShift  = 1
	dataShift = 4

	maxPlace      = 1<<31 - 1
	maxGeneration = 1<<13 - 1

	moreBit = 1 << 48
)

// IsCommand reports whether w is a command.
func (w Word) IsCommand() bool { return w&1 != 0 }

// Cmd is the command of a command word; meaningless for a message.
func (w Word) Cmd() Cmd { return Cmd(w >> cmdShift & 7) }

// field is the n bits of w from bit at.
func (w Word) field(at, n uint) uint64 { return uint64(w) >> at & (1<<n - 1) }

// Message is the word for the block whose header is at place (16-byte units, a multiple of 4, not 0) in a segment of
// that generation (0 to 8191).
func Message(place uint32, generation uint16) (Word, error) {
	if place == 0 || place > maxPlace || place%4 != 0 {
		return 0, fmt.Errorf("message word: place %#x: %w", place, ErrRange)
	}
	if generation > maxGeneration {
		return 0, fmt.Errorf("message word: generation %d: %w", generation, ErrRange)
	}
	return Word(uint64(place)<<4 | uint64(generation)<<35), nil
}

// Message is the place and generation that a message word names.
func (w Word) Message() (place uint32, generation uint16, err error) {
	place, generation, ok := w.Place()
	if !ok {
		return 0, 0, badWord(w)
	}
	return place, generation, nil
}

// Place is Message for the hot functions, into which it is compiled.
func (w Word) Place() (place uint32, generation uint16, ok bool) {
	const reserved = 0xF | 0xFFFF<<48&^moreBit
	place = uint32(w>>4) & (1<<31 - 1)
	return place, uint16(w>>35) & (1<<13 - 1), w&reserved == 0 && place != 0 && place%4 == 0
}

// More tells of a message word that the message behind it is of the same run: they lie in one block, and are returned together.
func (w Word) More() bool { return w&moreBit != 0 }

// WithMore is the message word w, saying that there is more.
func (w Word) WithMore() Word { return w | moreBit }

// Alone is the message word w, not saying so.
func (w Word) Alone() Word { return w &^ moreBit }

// Behind is the word of the message whose header lies so many bytes, a multiple of 64, behind that of the message word w, in the same
// segment: a place counts 16 bytes, and begins at bit 4.
func (w Word) Behind(bytes int) Word { return w + Word(bytes) }

// From is how many bytes the header of the message word w lies behind that of base, of which both say no more (Alone): beyond any segment
// if it doesn't, or lies in another.
func (w Word) From(base Word) uint64 { return uint64(w - base) }

// badWord is kept out of the hot functions.
func badWord(w Word) error { return fmt.Errorf("%w: %#016x", ErrBadWord, uint64(w)) }
