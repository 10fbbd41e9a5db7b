package node_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/bhome-bus/bhome/node"
)

// fill publishes the numbers from to to-1, each in a block of so many bytes.
func (b *bus) fill(p *node.Publisher, size, from, to int) {
	b.t.Helper()
	for i := from; i < to; i++ {
		if err := p.Publish(b.ctx, numbered(size, i)); err != nil {
			b.t.Fatal(err)
		}
	}
}

// drain takes and releases what waits, once so many messages are in the queue.
func (b *bus) drain(s *node.Subscription, count int) (got []int) {
	b.t.Helper()
	for range count {
		m := b.receive(s)
		got = append(got, number(m))
		m.Release()
	}
	b.wantUnread(s, 0)
	return got
}

func (b *bus) wantUnread(s *node.Subscription, want uint64) {
	b.t.Helper()
	if st := s.Stats(); st.Unread != want {
		b.t.Fatalf("%d unread, want %d", st.Unread, want)
	}
}

// Of what waited longer than Expiry nothing is given out; its blocks are the publisher's again.
func TestExpiry(t *testing.T) {
	const count = 10
	b := newBus(t)
	n := b.attach("pub")
	pub := b.publisher(n, "t")
	sub := b.attach("sub")
	short := b.subscribe(sub, "t", node.Expiry(time.Millisecond), node.Hold(1)) // what expires is not held
	long := b.subscribe(sub, "t", node.Expiry(time.Hour))
	b.sendNumbers(pub, 0, count)
	var last node.Message
	for i := range count {
		if last = b.receive(long); number(last) != i {
			t.Fatalf("got %d, want %d", number(last), i)
		}
		if i < count-1 {
			last.Release()
		}
	}
	for last.Age() < 20*time.Millisecond && b.ctx.Err() == nil { // well above what a stamp can be off
	}
	last.Release()
	for short.Stats().Expired < count {
		if m, ok, err := short.TryReceive(); ok || err != nil {
			t.Fatalf("message %d, %v old, and %v, though it has expired", number(m), m.Age(), err)
		}
		if b.ctx.Err() != nil {
			t.Fatalf("%+v", short.Stats())
		}
	}
	if st := short.Stats(); st.Expired != count || st.Received != 0 || st.Held != 0 || st.Unread != 0 || st.Dropped != 0 {
		t.Fatalf("%+v", st)
	}
	if st := long.Stats(); st.Expired != 0 || st.Received != count {
		t.Fatalf("%+v", st)
	}
}

func TestHoldIsPerPublisher(t *testing.T) {
	for _, policy := range []node.Policy{node.DropOldest, node.DropNewest, node.Block} {
		t.Run(policy.String(), func(t *testing.T) {
			b := newBus(t)
			one, two := b.publisher(b.attach("one"), "t"), b.publisher(b.attach("two"), "t")
			s := b.subscribe(b.attach("sub"), "t", node.Depth(8), node.Hold(3), node.OnFull(policy))
			b.fill(one, 500, 0, 8)
			var held []node.Message
			for range 3 {
				held = append(held, b.receive(s))
			}
			none := func() {
				t.Helper()
				if m, ok, err := s.TryReceive(); ok || err != nil {
					t.Fatalf("more than Hold: message %d of %q, %v", number(m), m.Publisher(), err)
				}
			}
			none()
			b.wantUnread(s, 5)
			b.fill(two, 500, 100, 102) // another publisher's are not in its way
			for want := 100; want < 102; want++ {
				if m := b.receive(s); number(m) != want {
					t.Fatalf("got %d of %q, want %d", number(m), m.Publisher(), want)
				} else {
					held = append(held, m)
				}
			}
			none()
			// A release wakes whoever waits for it.
			var m node.Message
			next := make(chan error)
			go func() {
				var err error
				m, err = s.Receive(b.ctx)
				next <- err
			}()
			held[1].Release()
			if err := <-next; err != nil || number(m) != 3 {
				t.Fatalf("got %d (%v), want 3", number(m), err)
			}
			none()
			for i, want := range []int{0, -1, 2, 100, 101} {
				if want >= 0 && number(held[i]) != want {
					t.Fatalf("a held message is %d now, was %d", number(held[i]), want)
				} else if want >= 0 {
					held[i].Release()
				}
			}
			m.Release()
			if got := b.drain(s, 4); !slices.Equal(got, []int{4, 5, 6, 7}) {
				t.Fatal(got)
			}
		})
	}
}

