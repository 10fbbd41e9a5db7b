package node_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/bhome-bus/bhome/actors"
	"github.com/bhome-bus/bhome/node"
)

// seated is a publisher that has waited for room so often that it sleeps at its subscriber's bell.
type seated struct {
	t   *testing.T
	b   *bus
	n   *node.Node
	far *node.Node // the subscriber's
	pub *node.Publisher
	sub *node.Subscription
}

const seatedDepth = 4

func newSeated(t *testing.T) *seated {
	b := newBus(t, func(c *actors.Config) { c.OfflineAfter = 300 * time.Millisecond }) // closed peers are looked for that often
	s := &seated{t: t, b: b, n: b.attach("pub"), far: b.attach("sub")}
	s.pub = b.publisher(s.n, "a", node.AllowBlock(time.Hour))
	s.sub = b.subscribe(s.far, "a", node.Depth(seatedDepth), node.OnFull(node.Block))
	for i := range seatedDepth {
		s.publish(b.ctx, i)
	}
	for range 2 {
		s.waitOnce(1)
	}
	return s
}

// waitOnce has a sender wait alone; then there are so many seats.
func (s *seated) waitOnce(seats int) {
	s.t.Helper()
	done := s.waiting(s.b.ctx, 1, s.pub)
	s.read()
	s.await(done)
	if got := node.Seats(s.n); got != seats {
		s.t.Fatalf("%d seats after a wait, want %d", got, seats)
	}
	s.fill()
}

func (s *seated) publish(ctx context.Context, i int) {
	s.t.Helper()
	if err := s.pub.Publish(ctx, numbered(500, i)); err != nil {
		s.t.Fatal(err)
	}
}

// waiting publishes, in a goroutine that waits for room when it returns, and so do so many.
func (s *seated) waiting(ctx context.Context, all int, pub *node.Publisher) <-chan error {
	s.t.Helper()
	done := make(chan error, 1)
	go func() { done <- pub.Publish(ctx, numbered(500, 0)) }()
	eventually(s.t, func() string {
		if n, _ := node.Waiting(s.n, "sub"); n != all {
			return fmt.Sprintf("%d wait, want %d", n, all)
		}
		return ""
	})
	return done
}

func (s *seated) await(done <-chan error) {
	s.t.Helper()
	select {
	case err := <-done:
		if err != nil {
			s.t.Fatal(err)
		}
	case <-s.b.ctx.Done():
		s.t.Fatal("there is room, and the sender doesn't wake up")
	}
}

// read reads all that is there but what is sent meanwhile.
func (s *seated) read() {
	s.t.Helper()
	for range seatedDepth {
		m := s.b.receive(s.sub)
		if err := m.Release(); err != nil {
			s.t.Fatal(err)
		}
	}
}

// fill makes the queue, which has one message, full.
func (s *seated) fill() {
	s.t.Helper()
	for i := range seatedDepth - 1 {
		s.publish(s.b.ctx, i)
	}
}

// full is a topic whose queue has no room for a second message.
func (s *seated) full(topic string) (*node.Publisher, *node.Subscription) {
	s.t.Helper()
	pub := s.b.publisher(s.n, topic, node.AllowBlock(time.Hour))
	sub := s.b.subscribe(s.far, topic, node.Depth(1), node.OnFull(node.Block))
	if err := pub.Publish(s.b.ctx, numbered(500, 0)); err != nil {
		s.t.Fatal(err)
	}
	return pub, sub
}

func TestSenderOnASeatHearsItsContext(t *testing.T) {
	s := newSeated(t)
	for range 2 {
		ctx, cancel := context.WithCancelCause(s.b.ctx)
		done := s.waiting(ctx, 1, s.pub)
		if _, on := node.Waiting(s.n, "sub"); !on {
			t.Fatal("it doesn't sleep at the bell")
		}
		enough := errors.New("enough")
		cancel(enough)
		if err := <-done; !errors.Is(err, node.ErrFull) || !errors.Is(err, enough) {
			t.Fatalf("a context that ended: %v", err)
		}
	}
	done := s.waiting(s.b.ctx, 1, s.pub) // the end of another's context is not its own
	s.read()
	s.await(done)
}

func TestSenderOnASeatKeepsToItsConsent(t *testing.T) {
	s := newSeated(t)
	hasty := s.b.publisher(s.n, "a", node.AllowBlock(time.Millisecond)) // the topic's consent is the last that was given
	if err := hasty.Publish(s.b.ctx, numbered(500, 0)); !errors.Is(err, node.ErrFull) {
		t.Fatalf("no room within a millisecond: %v", err)
	}
	if got := node.Seats(s.n); got != 1 {
		t.Fatalf("%d seats", got)
	}
}

// Who waits besides is woken, too: by the one on the seat, or, once that has gone, by the reactor.
func TestSeatIsForOneAlone(t *testing.T) {
	s := newSeated(t)
	other, sub := s.full("b")
	first := s.waiting(s.b.ctx, 1, s.pub)
	second := s.waiting(s.b.ctx, 2, other)
	m := s.b.receive(sub)
	m.Release()
	s.await(second)
	s.read()
	s.await(first)
	s.fill()
	first = s.waiting(s.b.ctx, 1, s.pub)
	second = s.waiting(s.b.ctx, 2, other)
	s.read()
	s.await(first)
	m = s.b.receive(sub)
	m.Release()
	s.await(second)
}

// Who had to give the seat up has it again a little later: two that take turns don't take and give it each time.
func TestSeatComesAgain(t *testing.T) {
	s := newSeated(t)
	other := s.b.publisher(s.n, "a", node.AllowBlock(time.Hour)) // of the same route
	more, sub := s.full("b")
	first := s.waiting(s.b.ctx, 1, other)
	second := s.waiting(s.b.ctx, 2, more)
	m := s.b.receive(sub)
	m.Release()
	s.await(second)
	s.read()
	s.await(first)
	s.fill()
	for range node.SeatAgain {
		s.waitOnce(0)
	}
	s.waitOnce(1)
}

func TestSeatThatNobodyUsesIsGivenUp(t *testing.T) {
	s := newSeated(t)
	node.ClearSeats(s.n) // it was used until now
	s.waitOnce(1)
	for want := range 2 {
		node.ClearSeats(s.n)
		if got := node.Seats(s.n); got != 1-want {
			t.Fatalf("%d seats, want %d", got, 1-want)
		}
	}
	s.waitOnce(1) // and has another at once
}

func TestSeatEndsWithItsPeer(t *testing.T) {
	s := newSeated(t)
	done := s.waiting(s.b.ctx, 1, s.pub)
	if err := s.far.Close(s.b.ctx); err != nil {
		t.Fatal(err)
	}
	s.await(done) // the others have it: there are none
	eventually(t, func() string {
		if n := node.Seats(s.n); n != 0 {
			return fmt.Sprintf("%d seats are left", n)
		}
		return ""
	})
}
