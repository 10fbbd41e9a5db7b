package wire

import (
	"math/rand/v2"
	"testing"
)

// Glance says of any bytes what Decode says of them.
func TestGlanceIsDecode(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	good := 0
	for range 5000 {
		b := make([]byte, HeaderSize-1+rng.IntN(3))
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		if rng.IntN(4) > 0 && len(b) >= HeaderSize {
			h := Header{Tag: BlockTag, Size: rng.Uint32(), ID: rng.Uint64(), Stamp: rng.Uint64(), Seq: rng.Uint64(), Topic: rng.Uint32(),
				Publisher: uint16(rng.Uint32()), Kind: Kind(rng.IntN(16)), Socket: uint8(rng.IntN(16)), Flags: uint8(rng.Uint32())}
			if err := h.Put(b); err != nil {
				t.Fatal(err)
			}
		}
		var h Header
		err := h.Decode(b)
		size, topic, id, stamp, seq, kind, ok := Glance(b)
		if ok != (err == nil) {
			t.Fatalf("%x: %v, but %v", b, err, ok)
		}
		if ok && (size != h.Size || topic != h.Topic || id != h.ID || stamp != h.Stamp || seq != h.Seq || kind != h.Kind) {
			t.Fatalf("%x: %d %d %d %d %d %v, want %+v", b, size, topic, id, stamp, seq, kind, h)
		}
		if ok {
			good++
		}
	}
	if good < 500 {
		t.Fatalf("%d good headers", good)
	}
}
