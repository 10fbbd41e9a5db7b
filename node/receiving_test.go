package node_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/bhome-bus/bhome/node"
	"github.com/bhome-bus/bhome/shmio"
)

var strategies = map[string]shmio.WaitStrategy{"adaptive": shmio.Adaptive, "park": shmio.Park, "busy": shmio.BusySpin}

// Nobody can tell from outside that a receiver waits, so each round lets the receivers and the end race.
func TestWhoeverReceivesHearsOfTheEnd(t *testing.T) {
	for name, wait := range strategies {
		t.Run(name, func(t *testing.T) {
			b := newBus(t)
			pub := b.publisher(b.attach("pub"), "t")
			n := b.attach("sub")
			for round := range 20 {
				s := b.subscribe(n, "t", node.Wait(wait))
				if round%2 == 0 { // a route that has delivered is waited for in another way
					b.sendNumbers(pub, 0, 2)
					b.wantNumbers(s, 0, 2)
				}
				ctx, cancel := context.WithCancel(b.ctx)
				cancelled, closed := make(chan error), make(chan error)
				go func() { _, err := s.Receive(ctx); cancelled <- err }()
				for range 3 {
					go func() { _, err := s.Receive(b.ctx); closed <- err }()
				}
				cancel()
				if err := <-cancelled; !errors.Is(err, context.Canceled) {
					t.Fatalf("cancelled: %v", err)
				}
				if err := s.Err(); err != nil {
					t.Fatalf("after a cancellation: %v", err)
				}
				if err := s.Close(b.ctx); err != nil {
					t.Fatal(err)
				}
				for range 3 {
					if err := <-closed; !errors.Is(err, node.ErrClosed) {
						t.Fatalf("closed: %v", err)
					}
				}
				_, _, err := s.TryReceive()
				if !errors.Is(err, node.ErrClosed) || !errors.Is(s.Err(), node.ErrClosed) || s.Close(b.ctx) != nil {
					t.Fatalf("after Close: %v, %v", err, s.Err())
				}
				for range s.Messages(b.ctx) {
					t.Fatal("a closed subscription has messages")
				}
			}
		})
	}
}

func TestReceivingEndsWithTheNode(t *testing.T) {
	b := newBus(t)
	n := b.attach("sub")
	s := b.subscribe(n, "t")
	done := make(chan error)
	go func() { _, err := s.Receive(b.ctx); done <- err }()
	if err := n.Close(b.ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, node.ErrClosed) {
		t.Fatal(err)
	}
	if _, err := n.Subscribe(b.ctx, "t"); !errors.Is(err, node.ErrClosed) {
		t.Fatalf("Subscribe on a closed node: %v", err)
	}
	if _, err := n.Publisher(b.ctx, "t"); !errors.Is(err, node.ErrClosed) {
		t.Fatalf("Publisher on a closed node: %v", err)
	}
}

// Receivers whose contexts end all the time take each message once: one that comes as its receiver leaves is not lost.
func TestCancellingReceiversLosesNothing(t *testing.T) {
	const count, receivers = 600, 3
	for name, wait := range strategies {
		t.Run(name, func(t *testing.T) {
			b := newBus(t)
			pub := b.publisher(b.attach("pub"), "t", node.AllowBlock(time.Hour))
			s := b.subscribe(b.attach("sub"), "t", node.OnFull(node.Block), node.Depth(4), node.Wait(wait))
			var mu sync.Mutex
			taken := map[int]int{}
			var wg sync.WaitGroup
			over, finish := context.WithCancel(b.ctx)
			defer finish()
			for range receivers {
				wg.Go(func() {
					for last := -1; over.Err() == nil; {
						ctx, cancel := context.WithCancel(over)
						go cancel()
						m, err := s.Receive(ctx)
						if err != nil {
							if !errors.Is(err, context.Canceled) {
								t.Error(err)
								return
							}
							continue
						}
						i := number(m)
						if i <= last {
							t.Errorf("%d came after %d", i, last)
						}
						last = i
						m.Release()
						mu.Lock()
						taken[i]++
						if len(taken) == count {
							finish()
						}
						mu.Unlock()
					}
				})
			}
			b.sendNumbers(pub, 0, count)
			wg.Wait()
			for i := range count {
				if taken[i] != 1 {
					t.Fatalf("message %d was taken %d times", i, taken[i])
				}
			}
		})
	}
}

func TestRangingAgainLosesNothing(t *testing.T) {
	b := newBus(t)
	pub := b.publisher(b.attach("pub"), "t", node.AllowBlock(time.Hour))
	s := b.subscribe(b.attach("sub"), "t", node.OnFull(node.Block), node.Depth(5))
	sent := make(chan error, 1)
	go func() { sent <- b.send(pub, 0, 300) }()
	next := 0
	for round := 0; next < 300; round++ {
		ctx, cancel := context.WithCancel(b.ctx)
		for m := range s.Messages(ctx) {
			if number(m) != next {
				t.Fatalf("got %d, want %d", number(m), next)
			}
			next++
			m.Release()
			if next%7 == 0 {
				break
			}
			if next%11 == 0 || next == 300 {
				cancel() // the loop ends by itself
			}
		}
		cancel()
		if err := s.Err(); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	b.wantNoMore(s)
}

func TestSubscribingAgain(t *testing.T) {
	b := newBus(t)
	pub := b.publisher(b.attach("pub"), "t")
	n := b.attach("sub")
	var held []node.Message
	for round := range 10 {
		s := b.subscribe(n, "t")
		b.sendNumbers(pub, round*100, round*100+20)
		b.wantNumbers(s, round*100, round*100+10)
		held = append(held, b.receive(s), b.receive(s)) // inline and block; the rest is left unread
		if err := s.Close(b.ctx); err != nil {
			t.Fatal(err)
		}
		b.sendNumbers(pub, round*100+50, round*100+70) // for nobody
		if got := s.Stats(); got.Received != 12 || got.Held != 2 {
			t.Fatalf("%+v", got)
		}
	}
	for i, m := range held { // valid though their subscriptions are over
		if want := i/2*100 + 10 + i%2; number(m) != want || m.Topic() != "t" || m.Publisher() != "pub" {
			t.Fatalf("a held message is %d now, was %d", number(m), want)
		}
		if err := m.Release(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestBadSubscriptionOptions(t *testing.T) {
	b := newBus(t)
	n := b.attach("n")
	for what, o := range map[string]node.SubOption{"depth 0": node.Depth(0), "depth -1": node.Depth(-1), "depth 65537": node.Depth(65537),
		"hold 0": node.Hold(0), "hold 65537": node.Hold(65537), "policy": node.OnFull(3), "expiry": node.Expiry(-1)} {
		if _, err := n.Subscribe(b.ctx, "t", o); !errors.Is(err, node.ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", what, err)
		}
	}
	var limit *node.LimitError
	if _, err := n.Subscribe(b.ctx, "t", node.Quota(1<<62)); !errors.Is(err, node.ErrNoMemory) || !errors.As(err, &limit) || limit.Limit != "route" {
		t.Errorf("a huge quota: %v, want ErrNoMemory of limit route", err)
	}
	for i, o := range []node.SubOption{node.Depth(1), node.Depth(65536), node.Hold(1), node.Hold(65536), node.Quota(1)} {
		s := b.subscribe(n, fmt.Sprint("t", i), o)
		p := b.publisher(n, s.Pattern())
		b.sendNumbers(p, 7, 8)
		b.wantNumbers(s, 7, 8)
	}
}
