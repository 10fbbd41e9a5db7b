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
		s.waitSeated()
	}
	return s
}

// wait has a sender wait alone.
func (s *seated) wait() {
	s.t.Helper()
	done := s.waiting(s.b.ctx, 1, s.pub)
	s.read()
	s.await(done)
	s.fill()
}

// waitSeated is wait, on a seat.
func (s *seated) waitSeated() {
	s.t.Helper()
	s.wait()
	if got := node.Seats(s.n); got != 1 {
		s.t.Fatalf("%d seats after a wait", got)
	}
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

// Who had to give the seat up has it again a little later.
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
	for range node.SeatAgain { // at most: who was woken for nothing has waited once more
		s.wait()
	}
	s.waitSeated()
}

func TestSeatThatNobodyUsesIsGivenUp(t *testing.T) {
	s := newSeated(t)
	for idle, want := range map[time.Duration]int{time.Hour: 1, 0: 0} {
		s.waitSeated() // it has one, or another at once
		node.ClearSeats(s.n, idle)
		if got := node.Seats(s.n); got != want {
			t.Fatalf("%d seats that were used within %v, want %d", got, idle, want)
		}
	}
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
