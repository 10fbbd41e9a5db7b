package node_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/bhome-bus/bhome/node"
)

// everyFill runs f for each way that a queue gets full.
func everyFill(t *testing.T, depths []int, f func(t *testing.T, policy node.Policy, depth int)) {
	for name, policy := range map[string]node.Policy{"drop oldest": node.DropOldest, "block": node.Block} {
		for _, depth := range depths {
			t.Run(fmt.Sprintf("%s, depth %d", name, depth), func(t *testing.T) { f(t, policy, depth) })
		}
	}
}

// hold keeps n from hearing what its center tells from here on, until release is called (it is at the end of the test at the
// latest). The subscription is of a topic of p's, and n is being told of its route just now.
func (b *bus) hold(n *node.Node, p *node.Publisher) (s *node.Subscription, release func()) {
	b.t.Helper()
	release = sync.OnceFunc(node.HoldSocket(n))
	b.t.Cleanup(release)
	s = b.subscribe(n, p.Topic(), node.OnFull(node.Block))
	return s, release
}

// A subscriber that has not heard yet that a route has ended polls it on: its memory isn't the next route's meanwhile.
func TestARouteThatEndsUnheardIsReadAsNoOther(t *testing.T) {
	everyFill(t, []int{2, 8}, func(t *testing.T, policy node.Policy, depth int) {
		const rounds = 30
		b := newBus(t)
		pub, reader := b.attach("pub"), b.attach("reader")
		sub := b.subscribe(reader, "t", node.OnFull(policy), node.Depth(depth))
		open := func() *node.Publisher { return b.publisher(pub, "t", node.AllowBlock(time.Hour)) }
		p := open()
		send := func(from, to int) { // all of them take as many slots: where one ends on one route, the next begins on another
			t.Helper()
			for i := from; i < to; i++ {
				if err := p.Publish(b.ctx, numbered(8, i)); err != nil {
					t.Fatal(err)
				}
			}
		}
		send(0, 1)
		b.wantNumbers(sub, 0, 1)
		_, release := b.hold(reader, b.publisher(b.attach("other"), "u"))
		next := 1 // what is published from here on goes over routes that the reader isn't told of
		for range rounds {
			if err := p.Close(b.ctx); err != nil {
				t.Fatal(err)
			}
			p = open()
			send(next, next+2)
			next += 2
			if m, ok, err := sub.TryReceive(); ok || err != nil {
				t.Fatalf("message %d is read from a route that has ended (%v)", number(m), err)
			}
		}
		release()
		got := map[int]bool{}
		for range next - 1 {
			m := b.receive(sub)
			if got[number(m)] {
				t.Fatalf("message %d came twice", number(m))
			}
			got[number(m)] = true
			if err := m.Release(); err != nil {
				t.Fatal(err)
			}
		}
		b.wantNoMore(sub)
		send(next, next+1)
		if m := b.receive(sub); number(m) != next {
			t.Fatalf("message %d came, want %d", number(m), next)
		}
		if err := p.Close(b.ctx); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() string {
			if out, in := pub.Stats(), reader.Stats(); out.RoutesOut != 0 || in.RoutesIn != 1 {
				return fmt.Sprintf("routes that have ended stay: %d and %d", out.RoutesOut, in.RoutesIn)
			}
			return ""
		})
	})
}

// A publisher is closed and opened again and again while its subscriber is slow: what each sent comes once, in order, and with
// Block all of it.
func TestPublishersComeAndGoBeforeASlowSubscriber(t *testing.T) {
	everyFill(t, []int{1, 8}, func(t *testing.T, policy node.Policy, depth int) {
		const rounds, stride = 150, 1000
		b := newBus(t)
		pub, reader := b.attach("pub"), b.attach("reader")
		sub := b.subscribe(reader, "t", node.OnFull(policy), node.Depth(depth))
		sent := make(chan error, 1)
		want := 0
		for i := range rounds {
			want += 1 + i%(2*depth)
		}
		go func() {
			sent <- func() error {
				for i := range rounds {
					p, err := pub.Publisher(b.ctx, "t", node.AllowBlock(time.Hour))
					if err != nil {
						return err
					}
					if err := errors.Join(b.send(p, i*stride, i*stride+1+i%(2*depth)), p.Close(b.ctx)); err != nil {
						return err
					}
				}
				return nil
			}()
		}()
		over := false
		last, got := map[int]int{}, 0
		for {
			m, ok, err := sub.TryReceive()
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				if over && reader.Stats().RoutesIn == 0 || b.ctx.Err() != nil {
					break
				}
				select {
				case err := <-sent:
					if err != nil {
						t.Fatal(err)
					}
					over = true
				case <-time.After(time.Millisecond): // slow: each look has a queue before it that has filled, or not
				}
				continue
			}
			round, at := number(m)/stride, number(m)%stride
			before, any := last[round]
			next := before
			if any {
				next++
			}
			if round >= rounds || at > round%(2*depth) || any && at <= before || policy == node.Block && at != next {
				t.Fatalf("message %d of round %d came after %d", at, round, before)
			}
			last[round] = at
			got++
			if err := m.Release(); err != nil {
				t.Fatal(err)
			}
		}
		if dropped := int(sub.Stats().Dropped); got+dropped != want || policy == node.Block && dropped != 0 {
			t.Fatalf("%d of %d messages came, %d are counted as dropped", got, want, dropped)
		}
	})
}