// What came inline is the receiver's own and holds nothing of its publisher.
func TestHoldDoesNotCountWhatCameInline(t *testing.T) {
	b := newBus(t)
	pub := b.publisher(b.attach("pub"), "t")
	s := b.subscribe(b.attach("sub"), "t", node.Depth(64), node.Hold(1))
	b.fill(pub, 8, 0, 64)
	var held []node.Message
	for range 64 {
		held = append(held, b.receive(s))
	}
	for i, m := range held {
		if number(m) != i {
			t.Fatalf("a held message is %d now, was %d", number(m), i)
		}
		m.Release()
	}
}

// Of blocks of 3,000 bytes three fit a quota of 10,000, held ones counted.
func TestQuota(t *testing.T) {
	const size = 3000
	quota := node.Quota(10_000)
	b := newBus(t)
	n := b.attach("pub")
	pub := b.publisher(n, "t", node.AllowBlock(time.Hour))
	sub := b.attach("sub")
	oldest := b.subscribe(sub, "t", quota, node.OnFull(node.DropOldest))
	newest := b.subscribe(sub, "t", quota, node.OnFull(node.DropNewest))
	b.fill(pub, size, 0, 6)
	if got := b.drain(oldest, 3); !slices.Equal(got, []int{3, 4, 5}) || oldest.Stats().Dropped != 3 {
		t.Fatalf("drop-oldest: %v, %d dropped", got, oldest.Stats().Dropped)
	}
	held := b.receive(newest)
	b.fill(pub, size, 6, 10)
	if got := b.drain(oldest, 3); !slices.Equal(got, []int{7, 8, 9}) {
		t.Fatalf("drop-oldest: %v", got)
	}
	if got := b.drain(newest, 2); !slices.Equal(got, []int{1, 2}) || newest.Stats().Dropped != 7 {
		t.Fatalf("drop-newest: %v, %d dropped", got, newest.Stats().Dropped)
	}
	// Two come back, one is held: two more fit.
	b.fill(pub, size, 10, 14)
	if got := b.drain(newest, 2); !slices.Equal(got, []int{10, 11}) || number(held) != 0 {
		t.Fatalf("drop-newest: %v, and holds %d", got, number(held))
	}
	b.drain(oldest, 3)
	// One that is larger than the quota passes if it is the only one, then nothing else does.
	b.fill(pub, 20_000, 20, 21)
	b.wantUnread(newest, 0)
	held.Release()
	b.fill(pub, 20_000, 21, 23)
	if got := b.drain(newest, 1); !slices.Equal(got, []int{21}) {
		t.Fatalf("drop-newest: %v", got)
	}
	if got := b.drain(oldest, 1); !slices.Equal(got, []int{22}) {
		t.Fatalf("drop-oldest: %v", got)
	}
	b.fill(pub, 8, 30, 60) // inline takes no quota
	b.drain(newest, 30)
}

// A Block subscriber's quota holds its publisher up until something comes back.
func TestQuotaBlocks(t *testing.T) {
	b := newBus(t)
	pub := b.publisher(b.attach("pub"), "t", node.AllowBlock(time.Hour))
	s := b.subscribe(b.attach("sub"), "t", node.Quota(10_000), node.OnFull(node.Block))
	b.fill(pub, 3000, 0, 3)
	ctx, cancel := context.WithCancel(b.ctx)
	cancel()
	if err := pub.Publish(ctx, numbered(3000, 3)); !errors.Is(err, node.ErrFull) || !errors.Is(err, context.Canceled) {
		t.Fatalf("%v, want ErrFull", err)
	}
	sent := make(chan error)
	go func() { sent <- pub.Publish(b.ctx, numbered(3000, 4)) }()
	m := b.receive(s)
	m.Release()
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if got := b.drain(s, 3); !slices.Equal(got, []int{1, 2, 4}) {
		t.Fatal(got)
	}
}
