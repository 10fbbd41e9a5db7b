package node_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/bhome-bus/bhome/node"
)

func numbered(size, i int) []byte {
	b := make([]byte, size)
	binary.NativeEndian.PutUint64(b, uint64(i))
	return b
}

func number(m node.Message) int { return int(binary.NativeEndian.Uint64(m.Bytes())) }

// A reader that stalls through 1,000 messages at depth 64 sees exactly the last 64, in order; 936 are counted.
func TestDropOldestKeepsTheLastDepth(t *testing.T) {
	for _, size := range []int{8, 64, 300, 5000} {
		for _, held := range []int{0, 3} {
			t.Run(fmt.Sprintf("%d bytes, %d held", size, held), func(t *testing.T) {
				b := newBus(t)
				pub := b.publisher(b.attach("pub"), "a.b")
				sub := b.subscribe(b.attach("sub"), "a.b", node.Depth(64), node.OnFull(node.DropOldest))
				var keep []node.Message
				for i := range held { // taken before the stall, released after it
					if err := pub.Publish(b.ctx, numbered(size, 5000+i)); err != nil {
						t.Fatal(err)
					}
					keep = append(keep, b.receive(sub))
				}
				for i := range 1000 {
					if err := pub.Publish(b.ctx, numbered(size, i)); err != nil {
						t.Fatal(err)
					}
				}
				for i := 936; i < 1000; i++ {
					m := b.receive(sub)
					if st := sub.Stats(); st.Unread != uint64(999-i) || st.Dropped != 936 {
						t.Fatalf("%d unread, %d dropped; want %d and 936", st.Unread, st.Dropped, 999-i)
					}
					if number(m) != i || len(m.Bytes()) != size {
						t.Fatalf("got message %d of %d bytes, want %d of %d", number(m), len(m.Bytes()), i, size)
					}
					if m.Seq() != uint64(held+i+1) {
						t.Fatalf("message %d has sequence number %d", i, m.Seq())
					}
					if err := m.Release(); err != nil {
						t.Fatal(err)
					}
				}
				if _, ok, err := sub.TryReceive(); ok || err != nil {
					t.Fatal("more than the last 64", ok, err)
				}
				for i, m := range keep {
					if number(m) != 5000+i {
						t.Fatalf("held message %d has changed to %d", i, number(m))
					}
					if err := m.Release(); err != nil {
						t.Fatal(err)
					}
				}
			})
		}
	}
}