// over waits until the ends of a route from pub to reader have let go of it, both.
func over(t *testing.T, pub, reader *node.Node) {
	t.Helper()
	eventually(t, func() string {
		if out, in := pub.Stats(), reader.Stats(); out.RoutesOut != 0 || in.RoutesIn != 0 {
			return fmt.Sprintf("routes that have ended stay: %d and %d", out.RoutesOut, in.RoutesIn)
		}
		return ""
	})
}

// The reader hears that a route ends before the writer does: what is sent meanwhile is read.
func TestTheReaderHearsOfTheEndFirst(t *testing.T) {
	everyFill(t, []int{8}, func(t *testing.T, policy node.Policy, depth int) {
		b := newBus(t)
		pub, reader := b.attach("pub"), b.attach("reader")
		sub := b.subscribe(reader, "t", node.OnFull(policy), node.Depth(depth))
		p := b.publisher(pub, "t")
		b.sendNumbers(p, 0, 2)
		b.wantNumbers(sub, 0, 2)
		node.RouteCloseHeard(reader, "pub")
		b.sendNumbers(p, 2, 2+depth)
		b.wantNumbers(sub, 2, 2+depth)
		b.wantNoMore(sub)
		if st := reader.Stats(); st.RoutesIn != 1 {
			t.Fatalf("%d routes before the writer has said that this was all", st.RoutesIn)
		}
		b.sendNumbers(p, 100, 102)
		node.RouteCloseHeard(pub, "reader")
		b.wantNumbers(sub, 100, 102)
		over(t, pub, reader)
	})
}

// The reader wants nothing more, and the writer has not heard: what it sends comes back, and the route goes once it has.
func TestWhatIsSentToWhoHasGoneComesBack(t *testing.T) {
	b := newBus(t)
	pub, reader := b.attach("pub"), b.attach("reader")
	sub := b.subscribe(reader, "t", node.OnFull(node.Block))
	p := b.publisher(pub, "t", node.AllowBlock(time.Hour))
	b.sendNumbers(p, 0, 2)
	b.wantNumbers(sub, 0, 2)
	node.Abandon(reader, "pub")
	for range 3 {
		b.sendNumbers(p, 0, 40)
		eventually(t, func() string {
			if n := node.BlocksOut(pub); n != 0 {
				return fmt.Sprint(n, " blocks are out to a reader that has gone")
			}
			return ""
		})
	}
	node.RouteCloseHeard(pub, "reader")
	over(t, pub, reader)
}

// A route that its reader can't use is ended by it, and both ends are freed, though their processes go on: what the reader's half
// is used for next is not read as this route's.
func TestARouteThatItsReaderGivesUpIsFreed(t *testing.T) {
	for _, waiting := range []int{0, 5} {
		t.Run(fmt.Sprint(waiting, " wait"), func(t *testing.T) {
			b := newBus(t)
			pub, reader := b.attach("pub"), b.attach("reader")
			sub := b.subscribe(reader, "t", node.OnFull(node.Block))
			p := b.publisher(pub, "t", node.AllowBlock(time.Hour))
			b.sendNumbers(p, 0, 2)
			b.wantNumbers(sub, 0, 2)
			b.sendNumbers(p, 2, 2+waiting)
			node.GiveUp(reader, "pub", errors.New("it can't be had"))
			again := b.subscribe(reader, "t", node.OnFull(node.Block)) // the same memory
			eventually(t, func() string {
				if out, in := pub.Stats(), reader.Stats(); out.RoutesOut != 1 || in.RoutesIn != 1 {
					return fmt.Sprintf("routes: %d and %d", out.RoutesOut, in.RoutesIn)
				}
				return ""
			})
			b.sendNumbers(p, 10, 15)
			b.wantNumbers(again, 10, 15)
			eventually(t, func() string {
				if n := node.BlocksOut(pub); n != 0 {
					return fmt.Sprint(n, " blocks are out")
				}
				return ""
			})
		})
	}
}

