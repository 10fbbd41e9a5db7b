package node_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bhome-bus/bhome/actors"
	"github.com/bhome-bus/bhome/node"
)

// many is count messages that are numbered from first on, all of one size.
func many(first, count, size int) (payloads [][]byte) {
	for i := range count {
		payloads = append(payloads, numbered(size, first+i))
	}
	return payloads
}

// wantReferenced waits until so many blocks of n are somebody's.
func wantReferenced(t *testing.T, n *node.Node, want int) {
	t.Helper()
	eventually(t, func() string {
		if some := node.Referenced(n); some != want {
			return fmt.Sprintf("%d blocks are somebody's, want %d", some, want)
		}
		return ""
	})
}

// Messages of a batch share a block, each with its own number, and it comes back with the last of them, however they are received.
func TestBatchSharesABlock(t *testing.T) {
	for _, into := range []int{1, 7, 64, 200} {
		t.Run(fmt.Sprint(into, " at a time"), func(t *testing.T) {
			b := newBus(t)
			n, reader := b.attach("pub"), b.attach("sub")
			p := b.publisher(n, "a", node.AllowBlock(time.Hour))
			s := b.subscribe(reader, "*", node.OnFull(node.Block), node.Depth(500), node.Hold(200))
			const count = 64
			for round := range 3 {
				if err := p.PublishBatch(b.ctx, many(round*count, count, 1000)); err != nil {
					t.Fatal(err)
				}
				if some, charged := node.Referenced(n), node.OutBytes(n); some != 1 || charged != 71<<10-64 {
					t.Fatalf("%d blocks for %d messages, charged with %d bytes, want one of 71 KiB", some, count, charged)
				}
				var ms []node.Message
				for batch := make([]node.Message, into); len(ms) < count; {
					k, err := s.ReceiveBatch(b.ctx, batch)
					if err != nil {
						t.Fatal(err)
					}
					ms = append(ms, batch[:k]...)
				}
				for i, m := range ms {
					if number(m) != round*count+i || m.Seq() != uint64(number(m)+1) || len(m.Bytes()) != 1000 || cap(m.Bytes()) != 1000 || m.Topic() != "a" || m.Age() > time.Minute {
						t.Fatalf("message %d: number %d, seq %d, %d bytes on %q, %v old", i, number(m), m.Seq(), len(m.Bytes()), m.Topic(), m.Age())
					}
				}
				last := ms[count/2]
				release(t, append(append([]node.Message{}, ms[:count/2]...), ms[count/2+1:]...))
				if some := node.Referenced(n); some != 1 {
					t.Errorf("one message is held, and %d blocks are somebody's", some)
				}
				if number(last) != round*count+count/2 {
					t.Errorf("it became %d", number(last))
				}
				if err := last.Release(); err != nil {
					t.Fatal(err)
				}
				if err := last.Release(); !errors.Is(err, node.ErrReleased) {
					t.Errorf("released again: %v", err)
				}
				if some := node.Referenced(n); some != 0 {
					t.Errorf("%d blocks are somebody's, want none", some)
				}
			}
			if st, bad := s.Stats(), reader.Stats().BadWords; st.Held != 0 || st.Dropped != 0 || bad != 0 {
				t.Errorf("%+v, %d bad words", st, bad)
			}
		})
	}
}

// Where one message alone may be dropped or kept, or little memory may be held, each has a block of its own; so have those that are few or long.
func TestWhatSharesNoBlock(t *testing.T) {
	for name, c := range map[string]struct {
		pub         []node.PubOption
		sub         []node.SubOption
		count, size int
	}{
		"drop-oldest": {sub: []node.SubOption{node.OnFull(node.DropOldest)}, count: 20, size: 1000},
		"quota":       {sub: []node.SubOption{node.OnFull(node.Block), node.Quota(1 << 20)}, count: 20, size: 1000},
		"hold":        {sub: []node.SubOption{node.OnFull(node.Block), node.Hold(1000)}, count: 20, size: 1000}, // the default quota has no room for it
		"kept":        {pub: []node.PubOption{node.Keep(20)}, sub: []node.SubOption{node.OnFull(node.Block)}, count: 20, size: 1000},
		"few":         {sub: []node.SubOption{node.OnFull(node.Block)}, count: 3, size: 1000},
		"long":        {sub: []node.SubOption{node.OnFull(node.Block)}, count: 20, size: 10000},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBus(t)
			n := b.attach("pub")
			p := b.publisher(n, "a", c.pub...)
			s := b.subscribe(b.attach("sub"), "a", append(c.sub, node.Depth(100))...)
			if err := p.PublishBatch(b.ctx, many(0, c.count, c.size)); err != nil {
				t.Fatal(err)
			}
			if some := node.Referenced(n); some != c.count {
				t.Errorf("%d blocks for %d messages", some, c.count)
			}
			for i, k := range b.drain(s, c.count) {
				if k != i {
					t.Errorf("message %d is %d", i, k)
				}
			}
		})
	}
}

