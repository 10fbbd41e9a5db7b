package node_test

import (
	"fmt"
	"testing"

	"github.com/bhome-bus/bhome/node"
)

// A subscriber gets as many of the last kept messages as its depth and its quota have room for, and what is published next
// follows them without a hole; none of those left out counts as dropped.
func TestHistoryIsTheLastThatFits(t *testing.T) {
	const kept, size = 12, 400
	for name, policy := range map[string]node.Policy{"drop oldest": node.DropOldest, "drop newest": node.DropNewest, "block": node.Block} {
		for limit, c := range map[string]struct {
			opts []node.SubOption
			last int // so many of the kept
		}{
			"depth 1":                    {[]node.SubOption{node.Depth(1)}, 1},
			"depth 3":                    {[]node.SubOption{node.Depth(3)}, 3},
			"all fit":                    {[]node.SubOption{node.Depth(kept)}, kept},
			"hold beyond depth":          {[]node.SubOption{node.Depth(2), node.Hold(8)}, 2},
			"quota of two and a half":    {[]node.SubOption{node.Depth(64), node.Quota(size * 5 / 2)}, 2},
			"quota of exactly three":     {[]node.SubOption{node.Depth(64), node.Quota(size * 3)}, 3},
			"quota of less than one":     {[]node.SubOption{node.Depth(64), node.Quota(size / 2)}, 1},
			"quota of five, depth 4":     {[]node.SubOption{node.Depth(4), node.Quota(size * 5)}, 4},
			"quota of all, more or less": {[]node.SubOption{node.Depth(64), node.Quota(size*kept - 1)}, kept - 1},
		} {
			t.Run(fmt.Sprintf("%s, %s", name, limit), func(t *testing.T) {
				b := newBus(t)
				pub := b.publisher(b.attach("pub"), "state", node.Keep(kept))
				publish := func(i int) {
					t.Helper()
					if err := pub.Publish(b.ctx, numbered(size, i)); err != nil {
						t.Fatal(err)
					}
				}
				for i := range 2 * kept {
					publish(i)
				}
				sub := b.subscribe(b.attach("late"), "state", append(c.opts, node.History(), node.OnFull(policy))...)
				take := func(want int) {
					t.Helper()
					m := b.receive(sub)
					if number(m) != want {
						t.Fatalf("message %d came, want %d", number(m), want)
					}
					if err := m.Release(); err != nil {
						t.Fatal(err)
					}
				}
				for i := 2*kept - c.last; i < 2*kept; i++ {
					take(i)
				}
				b.wantNoMore(sub)
				for i := 2 * kept; i < 2*kept+3; i++ {
					publish(i)
					take(i)
				}
				b.wantNoMore(sub)
			})
		}
	}
}
