package node_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bhome-bus/bhome/node"
)

// send publishes the numbers from to to-1, every other one in a block.
func (b *bus) send(p *node.Publisher, from, to int) error {
	for i := from; i < to; i++ {
		if err := p.Publish(b.ctx, numbered(8+i%2*400, i)); err != nil {
			return err
		}
	}
	return nil
}

func (b *bus) sendNumbers(p *node.Publisher, from, to int) {
	b.t.Helper()
	if err := b.send(p, from, to); err != nil {
		b.t.Fatal(err)
	}
}

// wantNumbers receives the numbers from to to-1, in this order.
func (b *bus) wantNumbers(s *node.Subscription, from, to int) {
	b.t.Helper()
	for want := from; want < to; want++ {
		m := b.receive(s)
		if got := number(m); got != want || len(m.Bytes()) != 8+want%2*400 {
			b.t.Fatalf("%s: got %d (%d bytes), want %d", s.Pattern(), got, len(m.Bytes()), want)
		}
		if err := m.Release(); err != nil {
			b.t.Fatal(err)
		}
	}
}

// wantNoMore is for when all publishing has returned: what isn't in the queues by then never will be.
func (b *bus) wantNoMore(s *node.Subscription) {
	b.t.Helper()
	if st := s.Stats(); st.Unread != 0 || st.Dropped != 0 {
		b.t.Fatalf("%s: %d messages too many, %d dropped", s.Pattern(), st.Unread, st.Dropped)
	}
}