// Shared blocks come back, too, whatever becomes of the messages: no room for some, for one subscriber or for all; other sizes among them; a
// subscription that is closed with some of a block taken, or held; a route of another access group.
func TestSharedBlocksComeBack(t *testing.T) {
	payloads := func(count int) (batch [][]byte) {
		for i := range count {
			size := 300 + i%5*100
			switch {
			case i%50 == 20:
				size = 8 // inline
			case i%50 == 30:
				size = 12000 // in a block of its own
			}
			batch = append(batch, numbered(size, i))
		}
		return batch
	}
	for name, c := range map[string]struct {
		pub     []node.PubOption
		subs    [][]node.SubOption
		into    int
		full    bool
		regroup bool
	}{
		"all":         {subs: [][]node.SubOption{{node.Depth(1000)}, {node.Depth(1000)}, {node.Depth(1000)}}, into: 64},
		"one by one":  {subs: [][]node.SubOption{{node.Depth(1000)}, {node.Depth(1000)}}, into: 1},
		"held":        {subs: [][]node.SubOption{{node.Depth(1000), node.Hold(3)}, {node.Depth(1000), node.Hold(5)}}, into: 10},
		"drop-newest": {subs: [][]node.SubOption{{node.OnFull(node.DropNewest), node.Depth(270)}, {node.Depth(1000)}}, into: 64},
		"no consent":  {subs: [][]node.SubOption{{node.Depth(257)}, {node.Depth(261)}, {node.Depth(1000)}}, into: 5},
		"full": {pub: []node.PubOption{node.AllowBlock(time.Millisecond)}, subs: [][]node.SubOption{{node.Depth(290)}, {node.Depth(1000)}},
			into: 64, full: true},
		"other group": {subs: [][]node.SubOption{{node.Depth(1000)}, {node.Depth(1000)}}, into: 64, regroup: true},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBus(t)
			n := b.attach("pub")
			p := b.publisher(n, "a", c.pub...)
			var subs []*node.Subscription
			for i, opts := range c.subs {
				subs = append(subs, b.subscribe(b.attach(fmt.Sprint("sub", i)), "a", append([]node.SubOption{node.OnFull(node.Block), node.Hold(300)}, opts...)...))
			}
			if err := p.WaitForSubscribers(b.ctx, len(subs)); err != nil {
				t.Fatal(err)
			}
			if c.regroup {
				node.Regroup(n)
			}
			const count = 300 // some queues have room for all but a part of the last shared block
			batch := make([]node.Message, c.into)
			shared := c.regroup
			for round := 1; round <= 3 || !shared; round++ { // while the center is asked for blocks to share there are others
				err := p.PublishBatch(b.ctx, payloads(count))
				if c.full != errors.Is(err, node.ErrFull) || !c.full && err != nil {
					t.Fatal(err)
				}
				some := node.Referenced(n)
				if shared = shared || some <= count/3; round > 1000 {
					t.Fatalf("%d blocks for %d messages: they aren't shared", some, count)
				}
				for _, s := range subs {
					next := 0
					for st := s.Stats(); st.Received+st.Dropped < uint64(count*round); st = s.Stats() {
						k, err := s.ReceiveBatch(b.ctx, batch)
						if err != nil {
							t.Fatal(err)
						}
						for _, m := range batch[:k] {
							if i := number(m); i < next || len(m.Bytes()) != len(payloads(i + 1)[i]) || m.Seq() != uint64((round-1)*count+i+1) {
								t.Errorf("message %d, number %d, after %d has %d bytes", i, m.Seq(), next, len(m.Bytes()))
							}
							next = number(m) + 1
						}
						release(t, batch[:k])
					}
				}
				wantReferenced(t, n, 0)
			}
			// A subscription ends with some of a block taken, and one of them held.
			_ = p.PublishBatch(b.ctx, payloads(count)) // as above
			some := make([]node.Message, min(c.into, 3))
			k, err := subs[0].ReceiveBatch(b.ctx, some)
			if err != nil {
				t.Fatal(err)
			}
			if err := subs[0].Close(b.ctx); err != nil {
				t.Fatal(err)
			}
			for _, s := range subs[1:] {
				b.drain(s, int(s.Stats().Unread))
			}
			release(t, some[:k])
			wantReferenced(t, n, 0)
		})
	}
}

