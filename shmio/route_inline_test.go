package shmio

import (
	"math/rand/v2"
	"testing"

	"github.com/bhome-bus/bhome/wire"
)

// TestInlineBitsAreThoseOfWire compares the short cut with the decoder.
func TestInlineBitsAreThoseOfWire(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	good := 0
	for range 200_000 {
		w := wire.Word(r.Uint64()&^0xf | inlineTag)
		for range r.IntN(3) {
			w &= wire.Word(r.Uint64() | 0xf) // so that reserved bits are zero now and then
		}
		if r.IntN(2) == 0 {
			w &^= inlineReserved
		}
		n, err := wire.DecodeInlineHead(w)
		got, ok := inlineSlots(w)
		if ok != (err == nil) || ok && uint64(n) != got || !isInline(w) {
			t.Fatalf("%#x: %d %v, wire says %d %v", uint64(w), got, ok, n, err)
		}
		if ok {
			good++
		}
	}
	if good < 1000 {
		t.Fatal("only", good, "valid words")
	}
	for low := range wire.Word(16) {
		if want := low.IsCommand() && low.Cmd() == wire.CmdInline; isInline(low) != want {
			t.Errorf("%#x is inline: %v", uint64(low), !want)
		}
	}
}
