package node_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/bhome-bus/bhome/actors"
	"github.com/bhome-bus/bhome/node"
)

// ask sends requests that tell their ends, each once; the first error of RequestAsync fails the test.
func (b *bus) ask(ctx context.Context, n *node.Node, topic string, payloads ...[]byte) <-chan error {
	b.t.Helper()
	ends := make(chan error, 2*len(payloads))
	for _, p := range payloads {
		if err := n.RequestAsync(ctx, topic, p, func(r *node.Reply, err error) {
			if err == nil {
				err = r.Release()
			}
			ends <- err
		}); err != nil {
			b.t.Fatal(err)
		}
	}
	return ends
}

func same(count, size int) [][]byte {
	payloads := make([][]byte, count)
	for i := range payloads {
		payloads[i] = pattern(size)
	}
	return payloads
}

// What waits behind the request in hand must not hide that its caller has given up, or has gone: its handler would wait
// forever, and everybody else for it.
func TestHandlerHearsItsCallerPastTheRequestsThatWait(t *testing.T) {
	for _, how := range []string{"cancels", "closes"} {
		for _, waiting := range []int{0, 1, 2, 10, 200} {
			t.Run(fmt.Sprint(how, " with ", waiting), func(t *testing.T) {
				b := newBus(t)
				client, other := b.attach("client"), b.attach("other")
				begun, over := make(chan struct{}, 1), make(chan error, 1)
				b.serve(b.attach("server"), "slow", func(ctx context.Context, r *node.Request) ([]byte, error) {
					if string(r.Bytes()) != "wait" {
						return nil, nil
					}
					begun <- struct{}{}
					<-ctx.Done()
					over <- context.Cause(ctx)
					return nil, nil
				})
				ctx, cancel := context.WithCancel(b.ctx)
				defer cancel()
				first := b.ask(ctx, client, "slow", []byte("wait"))
				<-begun
				behind := make(chan error, waiting)
				for range waiting { // more than the queue holds: some wait for room
					go func() {
						r, err := client.Request(b.ctx, "slow", nil)
						if err == nil {
							err = r.Release()
						}
						behind <- err
					}()
				}
				b.wantWaiting(client, waiting)
				if how == "cancels" {
					cancel()
				} else if err := client.Close(b.ctx); err != nil {
					t.Fatal(err)
				}
				if err := <-over; !errors.Is(err, node.ErrCancelled) {
					t.Errorf("the handler's context: %v", err)
				}
				if err := <-first; !errors.Is(err, context.Canceled) && !errors.Is(err, node.ErrClosed) {
					t.Errorf("the caller: %v", err)
				}
				for range waiting {
					if err := <-behind; err != nil && how == "cancels" {
						t.Errorf("one that waited: %v", err)
					}
				}
				r, err := other.Request(b.ctx, "slow", nil)
				if err != nil {
					t.Fatal(err)
				}
				r.Release()
			})
		}
	}
}

// wantWaiting waits until so many requests besides the first are on their way, as far as there is room for them.
func (b *bus) wantWaiting(client *node.Node, count int) {
	b.t.Helper()
	eventually(b.t, func() string {
		if sent := client.Stats().Sent; sent < uint64(min(count, 60))+1 {
			return fmt.Sprintf("%d requests sent, want %d", sent, count+1)
		}
		return ""
	})
}

// A request whose route is over, and the route for its answer too, has none, though its provider lives: its caller is told, once
// what was answered before has come.
func TestRequestWhoseWayBackIsOverEnds(t *testing.T) {
	b := newBus(t)
	client, server := b.attach("client"), b.attach("server")
	begun, answer := make(chan struct{}, 2), make(chan struct{})
	defer close(answer)
	b.serve(server, "slow", func(ctx context.Context, r *node.Request) ([]byte, error) {
		if len(r.Bytes()) == 0 {
			return []byte("done"), nil
		}
		begun <- struct{}{}
		<-answer
		return nil, nil
	}, node.Workers(3))
	waiting := b.ask(b.ctx, client, "slow", pattern(1), pattern(300))
	<-begun
	<-begun
	if err := <-b.ask(b.ctx, client, "slow", nil); err != nil {
		t.Fatal(err)
	}
	node.RouteCloseHeard(client, "server")
	if n := node.CallersWait(client); n != 2 {
		t.Fatalf("%d callers wait while answers may come, want 2", n)
	}
	node.RouteCloseHeard(server, "client")
	for range 2 {
		select {
		case err := <-waiting:
			if !errors.Is(err, node.ErrProviderGone) {
				t.Errorf("the caller is told %v", err)
			}
		case <-b.ctx.Done():
			t.Fatal("the caller waits for ever")
		}
	}
}

