package shmio

import "github.com/bhome-bus/bhome/wire"

// The Inline word's bits, as wire has them; a test compares. They are here once more because both ends look at them for
// each message, and wire's decoder makes a whole head of them.
const (
	inlineLenAt, inlineLenMask   = 4, 0x3ff
	inlineKindAt, inlineKindMask = 14, 0xf
	inlineTrace, inlineCorr      = 1 << 18, 1 << 19
	inlineFlags                  = inlineTrace | inlineCorr
	inlineReserved               = 0xfff << 20
	inlineTopicAt                = 32
	inlineTag                    = 1 | uint64(wire.CmdInline)<<1 // bits 0 to 3 of the word
)

// isInline tells whether a word begins an inline record.
func isInline(w wire.Word) bool { return uint64(w)&0xf == inlineTag }

// inlineSlots is how many slots the record takes that an inline word begins. !ok: the word can't be.
func inlineSlots(w wire.Word) (n uint64, ok bool) {
	length := uint64(w) >> inlineLenAt & inlineLenMask
	if w&inlineReserved != 0 || length > wire.MaxInline || wire.Kind(w>>inlineKindAt&inlineKindMask) > wire.KindControl {
		return 0, false
	}
	n = 2 + (length+7)/8
	if w&inlineCorr != 0 {
		n++
	}
	if w&inlineTrace != 0 {
		n += 3
	}
	return n, true
}
