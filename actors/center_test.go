package actors

import (
	"math"
	"testing"

	"github.com/bhome-bus/bhome/wire"
)

// Base ids are unique, also those of centers with neighbouring draws, and their ten addresses meet no others.
func TestSessionIDs(t *testing.T) {
	last := uint64(0)
	for draw := range uint64(7) {
		ids := newSessionIDs(draw)
		for range 20_000 { // sessions and names of their actors
			id := ids.take()
			if err := wire.Session(id).Validate(); err != nil {
				t.Fatal(err)
			}
			if id%wire.AddressesPerSession != 0 {
				t.Fatalf("id %d: a node that attaches again with it would get another", id)
			}
			if id < last+wire.AddressesPerSession {
				t.Fatalf("id %d overlaps %d", id, last)
			}
			last = id
		}
	}
	for _, draw := range []uint64{math.MaxUint64, 1<<38 - 1, 1 << 38} {
		ids := newSessionIDs(draw)
		for range 200_000 {
			if err := wire.Session(ids.take()).Validate(); err != nil {
				t.Fatalf("draw %#x: %v", draw, err)
			}
		}
	}
	if a, b := newSessionIDs(random()), newSessionIDs(random()); a == b {
		t.Errorf("two centers count from %d", a.next)
	}
}
