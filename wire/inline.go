package wire

// Bounds of an inline record.
const (
	MaxInline     = 256 // bytes of payload
	MaxInlineHead = 6   // words before the payload: command, meta, correlation id, three of trace context

	inlineTag      = 1 | Word(CmdInline)<<1
	inlineHasTrace = 1 << 18
	inlineHasCorr  = 1 << 19
	inlineReserved = 0xFFF << 20 // flags without a meaning, and bits 26–31
)

// Inline is the head of a message that travels inside the ring.
type Inline struct {
	Len      int // bytes of payload, 0 to MaxInline
	Kind     Kind
	Topic    uint32
	Seq      uint32 // low half of the publisher's sequence number
	Stamp    uint32 // ms of CLOCK_MONOTONIC_COARSE, low half
	HasCorr  bool
	Corr     uint64
	HasTrace bool
	Trace    [24]byte
}

// HeadWords is how many words come before the payload.
func (in *Inline) HeadWords() int {
	n := 2
	if in.HasCorr {
		n++
	}
	if in.HasTrace {
		n += 3
	}
	return n
}

// Slots is how many words the record takes, payload included.
func (in *Inline) Slots() int { return in.HeadWords() + (in.Len+7)/8 }

// Words is the first two words of the record, which all records have. It panics as PutWords does.
func (in *Inline) Words() (command Word, meta uint64) {
	if uint(in.Len) > MaxInline || in.Kind > KindControl {
		badInline()
	}
	command = inlineTag | Word(in.Len)<<4 | Word(in.Kind)<<14 | Word(in.Topic)<<32
	if in.HasCorr {
		command |= inlineHasCorr
	}
	if in.HasTrace {
		command |= inlineHasTrace
	}
	return command, uint64(in.Seq) | uint64(in.Stamp)<<32
}

func badInline() { panic("wire: inline record with a length or kind out of range") }

// PutWords writes the head's words to dst, which holds MaxInlineHead or at least HeadWords, and returns how many there
// are. It panics if Len or Kind is out of range: truncated, they would lie to the reader about the slots that follow.
func (in *Inline) PutWords(dst []uint64) int {
	first, meta := in.Words()
	dst[0], dst[1] = uint64(first), meta
	n := 2
	if in.HasCorr {
		dst[n] = in.Corr
		n++
	}
	if in.HasTrace {
		for i := range 3 {
			dst[n+i] = loadWord(in.Trace[8*i:])
		}
		n += 3
	}
	return n
}

// DecodeInlineHead checks the first word of a record (ErrBadWord) and returns how many slots the whole takes: 2 to
// MaxInlineHead + MaxInline/8.
func DecodeInlineHead(w Word) (slots int, err error) {
	in, err := inlineWord(w)
	if err != nil {
		return 0, err
	}
	return in.Slots(), nil
}

// inlineWord decodes the command word alone.
func inlineWord(w Word) (Inline, error) {
	in := Inline{Len: int(w.field(4, 10)), Kind: Kind(w.field(14, 4)), Topic: uint32(w.field(32, 32)),
		HasCorr: w&inlineHasCorr != 0, HasTrace: w&inlineHasTrace != 0}
	if !w.IsCommand() || w.Cmd() != CmdInline || w&inlineReserved != 0 || in.Len > MaxInline || in.Kind > KindControl {
		return Inline{}, badWord(w)
	}
	return in, nil
}

// DecodeInline decodes a record's head from its words, of which there must be as many as it says; those beyond are the
// payload's and not looked at. All errors are ErrBadWord.
func DecodeInline(words []uint64) (Inline, error) {
	if len(words) < 2 {
		return Inline{}, ErrBadWord
	}
	in, err := inlineWord(Word(words[0]))
	if err != nil {
		return Inline{}, err
	}
	if len(words) < in.HeadWords() {
		return Inline{}, badWord(Word(words[0]))
	}
	in.Seq, in.Stamp = uint32(words[1]), uint32(words[1]>>32)
	n := 2
	if in.HasCorr {
		in.Corr = words[n]
		n++
	}
	if in.HasTrace {
		for i := range 3 {
			storeWord(in.Trace[8*i:], words[n+i])
		}
	}
	return in, nil
}
