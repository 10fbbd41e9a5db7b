package node_test

import (
	"fmt"
	"testing"

	"github.com/bhome-bus/bhome/node"
)

// After a burst neither end keeps the records of it, and no block holds up a segment but the first. What was released stays
// counted, and stays released.
func TestBurstIsLetGo(t *testing.T) {
	const count, size, kept = 16384, 2048, 64
	b := newBus(t)
	n := b.attach("pub")
	pub := b.publisher(n, "t")
	receiver := b.attach("sub")
	sub := b.subscribe(receiver, "t", node.Depth(count), node.Hold(count), node.Quota(count*size), node.OnFull(node.Block))
	for round := range uint64(2) {
		payload := make([]byte, size)
		for range count {
			if err := pub.Publish(t.Context(), payload); err != nil {
				t.Fatal(err)
			}
		}
		held := make([]node.Message, count)
		for i := range held {
			var err error
			if held[i], err = sub.Receive(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if _, elsewhere, _ := node.Left(n); elsewhere == 0 {
			t.Fatal("all blocks lie in the first segment: this tests nothing")
		}
		if got := sub.Stats().Held; got != count || node.Slots(sub) < count {
			t.Fatalf("held %d in %d places", got, node.Slots(sub))
		}
		for _, m := range held {
			if err := m.Release(); err != nil {
				t.Fatal(err)
			}
		}
		node.Settle(receiver)
		eventually(t, func() string { // the housekeeper may be about it, too
			node.Settle(n)
			if blocks, elsewhere, most := node.Left(n); elsewhere != 0 || blocks > 256 || most > 4096 {
				return fmt.Sprintf("round %d: the publisher keeps %d blocks, %d of them outside its first segment, and a map for %d", round, blocks, elsewhere, most)
			}
			return ""
		})
		if st := sub.Stats(); node.Slots(sub) > 2*kept || st.Held != 0 || st.Received != (round+1)*count {
			t.Errorf("round %d: the subscriber keeps %d places, and counts %+v", round, node.Slots(sub), st)
		}
		if err := held[0].Release(); err == nil || held[0].Bytes() != nil {
			t.Errorf("a message whose place is gone is released again: %v", err)
		}
	}
}
