package node

import (
	"math/rand/v2"
	"testing"
)

// The table against a map, with calls that last long among those that don't.
func TestCallTable(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var table callTable
	if table.get(0) != nil || table.get(7) != nil {
		t.Error("the empty table has a call")
	}
	model := map[uint64]*pendingCall{}
	last := uint64(0)
	for step := range 50_000 {
		if most := 1 + step/500; r.IntN(2) == 0 && len(model) < most {
			c := &pendingCall{}
			id := table.add(c)
			if id <= last || model[id] != nil {
				t.Fatalf("step %d: id %d after %d", step, id, last)
			}
			last = id
			model[id] = c
		} else {
			for id := range model {
				if r.IntN(3) > 0 || len(model) > most {
					table.remove(id)
					delete(model, id)
				}
				break
			}
		}
		for range 4 {
			if id := last - r.Uint64N(100); table.get(id) != model[id] {
				t.Fatalf("step %d: id %d", step, id)
			}
		}
		if table.get(r.Uint64()|1<<63) != nil {
			t.Fatal("it has a call of an id that it never gave")
		}
	}
	n := 0
	table.all(func(id uint64, c *pendingCall) {
		if n++; model[id] != c {
			t.Errorf("id %d", id)
		}
		table.remove(id)
	})
	if n != len(model) || table.n != 0 {
		t.Errorf("%d of %d, %d are left", n, len(model), table.n)
	}
}
