package shmio

import (
	"math/rand/v2"
	"testing"
)

// The runs against a plain list of lengths.
func TestLengths(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		var l lengths
		var plain []uint64
		at, slots := ^uint64(100), uint32(1) // cursors wrap
		for range 400 {
			switch op := rng.IntN(8); {
			case op < 4:
				if rng.IntN(4) == 0 {
					slots = 1 + uint32(rng.IntN(34))
				}
				l.add(slots, 1)
				plain = append(plain, uint64(slots))
			case op < 6 && len(plain) > 0:
				if got := l.pop(); got != plain[0] {
					t.Fatalf("popped a message of %d slots, want %d", got, plain[0])
				}
				at += plain[0]
				plain = plain[1:]
			case op == 6:
				want, took := uint32(0), uint64(0)
				ask := uint64(rng.IntN(60))
				for len(plain) > 0 && took < ask {
					took += plain[0]
					plain = plain[1:]
					want++
				}
				if n, k := l.pass(ask); n != want || k != took {
					t.Fatalf("passing %d slots took %d messages of %d slots, want %d of %d", ask, n, k, want, took)
				}
				at += took
			}
			c, i := at, 0
			l.walk(at, func(got uint64) bool {
				if i >= len(plain) || got != c {
					t.Fatalf("message %d of %d is at %#x, want %#x", i, len(plain), got, c)
				}
				c += plain[i]
				i++
				return true
			})
			if i != len(plain) {
				t.Fatalf("%d messages, want %d", i, len(plain))
			}
		}
	}
}
