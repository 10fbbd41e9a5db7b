package node_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/bhome-bus/bhome/node"
)

// Replies, cancellations and the end of the node race for each callback; one of them wins it.
func TestRequestAsyncCallsDoneOnce(t *testing.T) {
	const count = 300
	b := newBus(t)
	b.serve(b.attach("server"), "echo", echo, node.Workers(4))
	for range 5 {
		client := b.attach("client")
		calls := make([]atomic.Int32, count)
		ended := make(chan error, 2*count)
		for i := range count {
			ctx, cancel := context.WithCancel(b.ctx)
			defer cancel()
			err := client.RequestAsync(ctx, "echo", pattern(i*10), func(r *node.Reply, err error) {
				calls[i].Add(1)
				if err == nil {
					if !bytes.Equal(r.Bytes(), pattern(i*10)) {
						t.Errorf("request %d has another's reply", i)
					}
					err = r.Release()
				}
				ended <- err
			})
			if err != nil {
				t.Fatal(err)
			}
			if i%3 == 0 {
				go cancel()
			}
		}
		if err := client.Close(b.ctx); err != nil { // the last ones are under way
			t.Error(err)
		}
		for range count {
			if err := <-ended; err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, node.ErrClosed) {
				t.Errorf("%v", err)
			}
		}
		for i := range calls {
			if n := calls[i].Load(); n != 1 {
				t.Errorf("request %d: done was called %d times", i, n)
			}
		}
		if err := client.RequestAsync(b.ctx, "echo", nil, func(*node.Reply, error) { t.Error("done was called for a request that was refused") }); !errors.Is(err, node.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	}
}

// The bytes are the handler's until it returns, though their caller has given up and asks for more; then they are nobody's.
func TestRequestsBytesAreTheHandlersUntilItReturns(t *testing.T) {
	for _, size := range []int{10, 3000, 1 << 20} {
		b := newBus(t)
		client, server := b.attach("client"), b.attach("server")
		begun, goOn := make(chan *node.Request), make(chan struct{})
		b.serve(server, "work", func(ctx context.Context, r *node.Request) ([]byte, error) {
			if r.Bytes()[0] != pattern(1)[0] {
				return nil, nil
			}
			begun <- r
			<-goOn
			if !bytes.Equal(r.Bytes(), pattern(size)) {
				t.Errorf("%d bytes have changed while the handler had them", size)
			}
			return r.Bytes(), nil // copied into the reply before they are given back
		}, node.Workers(2))
		ctx, cancel := context.WithCancel(b.ctx)
		ends := b.ask(ctx, client, "work", pattern(size))
		kept := <-begun
		cancel()
		if err := <-ends; !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
		for range 10 { // would be written to its block, if that were free
			r, err := client.Request(b.ctx, "work", bytes.Repeat([]byte{0xee}, size))
			if err != nil {
				t.Fatal(err)
			}
			r.Release()
		}
		goOn <- struct{}{}
		done := make(chan error, 1)
		go func() {
			r, err := client.Request(b.ctx, "work", pattern(size))
			if err == nil && !bytes.Equal(r.Bytes(), pattern(size)) {
				err = fmt.Errorf("%d bytes, not those that were sent", len(r.Bytes()))
			}
			if err == nil {
				err = r.Release()
			}
			done <- err
		}()
		<-begun
		goOn <- struct{}{}
		if err := <-done; err != nil {
			t.Error(err)
		}
		eventually(t, func() string {
			if st := server.Stats(); st.Held != 0 || kept.Bytes() != nil {
				return fmt.Sprintf("a request is held after its handler returned: %+v", st)
			}
			return ""
		})
	}
}