// A process that leaves none of the routes to it that are over gets no more of them, so that it can't use up their sender's memory.
// Those that it has go on, and its death frees all.
func TestWhoLeavesNoRouteGetsNoMore(t *testing.T) {
	b := newBus(t)
	pub, reader := b.attach("pub"), b.attach("reader")
	sub := b.subscribe(reader, "t")
	p := b.publisher(pub, "t")
	b.sendNumbers(p, 0, 2)
	b.wantNumbers(sub, 0, 2)
	const first = 1 << 60
	for i := range node.MaxLeaving {
		if err := node.OpenAndEnd(pub, "reader", first+uint64(i)); err != nil {
			t.Fatalf("after %d: %v", i, err)
		}
	}
	if err := node.OpenAndEnd(pub, "reader", first-1); !errors.Is(err, node.ErrRemote) {
		t.Errorf("one more than %d: %v", node.MaxLeaving, err)
	}
	if n, routes := node.Leaving(pub, "reader"), pub.Stats().RoutesOut; n != node.MaxLeaving || routes != n+1 {
		t.Errorf("%d of %d routes are over, want %d", n, routes, node.MaxLeaving)
	}
	b.sendNumbers(p, 2, 8)
	b.wantNumbers(sub, 2, 8)
	node.PeerDied(pub, "reader")
	if routes := pub.Stats().RoutesOut; routes != 0 {
		t.Errorf("%d routes to the dead", routes)
	}
}

// What the sender learns to be dropped from what its receiver returned last is among what the subscription counts: the route isn't
// over before.
func TestARouteIsOverWhenItsDropsAreCounted(t *testing.T) {
	b := newBus(t)
	pub, reader := b.attach("pub"), b.attach("reader")
	sub := b.subscribe(reader, "t", node.OnFull(node.DropOldest))
	p := b.publisher(pub, "t")
	b.sendNumbers(p, 0, 1)
	b.wantNumbers(sub, 0, 1) // they know each other
	if err := p.Publish(b.ctx, numbered(5000, 1)); err != nil {
		t.Fatal(err)
	}
	node.RouteCloseHeard(pub, "reader")
	release := node.HoldReturns(pub, "reader")
	m := b.receive(sub)
	if err := m.Release(); err != nil { // it is returned, which the sender doesn't see yet
		t.Fatal(err)
	}
	node.RouteCloseHeard(reader, "pub")
	release(3)
	over(t, pub, reader)
	if st := sub.Stats(); st.Dropped != 3 {
		t.Errorf("%d messages are counted as dropped, want 3", st.Dropped)
	}
}

// A process's death is told before the center's frames about its routes are read: what it sent is read all the same, and then it
// is forgotten.
func TestDeathIsHeardBeforeTheRoutesOfTheDead(t *testing.T) {
	b := newBus(t)
	reader := b.attach("reader")
	pub := b.attach("pub")
	known, held, late := b.publisher(pub, "known"), b.publisher(pub, "held"), b.publisher(pub, "late", node.AllowBlock(time.Hour))
	first := b.subscribe(reader, "known")
	b.sendNumbers(known, 0, 2)
	b.wantNumbers(first, 0, 2)
	begun, release := b.hold(reader, held)
	after := b.subscribe(reader, "late", node.OnFull(node.Block)) // its route waits on the socket altogether
	b.sendNumbers(held, 0, 5)
	b.sendNumbers(late, 0, 5)
	if err := pub.Close(b.ctx); err != nil {
		t.Fatal(err)
	}
	if !node.PeerDied(reader, "pub") {
		t.Fatal("it isn't known")
	}
	eventually(t, func() string { // the one that is known is over, and takes nobody with it
		if n := reader.Stats().RoutesIn; n > 1 {
			return fmt.Sprint(n, " routes")
		}
		return ""
	})
	if n := node.Peers(reader); n != 1 {
		t.Fatalf("it knows %d processes", n)
	}
	release()
	b.wantNumbers(begun, 0, 5)
	b.wantNumbers(after, 0, 5)
	eventually(t, func() string {
		if n, routes := node.Peers(reader), reader.Stats().RoutesIn; n != 0 || routes != 0 {
			return fmt.Sprintf("%d dead are remembered, and %d of their routes", n, routes)
		}
		return ""
	})
}

// What a killed center has left on the socket is heard: the routes that it told of are there before the next one comes, and
// nothing sent over them is lost.
func TestWhatADeadCenterHasSaidIsHeard(t *testing.T) {
	c := newCenters(t)
	reader := c.attach("reader")
	pub := c.attach("pub")
	held, late := c.publisher(pub, "held"), c.publisher(pub, "late", node.AllowBlock(time.Hour))
	first, release := c.hold(reader, held)
	second := c.subscribe(reader, "late", node.OnFull(node.Block))
	c.sendNumbers(held, 0, 5)
	c.sendNumbers(late, 0, 5)
	node.CenterDied(reader)
	c.stop()
	release()
	eventually(t, func() string {
		if n := reader.Stats().RoutesIn; n != 2 {
			return fmt.Sprint(n, " routes are known")
		}
		return ""
	})
	c.start()
	c.await(node.StateOnline, pub, reader)
	c.sendNumbers(held, 5, 8)
	c.sendNumbers(late, 5, 8)
	c.wantNumbers(first, 0, 8)
	c.wantNumbers(second, 0, 8)
}
