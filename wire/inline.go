package wire

// Bounds of an inline record.
const (
	MaxInline     = 256 // bytes of payload
	MaxInlineHead = 6   // words before the payload: command, meta, correlation id, those of the trace context
	TraceWords    = 3

	inlineTag                    = 1 | Word(CmdInline)<<1 // bits 0 to 3
	inlineLenAt, inlineLenMask   = 4, 0x3FF
	inlineKindAt, inlineKindMask = 14, 0xF
	inlineHasTrace               = 1 << 18
	inlineHasCorr                = 1 << 19
	inlineReserved               = 0xFFF << 20 // flags without a meaning, and bits 26–31
	inlineTopicAt                = 32
)

// InlineHead is the first two words of an inline record: what all messages have.
type InlineHead struct {
	First Word
	Meta  uint64 // sequence number and stamp
}

// NewInlineHead is the head of a record of no length and without flags. What Inline says of the arguments holds here.
func NewInlineHead(kind Kind, topic, seq, stamp uint32) InlineHead {
	if kind > KindControl {
		badInline()
	}
	return InlineHead{inlineTag | Word(kind)<<inlineKindAt | Word(topic)<<inlineTopicAt, uint64(seq) | uint64(stamp)<<32}
}

// At is h with so many bytes more, 0 to MaxInline in all, and the sequence number seq.
func (h InlineHead) At(length int, seq uint32) InlineHead {
	return InlineHead{h.First | Word(length)<<inlineLenAt, h.Meta>>32<<32 | uint64(seq)}
}

// Kind is what the message is.
func (h InlineHead) Kind() Kind { return Kind(h.First >> inlineKindAt & inlineKindMask) }

// Topic is the topic's id.
func (h InlineHead) Topic() uint32 { return uint32(h.First >> inlineTopicAt) }

// Seq is the low half of the publisher's sequence number.
func (h InlineHead) Seq() uint32 { return uint32(h.Meta) }

// Stamp is the low half of when it was sent, ms of CLOCK_MONOTONIC_COARSE.
func (h InlineHead) Stamp() uint32 { return uint32(h.Meta >> 32) }

// Len is how many bytes of payload there are, if InlineSlots has found the word good.
func (h InlineHead) Len() int { return int(h.First >> inlineLenAt & inlineLenMask) }

// HasCorr reports whether a correlation id follows the head.
func (h InlineHead) HasCorr() bool { return h.First&inlineHasCorr != 0 }

// HasTrace reports whether a trace context follows the head and the correlation id.
func (h InlineHead) HasTrace() bool { return h.First&inlineHasTrace != 0 }

// IsInline reports whether w begins an inline record.
func (w Word) IsInline() bool { return w&0xF == inlineTag }

// InlineSlots is how many slots a record takes that begins with w: 2 to MaxInlineHead + MaxInline/8. !ok: none can.
func (w Word) InlineSlots() (n uint64, ok bool) {
	length := uint64(w) >> inlineLenAt & inlineLenMask
	if w&(0xF|inlineReserved) != inlineTag || length > MaxInline || Kind(w>>inlineKindAt&inlineKindMask) > KindControl {
		return 0, false
	}
	n = 2 + (length+7)/8
	if w&inlineHasCorr != 0 {
		n++
	}
	if w&inlineHasTrace != 0 {
		n += TraceWords
	}
	return n, true
}

// PlainSlots is InlineSlots of a record that has neither correlation id nor trace context; !ok: it has, or isn't one.
func (w Word) PlainSlots() (n uint64, ok bool) {
	length := uint64(w) >> inlineLenAt & inlineLenMask
	return 2 + (length+7)/8, w&(0xF|inlineReserved|inlineHasCorr|inlineHasTrace) == inlineTag && length <= MaxInline &&
		Kind(w>>inlineKindAt&inlineKindMask) <= KindControl
}

// InlineAs reports whether w and the inline word v say the same but for the length.
func (w Word) InlineAs(v Word) bool { return (w^v)&^(inlineLenMask<<inlineLenAt) == 0 }

// Inline is the head of a message that travels inside the ring. Seq and Stamp, which are halves of one word there, don't stand
// side by side: they would be loaded as one after they were stored as two, and such a load waits until all that was stored before
// has left the core, the lines of the last message among it.
type Inline struct {
	Len      int    // bytes of payload, 0 to MaxInline
	Seq      uint32 // low half of the publisher's sequence number
	Topic    uint32
	Stamp    uint32 // ms of CLOCK_MONOTONIC_COARSE, low half
	Kind     Kind
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
		n += TraceWords
	}
	return n
}

// Slots is how many words the record takes, payload included.
func (in *Inline) Slots() int { return in.HeadWords() + (in.Len+7)/8 }

// Head is the first two words of the record, which all records have. It panics as PutWords does.
func (in *Inline) Head() InlineHead {
	if uint(in.Len) > MaxInline {
		badInline()
	}
	h := NewInlineHead(in.Kind, in.Topic, 0, in.Stamp).At(in.Len, in.Seq)
	if in.HasCorr {
		h.First |= inlineHasCorr
	}
	if in.HasTrace {
		h.First |= inlineHasTrace
	}
	return h
}

func badInline() { panic("wire: inline record with a length or kind out of range") }

// PutWords writes the head's words to dst, which holds MaxInlineHead or at least HeadWords, and returns how many there
// are. It panics if Len or Kind is out of range: truncated, they would lie to the reader about the slots that follow.
func (in *Inline) PutWords(dst []uint64) int {
	h := in.Head()
	dst[0], dst[1] = uint64(h.First), h.Meta
	n := 2
	if in.HasCorr {
		dst[n] = in.Corr
		n++
	}
	if in.HasTrace {
		for i := range TraceWords {
			dst[n+i] = loadWord(in.Trace[8*i:])
		}
		n += TraceWords
	}
	return n
}
