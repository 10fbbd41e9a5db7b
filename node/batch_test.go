package node_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bhome-bus/bhome/actors"
	"github.com/bhome-bus/bhome/node"
)

// A batch is what its messages one by one would be: every size, in order, for every subscriber and policy.
func TestBatchIsItsMessagesInOrder(t *testing.T) {
	noLeak(t)
	b := newBus(t)
	pub := b.publisher(b.attach("pub"), "a", node.AllowBlock(time.Hour), node.Keep(0))
	whole := b.subscribe(b.attach("whole"), "a", node.Depth(8), node.OnFull(node.Block))
	last := b.subscribe(b.attach("last"), "a", node.Depth(16), node.OnFull(node.DropOldest))
	first := b.subscribe(b.attach("first"), "a", node.Depth(16), node.OnFull(node.DropNewest))
	const n = 300
	var payloads [][]byte
	for i := range n {
		payloads = append(payloads, append([]byte(fmt.Sprintf("%04d", i)), pattern(i%5*90+i%3*700)...))
	}
	sent := make(chan error, 1)
	go func() { sent <- pub.PublishBatch(b.ctx, payloads) }()
	check := func(s *node.Subscription, i int) {
		t.Helper()
		m := b.receive(s)
		defer m.Release()
		if !bytes.Equal(m.Bytes(), payloads[i]) || m.Seq() != uint64(i+1) {
			t.Fatalf("%s: message %d is %.10q… (%d bytes, number %d)", s.Pattern(), i, m.Bytes(), len(m.Bytes()), m.Seq())
		}
	}
	for i := range n { // it waits for this one again and again
		check(whole, i)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	for i := n - 16; i < n; i++ {
		check(last, i)
	}
	for i := range 16 {
		check(first, i)
	}
	if l, f := last.Stats(), first.Stats(); l.Dropped != n-16 || f.Dropped != n-16 || l.Unread != 0 || f.Unread != 0 {
		t.Errorf("%+v, %+v", l, f)
	}
}

func TestBatchTellsHowFarItCame(t *testing.T) {
	b := newBus(t, func(c *actors.Config) { c.Limits.MaxMessage = 1000 })
	n := b.attach("pub")
	pub := b.publisher(n, "a")
	consenting := b.publisher(n, "b", node.AllowBlock(time.Millisecond))
	sub := b.subscribe(b.attach("sub"), "*", node.Depth(4), node.OnFull(node.Block))
	err := pub.PublishBatch(b.ctx, [][]byte{pattern(10), pattern(900), pattern(1001), pattern(10)})
	if !errors.Is(err, node.ErrTooLarge) || !strings.Contains(err.Error(), "message 2 of 4") {
		t.Errorf("a message that is too large: %v", err)
	}
	for _, size := range []int{10, 900} {
		if m := b.receive(sub); len(m.Bytes()) != size {
			t.Errorf("%d bytes, want %d", len(m.Bytes()), size)
		} else {
			m.Release()
		}
	}
	// Six for four places, and a publisher that waits for a moment only.
	err = consenting.PublishBatch(b.ctx, [][]byte{{0}, {1}, {2}, {3}, {4}, {5}})
	if !errors.Is(err, node.ErrFull) || !strings.Contains(err.Error(), "message 4 of 6") {
		t.Errorf("no room: %v", err)
	}
	for i := range 4 {
		m := b.receive(sub)
		if m.Bytes()[0] != byte(i) {
			t.Errorf("message %d, want %d", m.Bytes()[0], i)
		}
		m.Release()
	}
	if st := n.Stats(); st.Dropped != 2 {
		t.Errorf("%d dropped, want 2", st.Dropped)
	}
	if err := pub.PublishBatch(b.ctx, nil); err != nil {
		t.Error(err)
	}
}

// Whatever becomes of the messages of a batch, their blocks come back: nobody wants them, some have no room for them, or are gone, or
// they are the last that a topic keeps.
func TestBlocksOfABatchComeBack(t *testing.T) {
	payloads := func(count int) (batch [][]byte) {
		for i := range count {
			batch = append(batch, numbered(8+i%4*700, i)) // some inline, of several classes
		}
		return batch
	}
	for name, c := range map[string]struct {
		pub  []node.PubOption
		subs [][]node.SubOption
		full bool // the publisher waits in vain
		kept int
	}{
		"nobody":      {},
		"drop-newest": {subs: [][]node.SubOption{{node.OnFull(node.DropNewest), node.Depth(5)}, {node.OnFull(node.Block), node.Depth(1000)}}},
		"drop-oldest": {subs: [][]node.SubOption{{node.OnFull(node.DropOldest), node.Depth(5)}, {node.Depth(1000)}}},
		"quota":       {subs: [][]node.SubOption{{node.OnFull(node.DropNewest), node.Depth(1000), node.Quota(5000)}}},
		"no consent":  {subs: [][]node.SubOption{{node.OnFull(node.Block), node.Depth(5)}, {node.OnFull(node.Block), node.Depth(7)}}},
		"full": {pub: []node.PubOption{node.AllowBlock(time.Millisecond)},
			subs: [][]node.SubOption{{node.OnFull(node.Block), node.Depth(5)}, {node.OnFull(node.Block), node.Depth(1000)}}, full: true},
		"kept":            {pub: []node.PubOption{node.Keep(7)}, subs: [][]node.SubOption{{node.OnFull(node.DropNewest), node.Depth(5)}}, kept: 7},
		"kept for nobody": {pub: []node.PubOption{node.Keep(7)}, kept: 7},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBus(t)
			n := b.attach("pub")
			p := b.publisher(n, "a", c.pub...)
			var subs []*node.Subscription
			for i, opts := range c.subs {
				subs = append(subs, b.subscribe(b.attach(fmt.Sprint("sub", i)), "a", opts...))
			}
			if err := p.WaitForSubscribers(b.ctx, len(subs)); err != nil {
				t.Fatal(err)
			}
			count := 150
			if c.full {
				count = 60 // what follows the first chunk isn't sent
			}
			for round := 1; round <= 3; round++ {
				err := p.PublishBatch(b.ctx, payloads(count))
				if c.full != errors.Is(err, node.ErrFull) || !c.full && err != nil {
					t.Fatal(err)
				}
				for _, s := range subs {
					for st := s.Stats(); st.Received+st.Dropped < uint64(count*round); st = s.Stats() {
						m := b.receive(s)
						if want := 8 + number(m)%4*700; len(m.Bytes()) != want {
							t.Errorf("message %d has %d bytes, want %d", number(m), len(m.Bytes()), want)
						}
						if err := m.Release(); err != nil {
							t.Fatal(err)
						}
					}
				}
				if some := node.Referenced(n); some != c.kept {
					t.Errorf("%d blocks are somebody's, want %d", some, c.kept)
				}
			}
			// The last that one has before its route ends are taken back with it.
			if len(subs) > 0 {
				_ = p.PublishBatch(b.ctx, payloads(count)) // as above
				if err := subs[0].Close(b.ctx); err != nil {
					t.Fatal(err)
				}
				for _, s := range subs[1:] {
					b.drain(s, int(s.Stats().Unread))
				}
				eventually(t, func() string {
					if some := node.Referenced(n); some != c.kept {
						return fmt.Sprintf("%d blocks are somebody's, want %d", some, c.kept)
					}
					return ""
				})
			}
		})
	}
}
