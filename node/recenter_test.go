package node_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/bhome-bus/bhome/actors"
	"github.com/bhome-bus/bhome/node"
)

// centers is a bus whose center can be replaced. Make it before nodes attach: its last center ends after them.
type centers struct {
	*bus
	now *actor.PID // nil: there is none
}

func newCenters(t *testing.T) *centers {
	b := newBus(t)
	c := &centers{bus: b, now: b.pid}
	t.Cleanup(func() {
		if c.now != nil && c.now != b.pid {
			c.stop()
		}
	})
	return c
}

func (c *centers) stop() {
	c.t.Helper()
	if err := actors.Stop(c.ctx, c.system, c.now); err != nil {
		c.t.Fatal(err)
	}
	c.now = nil
}

func (c *centers) start() {
	c.t.Helper()
	cfg := actors.DefaultConfig()
	cfg.Socket = c.socket
	pid, _, err := actors.Spawn(c.system.Root, "center", cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	c.now = pid
}

func (c *centers) await(want node.State, nodes ...*node.Node) {
	c.t.Helper()
	for _, n := range nodes {
		eventually(c.t, func() string {
			if got := n.State(); got != want {
				return fmt.Sprintf("%q is %v, not %v", n.Name(), got, want)
			}
			return ""
		})
	}
}

func (c *centers) subscribers(p *node.Publisher, want int) {
	c.t.Helper()
	eventually(c.t, func() string {
		if got := p.Subscribers(); got != want {
			return fmt.Sprintf("%d subscribers, want %d", got, want)
		}
		return ""
	})
}

func TestNoReconnect(t *testing.T) {
	c := newCenters(t)
	no := func(cfg *node.Config) { cfg.NoReconnect = true }
	n := c.attach("no", no)
	s := c.subscribe(n, "t")
	p := c.publisher(n, "t")
	c.sendNumbers(p, 0, 2)
	c.wantNumbers(s, 0, 2)
	done := make(chan error)
	go func() { _, err := s.Receive(c.ctx); done <- err }()
	c.stop()
	select {
	case <-n.Done():
	case <-c.ctx.Done():
		t.Fatal("it doesn't notice that the center is gone")
	}
	if err := n.Err(); !errors.Is(err, node.ErrDisconnected) || n.State() != node.StateClosed {
		t.Fatalf("%v, %v; want ErrDisconnected", n.State(), err)
	}
	if err := <-done; !errors.Is(err, node.ErrDisconnected) {
		t.Fatalf("Receive: %v", err)
	}
	c.start() // too late
	for what, f := range map[string]func() error{
		"Publish":   func() error { return p.Publish(c.ctx, nil) },
		"Publisher": func() error { _, err := n.Publisher(c.ctx, "u"); return err },
		"Subscribe": func() error { _, err := n.Subscribe(c.ctx, "u"); return err },
		"Request":   func() error { _, err := n.Request(c.ctx, "u", nil); return err },
		"Procs":     func() error { _, err := n.Procs(c.ctx); return err },
	} {
		if err := f(); !errors.Is(err, node.ErrDisconnected) {
			t.Errorf("%s: %v, want ErrDisconnected", what, err)
		}
	}
}

// The center goes and another comes: what is established goes on meanwhile, and newcomers find all that was there.
func TestTheNextCenterKnowsAll(t *testing.T) {
	c := newCenters(t)
	pub, sub := c.attach("pub"), c.attach("sub")
	p := c.publisher(pub, "t.x", node.AllowBlock(time.Hour), node.Keep(3))
	s := c.subscribe(sub, "t.", node.OnFull(node.Block))
	echo := func(_ context.Context, r *node.Request) ([]byte, error) { return r.Copy(), nil }
	if _, err := sub.Serve(c.ctx, "echo", echo); err != nil {
		t.Fatal(err)
	}
	ask := func(n *node.Node, what string) {
		t.Helper()
		r, err := n.Request(c.ctx, "echo", []byte(what))
		if err != nil || string(r.Bytes()) != what {
			t.Fatalf("asked %q: %v", what, err)
		}
		r.Release()
	}
	ask(pub, "before")
	next := 0
	stream := func(count int) {
		t.Helper()
		sent := make(chan error, 1)
		go func(from int) { sent <- c.send(p, from, from+count) }(next)
		c.wantNumbers(s, next, next+count)
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
		next += count
	}
	stream(200)
	for round := range 5 {
		session := sub.Session()
		c.stop()
		c.await(node.StateReconnecting, pub, sub)
		stream(200)
		ask(pub, "with no center")
		c.start()
		c.await(node.StateOnline, pub, sub)
		if sub.Session() != session || pub.Err() != nil {
			t.Fatalf("session %d, was %d; %v", sub.Session(), session, pub.Err())
		}
		stream(200) // on the same route
		ask(pub, "afterwards")
		c.subscribers(p, 1)
		late := c.attach(fmt.Sprint("late", round))
		ask(late, "of a newcomer")
		theirs := c.subscribe(late, ">", node.History(), node.OnFull(node.Block))
		c.wantNumbers(theirs, next-3, next)
		stream(20)
		c.wantNumbers(theirs, next-20, next)
		other := c.publisher(late, "t.y", node.AllowBlock(time.Hour))
		if err := other.WaitForSubscribers(c.ctx, 2); err != nil {
			t.Fatal(err)
		}
		c.sendNumbers(other, 1000, 1010)
		c.wantNumbers(s, 1000, 1010)
		c.wantNumbers(theirs, 1000, 1010)
		if err := late.Close(c.ctx); err != nil {
			t.Fatal(err)
		}
		c.wantNoMore(s)
		c.subscribers(p, 1)
		// One route to the subscription, one to the service, the one back; the next center adds none.
		eventually(t, func() string {
			if out, in := pub.Stats(), sub.Stats(); out.RoutesOut != 2 || out.RoutesIn != 1 || in.RoutesOut != 1 || in.RoutesIn != 2 {
				return fmt.Sprintf("routes: %+v and %+v", out, in)
			}
			return ""
		})
	}
}

// What is asked for while there is no center waits for the next one, and is the node's once.
func TestAskedForWithoutACenter(t *testing.T) {
	c := newCenters(t)
	n, other := c.attach("n"), c.attach("other")
	for round := range 5 {
		topic := fmt.Sprint("t", round)
		c.stop()
		c.await(node.StateReconnecting, n, other)
		var s *node.Subscription
		var p *node.Publisher
		done := make(chan error)
		ask := func(f func() error) { go func() { done <- f() }() }
		ask(func() (err error) { s, err = n.Subscribe(c.ctx, topic); return err })
		ask(func() (err error) { p, err = other.Publisher(c.ctx, topic); return err })
		ask(func() error {
			_, err := n.Serve(c.ctx, topic, func(context.Context, *node.Request) ([]byte, error) { return []byte(topic), nil })
			return err
		})
		ask(func() error {
			if err := other.WaitForService(c.ctx, topic); err != nil {
				return err
			}
			r, err := other.Request(c.ctx, topic, nil)
			if err == nil {
				err = r.Release()
			}
			return err
		})
		// One that gives up leaves nothing behind.
		ctx, cancel := context.WithCancel(c.ctx)
		cancel()
		if _, err := n.Subscribe(ctx, topic); !errors.Is(err, node.ErrDisconnected) || !errors.Is(err, context.Canceled) {
			t.Fatalf("%v, want ErrDisconnected and the context's", err)
		}
		c.start()
		for range 4 {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		c.await(node.StateOnline, n, other)
		if err := p.WaitForSubscribers(c.ctx, 1); err != nil {
			t.Fatal(err)
		}
		c.sendNumbers(p, 0, 40)
		c.wantNumbers(s, 0, 40)
		c.wantNoMore(s)
	}
}

// Whoever asks for a service right after a restart isn't told that nobody provides it: its provider is on its way back.
func TestAServiceIsThereRightAfterARestart(t *testing.T) {
	c := newCenters(t)
	provider := c.attach("provider")
	const rounds = 10 // which of the two is back first is chance
	for i := range rounds {
		if _, err := provider.Serve(c.ctx, fmt.Sprint("echo.", i), func(_ context.Context, r *node.Request) ([]byte, error) { return r.Copy(), nil }); err != nil {
			t.Fatal(err)
		}
	}
	client := c.attach("client")
	for i := range rounds {
		c.stop()
		c.await(node.StateReconnecting, provider, client)
		c.start()
		c.await(node.StateOnline, client)
		r, err := client.Request(c.ctx, fmt.Sprint("echo.", i), []byte("x")) // for the first time
		if err != nil {
			t.Fatal(err)
		}
		r.Release()
	}
}

// Nobody tells of a node that closes while there is no center, but its segments do: nobody waits for it for long, and the
// next center never hears of it.
func TestANodeClosesWithoutACenter(t *testing.T) {
	c := newCenters(t)
	pub, leaves, stays := c.attach("pub"), c.attach("leaves"), c.attach("stays")
	p := c.publisher(pub, "t", node.AllowBlock(time.Hour))
	left := c.subscribe(leaves, "t", node.OnFull(node.Block), node.Depth(4))
	s := c.subscribe(stays, "t", node.Depth(64))
	theirs := c.publisher(leaves, "u")
	u := c.subscribe(stays, "u", node.Depth(64))
	c.sendNumbers(p, 0, 4)
	c.wantNumbers(left, 0, 2)
	c.sendNumbers(theirs, 0, 20)
	// Both ends have the routes: they go on without a center.
	c.wantNumbers(s, 0, 4)
	c.wantNumbers(u, 0, 1)
	c.stop()
	c.await(node.StateReconnecting, pub, leaves, stays)
	c.sendNumbers(theirs, 20, 40)
	if err := leaves.Close(c.ctx); err != nil {
		t.Fatal(err)
	}
	c.sendNumbers(p, 4, 40)
	c.wantNumbers(s, 4, 40)
	c.wantNumbers(u, 1, 40) // what it sent is there
	c.subscribers(p, 1)
	c.start()
	c.await(node.StateOnline, pub, stays)
	again := c.attach("leaves")
	new := c.subscribe(again, "t")
	c.sendNumbers(p, 40, 60)
	c.wantNumbers(new, 40, 60)
	c.wantNumbers(s, 40, 60)
	eventually(t, func() string {
		if st := pub.Stats(); st.RoutesOut != 2 {
			return fmt.Sprintf("%d routes, want 2", st.RoutesOut)
		}
		return ""
	})
}

// A new center numbers the topics as the routes that go on have them: nothing is lost, or comes under another's name,
// while the nodes attach again one by one.
func TestTopicsKeepTheirNamesAcrossCenters(t *testing.T) {
	const topics = 8
	c := newCenters(t)
	pub, sub := c.attach("pub"), c.attach("sub")
	s := c.subscribe(sub, "t.", node.OnFull(node.Block), node.Depth(16))
	var pubs []*node.Publisher
	for i := range topics {
		pubs = append(pubs, c.publisher(pub, fmt.Sprint("t.", i), node.AllowBlock(time.Hour)))
	}
	ctx, stop := context.WithCancel(c.ctx)
	sent := make(chan error, 1)
	last := -1
	go func() {
		for i := 0; ctx.Err() == nil; i++ {
			if err := pubs[i%topics].Publish(c.ctx, numbered(8+i%2*400, i)); err != nil {
				sent <- err
				return
			}
			last = i
		}
		sent <- nil
	}()
	next := 0
	take := func() {
		t.Helper()
		m := c.receive(s)
		if number(m) != next || m.Topic() != fmt.Sprint("t.", next%topics) {
			t.Fatalf("got %d on %q, want %d", number(m), m.Topic(), next)
		}
		next++
		m.Release()
	}
	for range topics { // both ends know all names
		take()
	}
	for round := range 5 {
		c.stop()
		c.start()
		// A newcomer's topics take numbers, too, before all have attached again.
		early, err := node.Attach(c.ctx, node.Config{Name: fmt.Sprint("early", round), Socket: c.socket})
		if err != nil {
			t.Fatal(err)
		}
		for i := range topics {
			c.publisher(early, fmt.Sprint("u.", round, ".", i))
		}
		for pub.State() != node.StateOnline || sub.State() != node.StateOnline {
			take()
		}
		for range 100 {
			take()
		}
		if err := early.Close(c.ctx); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	for {
		select {
		case err := <-sent:
			if err != nil {
				t.Fatal(err)
			}
			for next <= last {
				take()
			}
			if st := sub.Stats(); st.BadWords != 0 {
				t.Fatalf("%d bad words", st.BadWords)
			}
			return
		default:
			if st := s.Stats(); st.Unread > 0 {
				take()
			}
		}
	}
}

// A publisher that waits for a slow subscriber doesn't keep its process from the next center.
func TestAWaitingPublisherAttachesAgain(t *testing.T) {
	c := newCenters(t)
	pub := c.attach("pub")
	p := c.publisher(pub, "t", node.AllowBlock(time.Hour))
	s := c.subscribe(c.attach("sub"), "t", node.OnFull(node.Block), node.Depth(2))
	c.sendNumbers(p, 0, 2)
	sent := make(chan error)
	go func() { sent <- c.send(p, 2, 10) }()
	for range 3 {
		c.stop()
		c.await(node.StateReconnecting, pub)
		c.start()
		c.await(node.StateOnline, pub)
	}
	other := c.publisher(pub, "u")
	c.sendNumbers(other, 0, 4)
	c.wantNumbers(s, 0, 10)
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
}

// A route with more topics than a frame holds is opened, told of more, and reported to the next center, in pieces.
func TestRoutesWithManyTopics(t *testing.T) {
	c := newCenters(t)
	pub, sub := c.attach("pub"), c.attach("sub")
	const topics = 800
	name := func(i int) string { return fmt.Sprintf("t.%s.%d", strings.Repeat("x", 200), i) }
	early := c.subscribe(sub, "t.", node.Depth(topics))
	var pubs []*node.Publisher
	for i := range topics {
		pubs = append(pubs, c.publisher(pub, name(i)))
	}
	late := c.subscribe(sub, "t.>", node.Depth(topics))
	for round := range 3 {
		for i, p := range pubs {
			c.sendNumbers(p, i, i+1)
		}
		for _, s := range []*node.Subscription{early, late} {
			for i := range pubs {
				m := c.receive(s)
				if number(m) != i || m.Topic() != name(i) {
					t.Fatalf("round %d: got %d on %q", round, number(m), m.Topic())
				}
				m.Release()
			}
		}
		if round == 2 {
			return
		}
		c.stop()
		c.await(node.StateReconnecting, pub, sub)
		c.start()
		c.await(node.StateOnline, pub, sub)
		early.Close(c.ctx) // the next one's route is opened by the new center
		early = c.subscribe(sub, "t.", node.Depth(topics))
	}
}