func TestDropNewestKeepsTheFirstDepth(t *testing.T) {
	b := newBus(t)
	pub := b.publisher(b.attach("pub"), "a")
	sub := b.subscribe(b.attach("sub"), "a", node.Depth(10), node.OnFull(node.DropNewest))
	for i := range 100 {
		if err := pub.Publish(b.ctx, numbered(1000, i)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 10 {
		m := b.receive(sub)
		if number(m) != i {
			t.Fatalf("got %d, want %d", number(m), i)
		}
		m.Release()
	}
	if st := sub.Stats(); st.Dropped != 90 || st.Unread != 0 {
		t.Fatalf("%+v", st)
	}
}

func TestBlockWaitsAsLongAsThePublisherConsents(t *testing.T) {
	b := newBus(t)
	n := b.attach("pub")
	pub := b.publisher(n, "a", node.AllowBlock(time.Hour))
	other := b.publisher(n, "b")
	sub := b.subscribe(b.attach("sub"), ">", node.Depth(4), node.OnFull(node.Block))
	fast := b.subscribe(b.attach("fast"), "a", node.Depth(64), node.OnFull(node.Block))
	for i := range 4 {
		if err := pub.Publish(b.ctx, numbered(500, i)); err != nil {
			t.Fatal(err)
		}
	}
	// Without consent nothing waits: the message is counted as dropped.
	if err := other.Publish(b.ctx, numbered(500, 99)); err != nil {
		t.Fatal(err)
	}
	if st := n.Stats(); st.Dropped != 1 {
		t.Fatalf("%d dropped, want 1", st.Dropped)
	}
	if st := sub.Stats(); st.Dropped != 1 {
		t.Fatalf("the subscriber sees %d dropped, want 1", st.Dropped)
	}
	// A context that ends is ErrFull; the others have the message.
	ctx, cancel := context.WithCancelCause(b.ctx)
	cancel(errors.New("enough"))
	if err := pub.Publish(ctx, numbered(500, 4)); !errors.Is(err, node.ErrFull) {
		t.Fatalf("a full queue: %v", err)
	}
	// With room it goes on.
	done := make(chan error, 1)
	go func() { done <- pub.Publish(b.ctx, numbered(500, 5)) }()
	m := b.receive(sub)
	m.Release()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{1, 2, 3, 5} {
		m := b.receive(sub)
		if number(m) != want {
			t.Fatalf("got %d, want %d", number(m), want)
		}
		m.Release()
	}
	for want := range 6 {
		m := b.receive(fast)
		if number(m) != want {
			t.Fatalf("the fast one got %d, want %d", number(m), want)
		}
		m.Release()
	}
}

// Whoever has room gets a message while the publisher waits for another that has none, singly and in batches.
func TestOneWithoutRoomKeepsNobodyWaiting(t *testing.T) {
	for _, batch := range []bool{false, true} {
		for full := range 2 { // the first of the routes, and the second
			t.Run(fmt.Sprintf("batch %v, %d full", batch, full), func(t *testing.T) {
				b := newBus(t)
				pub := b.publisher(b.attach("pub"), "a", node.AllowBlock(time.Hour))
				depth := []int{64, 64}
				depth[full] = 2
				var subs [2]*node.Subscription
				for i, d := range depth {
					subs[i] = b.subscribe(b.attach(fmt.Sprint("sub", i)), "a", node.Depth(d), node.OnFull(node.Block))
				}
				sent := make(chan error, 1)
				const count = 6
				go func() {
					var payloads [][]byte
					for i := range count {
						payloads = append(payloads, numbered(16+i%2*1000, i))
					}
					if batch {
						sent <- pub.PublishBatch(b.ctx, payloads)
						return
					}
					for _, p := range payloads {
						if err := pub.Publish(b.ctx, p); err != nil {
							sent <- err
							return
						}
					}
					sent <- nil
				}()
				receive := func(s *node.Subscription, want int) {
					t.Helper()
					m := b.receive(s)
					if number(m) != want {
						t.Fatalf("got %d, want %d", number(m), want)
					}
					m.Release()
				}
				ahead := 3 // two have room, the third is waited for
				if batch {
					ahead = count
				}
				for i := range ahead {
					receive(subs[1-full], i)
				}
				for i := range count {
					receive(subs[full], i)
				}
				for i := ahead; i < count; i++ {
					receive(subs[1-full], i)
				}
				if err := <-sent; err != nil {
					t.Fatal(err)
				}
			})
		}
	}
}

// Two topics share a route to a subscriber that is full: the one that may wait for an hour doesn't have the other wait for
// longer than it consents to.
func TestConsentIsEachTopicsOwn(t *testing.T) {
	b := newBus(t)
	n := b.attach("pub")
	patient := b.publisher(n, "a", node.AllowBlock(time.Hour))
	hasty := b.publisher(n, "b", node.AllowBlock(time.Millisecond))
	sub := b.subscribe(b.attach("sub"), ">", node.Depth(1), node.OnFull(node.Block))
	if err := patient.Publish(b.ctx, numbered(500, 0)); err != nil {
		t.Fatal(err)
	}
	ctx, enough := context.WithCancel(b.ctx)
	done := make(chan error, 1)
	go func() { done <- patient.Publish(ctx, numbered(500, 1)) }()
	for range 20 { // whether the other waits already or not
		if err := hasty.Publish(b.ctx, numbered(500, 2)); !errors.Is(err, node.ErrFull) || b.ctx.Err() != nil {
			t.Fatalf("got %v, want ErrFull", err)
		}
	}
	enough()
	if err := <-done; !errors.Is(err, node.ErrFull) {
		t.Fatalf("the patient one: %v", err)
	}
	m := b.receive(sub)
	m.Release()
	if st := sub.Stats(); st.Dropped != 21 {
		t.Errorf("%d are counted as dropped, want 21", st.Dropped)
	}
}

func TestHistoryComesFirstAndInOrder(t *testing.T) {
	b := newBus(t)
	pub := b.publisher(b.attach("pub"), "state", node.Keep(5))
	for i := range 20 {
		if err := pub.Publish(b.ctx, numbered(16, i)); err != nil {
			t.Fatal(err)
		}
	}
	late := b.subscribe(b.attach("late"), "state", node.History())
	plain := b.subscribe(b.attach("plain"), "state")
	for i := 20; i < 23; i++ {
		if err := pub.Publish(b.ctx, numbered(16, i)); err != nil {
			t.Fatal(err)
		}
	}
	for want := 15; want < 23; want++ {
		m := b.receive(late)
		if number(m) != want {
			t.Fatalf("late: got %d, want %d", number(m), want)
		}
		m.Release()
	}
	for want := 20; want < 23; want++ {
		m := b.receive(plain)
		if number(m) != want {
			t.Fatalf("plain: got %d, want %d", number(m), want)
		}
		m.Release()
	}
}