// Who waits when a service closes has no provider, and its request was not begun. The one in hand is answered.
func TestServiceClosesWhileRequestsWait(t *testing.T) {
	for round := range 20 { // the end and what is on its way race
		b := newBus(t)
		client, server := b.attach("client"), b.attach("server")
		begun := make(chan struct{}, 16)
		s := b.serve(server, "work", func(ctx context.Context, _ *node.Request) ([]byte, error) {
			begun <- struct{}{}
			<-ctx.Done()
			return nil, errors.New("interrupted")
		})
		ends := b.ask(b.ctx, client, "work", same(8, 200*(round%2)*10)...)
		<-begun
		if err := s.Close(b.ctx); err != nil {
			t.Fatal(err)
		}
		handled := 0
		for range 8 {
			switch err := <-ends; {
			case errors.Is(err, node.ErrHandler):
				handled++
			case !errors.Is(err, node.ErrNoProvider):
				t.Errorf("one that waited: %v", err)
			}
		}
		if handled != 1 || len(begun) != 0 {
			t.Errorf("%d requests were handled, %d more begun, want the one in hand", handled, len(begun))
		}
	}
}

// A request that is taken only when its caller has left already must not keep a worker.
func TestHandlerOfACallerThatHasLeft(t *testing.T) {
	b := newBus(t)
	other := b.attach("other")
	b.serve(b.attach("server"), "work", func(ctx context.Context, r *node.Request) ([]byte, error) {
		if r.Client() != "other" {
			<-ctx.Done()
		}
		return nil, nil
	})
	for round := range 30 {
		leaving := b.attach(fmt.Sprint("leaving", round))
		b.ask(b.ctx, leaving, "work", same(1+round%4, 10)...)
		if err := leaving.Close(b.ctx); err != nil {
			t.Fatal(err)
		}
		r, err := other.Request(b.ctx, "work", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Release()
	}
}

func TestHandlersReplyThatCannotBeSent(t *testing.T) {
	b := newBus(t, func(c *actors.Config) { c.Limits.MaxMessage = 1 << 20 })
	client := b.attach("client")
	b.serve(b.attach("server"), "big", func(context.Context, *node.Request) ([]byte, error) { return make([]byte, 4<<20), nil })
	ctx, cancel := context.WithTimeout(b.ctx, 5e9)
	defer cancel()
	if _, err := client.Request(ctx, "big", nil); !errors.Is(err, node.ErrHandler) {
		t.Fatal(err)
	}
}

// However a provider leaves, each caller hears of it, with or without others that go on.
func TestProviderLeavesWithRequestsUnderWay(t *testing.T) {
	for _, size := range []int{0, 3000} {
		noLeak(t)
		b := newBus(t)
		client, server := b.attach("client"), b.attach("server")
		begun := make(chan struct{}, 400)
		b.serve(server, "work", func(ctx context.Context, _ *node.Request) ([]byte, error) {
			begun <- struct{}{}
			<-ctx.Done()
			return nil, ctx.Err()
		}, node.Workers(2))
		ends := make(chan error, 200)
		for range 200 { // more than may be unanswered: some have not been sent
			go func() {
				_, err := client.Request(b.ctx, "work", pattern(size))
				ends <- err
			}()
		}
		<-begun
		<-begun
		if err := server.Close(b.ctx); err != nil {
			t.Error(err)
		}
		for range 200 {
			if err := <-ends; !errors.Is(err, node.ErrProviderGone) && !errors.Is(err, node.ErrNoProvider) && !errors.Is(err, node.ErrHandler) {
				t.Errorf("the provider left: %v", err)
			}
		}
		if len(begun) != 0 {
			t.Errorf("%d requests were begun when the provider was leaving", len(begun))
		}
		b.serve(b.attach("successor"), "work", echo)
		r, err := client.Request(b.ctx, "work", pattern(size))
		if err != nil {
			t.Fatal(err)
		}
		r.Release()
	}
}

// A client that leaves takes nothing with it and leaves nothing behind: its provider serves the others.
func TestClientLeavesWithRequestsUnderWay(t *testing.T) {
	noLeak(t)
	b := newBus(t)
	leaving, other, server := b.attach("leaving"), b.attach("other"), b.attach("server")
	begun, goOn, served := make(chan struct{}, 40), make(chan struct{}), make(chan struct{}, 40)
	b.serve(server, "work", func(_ context.Context, r *node.Request) ([]byte, error) {
		if r.Client() == "leaving" {
			begun <- struct{}{}
			<-goOn // whatever its context says
			if string(r.Bytes()) != string(pattern(3000)) {
				t.Error("the bytes of a request in hand have changed since its caller left")
			}
			served <- struct{}{}
		}
		return make([]byte, 5000), nil
	}, node.Workers(2))
	ends := b.ask(b.ctx, leaving, "work", same(20, 3000)...)
	<-begun
	<-begun
	if err := leaving.Close(b.ctx); err != nil {
		t.Error(err)
	}
	for range 20 {
		if err := <-ends; !errors.Is(err, node.ErrClosed) {
			t.Errorf("a request of the one who left: %v", err)
		}
	}
	if _, err := leaving.Request(b.ctx, "work", nil); !errors.Is(err, node.ErrClosed) {
		t.Errorf("asked after it left: %v", err)
	}
	close(goOn)
	<-served
	<-served
	for range 10 {
		r, err := other.Request(b.ctx, "work", make([]byte, 3000))
		if err != nil {
			t.Fatal(err)
		}
		r.Release()
	}
	eventually(t, func() string {
		rows, _, err := other.Msgs(b.ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range rows {
			if m.GetOwner() == "leaving" || slices.Contains(m.GetHolders(), "leaving") {
				return fmt.Sprint("a block of the one who left, or held by it: ", m)
			}
		}
		if st := server.Stats(); st.Held != 0 || st.RoutesIn != 1 || st.RoutesOut != 1 { // of the other
			return fmt.Sprintf("the provider still has something of the one who left: %+v", st)
		}
		return ""
	})
}

// Whatever a node is doing for its callers when it closes, they hear of the end and its memory is left alone after it.
func TestRequestsAndCloseRace(t *testing.T) {
	b := newBus(t)
	b.serve(b.attach("server"), "echo", echo, node.Workers(4))
	for range 20 {
		client := b.attach("client")
		var callers, asked sync.WaitGroup
		for c := range 8 {
			asked.Add(1)
			callers.Go(func() {
				for i := 0; ; i++ {
					r, err := client.Request(b.ctx, "echo", pattern(1000*c))
					if i == 0 {
						asked.Done()
					}
					if err != nil {
						if !errors.Is(err, node.ErrClosed) {
							t.Error(err)
						}
						return
					}
					r.Release()
				}
			})
		}
		asked.Wait()
		if err := client.Close(b.ctx); err != nil {
			t.Error(err)
		}
		callers.Wait()
	}
}

// A node waits for the handlers of a service that somebody else is closing: their replies are sent from its memory.
func TestNodeWaitsForHandlers(t *testing.T) {
	for range 10 {
		b := newBus(t)
		client, server := b.attach("client"), b.attach("server")
		begun, goOn := make(chan struct{}), make(chan struct{})
		s := b.serve(server, "work", func(context.Context, *node.Request) ([]byte, error) {
			close(begun)
			<-goOn
			return pattern(5000), nil
		})
		ends := b.ask(b.ctx, client, "work", nil)
		<-begun
		closed := make(chan error)
		for _, f := range []func(context.Context) error{s.Close, s.Close, server.Close} {
			go func() { closed <- f(b.ctx) }()
		}
		close(goOn)
		for range 3 {
			if err := <-closed; err != nil {
				t.Error(err)
			}
		}
		if err := <-ends; err != nil {
			t.Errorf("the request in hand: %v", err)
		}
	}
}