// A client that has as many requests unanswered as a provider takes waits, by itself: it holds up no other, and it stops
// when its context ends, when there is room, or when the service closes.
func TestServeDepthBoundsTheUnansweredOfEachClient(t *testing.T) {
	b := newBus(t)
	client, other, server := b.attach("client"), b.attach("other"), b.attach("server")
	begun, goOn := make(chan struct{}, 8), make(chan struct{})
	s := b.serve(server, "work", func(ctx context.Context, r *node.Request) ([]byte, error) {
		if r.Client() == "other" {
			return nil, nil
		}
		begun <- struct{}{}
		select {
		case <-goOn:
		case <-ctx.Done():
		}
		return nil, ctx.Err()
	}, node.ServeDepth(1), node.Workers(4))
	hand := b.ask(b.ctx, client, "work", nil, pattern(3000))
	<-begun
	<-begun
	ctx, cancel := context.WithCancel(b.ctx)
	third := make(chan error, 1)
	go func() {
		_, err := client.Request(ctx, "work", nil)
		third <- err
	}()
	for range 10 {
		r, err := other.Request(b.ctx, "work", pattern(3000))
		if err != nil {
			t.Fatal(err)
		}
		r.Release()
	}
	cancel()
	if err := <-third; !errors.Is(err, context.Canceled) || len(begun) != 0 {
		t.Errorf("the third, %d more handled: %v", len(begun), err)
	}
	fourth := make(chan error, 1)
	go func() {
		r, err := client.Request(b.ctx, "work", nil)
		if err == nil {
			err = r.Release()
		}
		fourth <- err
	}()
	goOn <- struct{}{}
	if err := <-hand; err != nil {
		t.Error(err)
	}
	<-begun // the fourth
	fifth := make(chan error, 1)
	go func() {
		_, err := client.Request(b.ctx, "work", nil)
		fifth <- err
	}()
	if err := s.Close(b.ctx); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]<-chan error{"second": hand, "fourth": fourth} {
		if err := <-c; !errors.Is(err, node.ErrHandler) {
			t.Errorf("the %s was in hand: %v", what, err)
		}
	}
	if err := <-fifth; !errors.Is(err, node.ErrNoProvider) || len(begun) != 0 {
		t.Errorf("the fifth, %d more handled: %v", len(begun), err)
	}
}

// Requests that are given up make room for others at once, also while the handler doesn't listen.
func TestCancelledRequestsMakeRoom(t *testing.T) {
	for _, size := range []int{0, 3000} {
		b := newBus(t)
		client := b.attach("client")
		begun, goOn := make(chan struct{}, 300), make(chan struct{})
		s := b.serve(b.attach("server"), "work", func(context.Context, *node.Request) ([]byte, error) {
			begun <- struct{}{}
			<-goOn
			return nil, nil
		}, node.ServeDepth(2))
		first := b.ask(b.ctx, client, "work", pattern(size))
		<-begun
		for range 50 {
			ctx, cancel := context.WithCancel(b.ctx)
			ends := b.ask(ctx, client, "work", same(3, size)...)
			cancel()
			for range 3 {
				if err := <-ends; !errors.Is(err, context.Canceled) {
					t.Fatal(err)
				}
			}
		}
		last := b.ask(b.ctx, client, "work", pattern(size))
		close(goOn)
		for _, c := range []<-chan error{first, last} {
			if err := <-c; err != nil {
				t.Error(err)
			}
		}
		// The last may have come before the cancellations of those that were unanswered with it.
		if s.Served() > 5 || len(begun) > 4 {
			t.Errorf("%d served, %d begun after the first; want the first and the last, and at most 3 that were given up", s.Served(), len(begun))
		}
	}
}

func TestWaitForServiceEnds(t *testing.T) {
	b := newBus(t)
	client := b.attach("client")
	ctx, cancel := context.WithCancel(b.ctx)
	ended := make(chan error, 2)
	for _, ctx := range []context.Context{ctx, b.ctx} {
		go func() { ended <- client.WaitForService(ctx, "nowhere") }()
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("its context has ended: %v", err)
	}
	if err := client.Close(b.ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, node.ErrClosed) {
		t.Errorf("its node has ended: %v", err)
	}
}
