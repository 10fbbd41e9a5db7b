package actors

import (
	"testing"
	"time"

	"github.com/bhome-bus/bhome/wire"
)

// Base ids are unique, also across centers that start one after the other, and their ten addresses meet no others.
func TestSessionIDs(t *testing.T) {
	start := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	last := uint64(0)
	for i := range 7 { // centers, as quickly one after the other as their ids allow
		ids := newSessionIDs(start.Add(time.Duration(i) * 10 * time.Millisecond))
		for range 20_000 { // sessions and names of their actors, far more than come in 10 ms
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
	for _, now := range []time.Time{time.Unix(0, 0), time.Unix(1577836800, 0), time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)} {
		ids := newSessionIDs(now)
		if err := wire.Session(ids.take()).Validate(); err != nil {
			t.Error(now, err)
		}
	}
}