// A subscriber's process that died gives back what it had of shared blocks, taken or not.
func TestSharedBlocksOfTheDead(t *testing.T) {
	b := newBus(t)
	n := b.attach("pub")
	p := b.publisher(n, "a")
	s := b.subscribe(b.attach("sub"), "a", node.OnFull(node.Block), node.Depth(1000))
	other := b.subscribe(b.attach("other"), "a", node.OnFull(node.Block), node.Depth(1000))
	if err := p.PublishBatch(b.ctx, many(0, 200, 500)); err != nil {
		t.Fatal(err)
	}
	into := make([]node.Message, 10)
	k, err := s.ReceiveBatch(b.ctx, into)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { release(t, into[:k]) }()
	if !node.PeerDied(n, "sub") {
		t.Fatal("no such peer")
	}
	b.drain(other, 200)
	wantReferenced(t, n, 0)
}

// Shared blocks whose segment or topic is told late wait for it like others, and come back, whatever the slots held before.
func TestSharedBlocksToldLate(t *testing.T) {
	for name, forget := range map[string]func(*node.Node, string) func(){"segments": node.ForgetSegments, "topics": node.ForgetTopics} {
		for _, into := range []int{1, 7, 64} {
			t.Run(fmt.Sprint(name, "/", into), func(t *testing.T) {
				b := newBus(t)
				n, reader := b.attach("pub"), b.attach("sub")
				p := b.publisher(n, "a")
				s := b.subscribe(reader, "a", node.OnFull(node.Block), node.Depth(500), node.Hold(100))
				const count = 60
				receive := func(first int) {
					batch := make([]node.Message, into)
					for next := first; next < first+count; {
						k, err := s.ReceiveBatch(b.ctx, batch)
						if err != nil {
							t.Error(err)
							return
						}
						for _, m := range batch[:k] {
							if number(m) != next || m.Seq() != uint64(next+1) || len(m.Bytes()) != 700 {
								t.Errorf("message %d, number %d, has %d bytes; want %d", number(m), m.Seq(), len(m.Bytes()), next)
							}
							next++
						}
						release(t, batch[:k])
					}
				}
				for round := range 3 {
					if err := p.PublishBatch(b.ctx, many(2*round*count, count, 700)); err != nil {
						t.Fatal(err)
					}
					receive(2 * round * count)
					tell := forget(reader, "pub")
					if err := p.PublishBatch(b.ctx, many((2*round+1)*count, count, 700)); err != nil {
						t.Fatal(err)
					}
					done := make(chan struct{})
					go func() {
						defer close(done)
						receive((2*round + 1) * count)
					}()
					eventually(t, func() string {
						if node.Aside(reader) == 0 {
							return "nothing was put back"
						}
						return ""
					})
					tell()
					<-done
					wantReferenced(t, n, 0)
				}
				if bad := reader.Stats().BadWords; bad != 0 {
					t.Errorf("%d words were rubbish", bad)
				}
			})
		}
	}
}

// No block is shared that is larger than a message may be, and what is too large is refused as ever.
func TestSharedBlocksAreNoLargerThanAMessage(t *testing.T) {
	b := newBus(t, func(c *actors.Config) { c.Limits.MaxMessage = 6000 })
	n := b.attach("pub")
	p := b.publisher(n, "a")
	s := b.subscribe(b.attach("sub"), "a", node.OnFull(node.Block), node.Depth(500))
	if err := p.PublishBatch(b.ctx, many(0, 20, 500)); err != nil { // 576 bytes each, ten to a block
		t.Fatal(err)
	}
	if some := node.Referenced(n); some != 2 {
		t.Errorf("%d blocks, want 2", some)
	}
	b.drain(s, 20)
	err := p.PublishBatch(b.ctx, append(many(0, 20, 500), make([]byte, 6001)))
	if !errors.Is(err, node.ErrTooLarge) || !strings.Contains(err.Error(), "message 20 of 21") {
		t.Errorf("a message that is too large: %v", err)
	}
	b.drain(s, 20)
}