// Two publishers publish on all topics; each pattern, subscribed before them and after them, gets what it matches and
// nothing else, in the order of each publisher, though many topics share a route.
func TestEachPatternGetsWhatItMatchesInOrder(t *testing.T) {
	topics := []string{"a", "b", "a.b", "a.c", "b.a", "ab.c", "a.b.c", "b.b.c"}
	patterns := map[string][]string{
		"a.b": {"a.b"},
		"a.":  {"a.b", "a.c", "a.b.c"},
		"a.>": {"a.b", "a.c", "a.b.c"},
		"*":   {"a", "b"},
		">":   topics,
		"*.*": {"a.b", "a.c", "b.a", "ab.c"},
		"*.b": {"a.b"}, "a.*.c": {"a.b.c"}, "none.": nil,
	}
	const rounds = 20
	b := newBus(t)
	subscribeAll := func(n *node.Node) map[string]*node.Subscription {
		subs := map[string]*node.Subscription{}
		for p := range patterns {
			subs[p] = b.subscribe(n, p, node.Depth(rounds*len(topics)))
		}
		return subs
	}
	early := subscribeAll(b.attach("early"))
	pubs := map[string][]*node.Publisher{}
	for _, name := range []string{"one", "two"} {
		n := b.attach(name)
		for _, topic := range topics {
			pubs[name] = append(pubs[name], b.publisher(n, topic))
		}
	}
	late := subscribeAll(b.attach("late"))
	var wg sync.WaitGroup
	for name := range pubs {
		wg.Go(func() {
			for i := range rounds * len(topics) {
				if err := pubs[name][i%len(topics)].Publish(b.ctx, numbered(8+i%3*200, i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for _, subs := range []map[string]*node.Subscription{early, late} {
		for pattern, s := range subs {
			next := map[string]int{"one": 0, "two": 0}
			for range 2 * rounds * len(patterns[pattern]) {
				m := b.receive(s)
				i := next[m.Publisher()]
				for !slices.Contains(patterns[pattern], topics[i%len(topics)]) {
					i++
				}
				if number(m) != i || m.Topic() != topics[i%len(topics)] || m.Seq() != uint64(i/len(topics)+1) {
					t.Fatalf("%q: message %d on %q (seq %d) of %q, want %d on %q", pattern, number(m), m.Topic(), m.Seq(), m.Publisher(), i, topics[i%len(topics)])
				}
				next[m.Publisher()] = i + 1
				m.Release()
			}
			b.wantNoMore(s)
		}
	}
}

func TestANodeHearsItself(t *testing.T) {
	b := newBus(t)
	n := b.attach("self")
	before := b.subscribe(n, "me")
	pub := b.publisher(n, "me")
	after := b.subscribe(n, "*")
	b.sendNumbers(pub, 0, 40)
	for _, s := range []*node.Subscription{before, after} { // two in one node: each gets all
		b.wantNumbers(s, 0, 40)
		b.wantNoMore(s)
	}
}

// A publisher that never rests: from the first message begun after Subscribe returned, nothing is missing. Each round
// also closes a subscription with the publisher waiting for room in it.
func TestNothingAfterSubscribeIsMissing(t *testing.T) {
	b := newBus(t)
	pub := b.publisher(b.attach("pub"), "t", node.AllowBlock(time.Hour))
	n := b.attach("sub")
	ctx, stop := context.WithCancel(b.ctx)
	var begun atomic.Int64
	done := make(chan error, 1)
	go func() {
		for ctx.Err() == nil {
			i := int(begun.Add(1))
			if err := pub.Publish(ctx, numbered(8+i%2*400, i)); err != nil && ctx.Err() == nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for round := range 50 {
		pattern := []string{"t", "*", ">"}[round%3]
		s := b.subscribe(n, pattern, node.Depth(1+round%7), node.OnFull(node.Block))
		from := int(begun.Load()) + 1
		m := b.receive(s)
		first := number(m)
		m.Release()
		if first > from {
			t.Fatalf("round %d: the first message is %d, but %d was sent after Subscribe returned", round, first, from)
		}
		b.wantNumbers(s, first+1, max(from, first)+20)
		if err := s.Close(b.ctx); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// All bytes of all sizes around what goes inline, what fills a block's class and what is large, copied and lent.
func TestEachByteArrives(t *testing.T) {
	b := newBus(t)
	n := b.attach("pub")
	pub := b.publisher(n, "t")
	s := b.subscribe(b.attach("sub"), "t")
	var sizes []int
	for i := range 300 { // crosses the inline limit, whatever it is
		sizes = append(sizes, i)
	}
	sizes = append(sizes, 900, 983, 984, 985, 1023, 1024, 1025, 4095, 4096, 4097, 1<<20-1, 1<<20, 1<<20+1)
	inline := 0
	for k, size := range sizes {
		want := make([]byte, size)
		for i := range want {
			want[i] = byte(i*7 + i>>8 + k)
		}
		for _, lend := range []bool{false, true} {
			before := n.Stats().Loans
			if lend {
				l, err := pub.Loan(b.ctx, size)
				if err != nil {
					t.Fatal(err)
				}
				copy(l.Bytes(), want)
				if err := pub.Send(b.ctx, l); err != nil {
					t.Fatal(err)
				}
			} else if err := pub.Publish(b.ctx, want); err != nil {
				t.Fatal(err)
			} else if n.Stats().Loans == before {
				inline++
			}
			m := b.receive(s)
			if !bytes.Equal(m.Bytes(), want) || !bytes.Equal(m.Copy(), want) {
				t.Fatalf("%d bytes (lent: %v) came as %d other ones", size, lend, len(m.Bytes()))
			}
			if err := m.Release(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if inline < 66 || inline >= 300 {
		t.Fatalf("%d sizes went inline: the test doesn't cross the limit", inline)
	}
}

func TestBadTopics(t *testing.T) {
	b := newBus(t)
	n := b.attach("n")
	handler := func(context.Context, *node.Request) ([]byte, error) { return nil, nil }
	exact := map[string]func(string) error{
		"Publisher":      func(s string) error { _, err := n.Publisher(b.ctx, s); return err },
		"Serve":          func(s string) error { _, err := n.Serve(b.ctx, s, handler); return err },
		"Request":        func(s string) error { _, err := n.Request(b.ctx, s, nil); return err },
		"WaitForService": func(s string) error { return n.WaitForService(b.ctx, s) },
	}
	subscribe := func(s string) error { _, err := n.Subscribe(b.ctx, s); return err }
	long := strings.Repeat("x", 64<<10)
	for _, topic := range []string{"", ".", "a..b", ".a", long, long + ".>", "a\xff", "\xc3(", "a\x00b", ">.a"} {
		if err := subscribe(topic); !errors.Is(err, node.ErrBadTopic) {
			t.Errorf("Subscribe(%.20q): %v, want ErrBadTopic", topic, err)
		}
		for name, f := range exact {
			if err := f(topic); !errors.Is(err, node.ErrBadTopic) || len(err.Error()) > 1000 {
				t.Errorf("%s(%.20q): %.200v, want ErrBadTopic", name, topic, err)
			}
		}
	}
	for _, pattern := range []string{"*", ">", "a.", "a.>", "a.*", "*.a", "a.*.b"} {
		for name, f := range exact {
			if err := f(pattern); !errors.Is(err, node.ErrBadTopic) {
				t.Errorf("%s(%q): %v, want ErrBadTopic", name, pattern, err)
			}
		}
		if err := subscribe(pattern); err != nil {
			t.Errorf("Subscribe(%q): %v", pattern, err)
		}
	}
	// The node is none the worse for it.
	s := b.subscribe(n, strings.Repeat("x", 255))
	b.sendNumbers(b.publisher(n, strings.Repeat("x", 255)), 0, 3)
	b.wantNumbers(s, 0, 3)
}
