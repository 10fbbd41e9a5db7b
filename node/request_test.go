package node_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bhome-bus/bhome/node"
)

func (b *bus) serve(n *node.Node, topic string, h node.Handler, opts ...node.ServeOption) *node.Service {
	b.t.Helper()
	s, err := n.Serve(b.ctx, topic, h, opts...)
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

func echo(_ context.Context, r *node.Request) ([]byte, error) { return r.Copy(), nil }

func pattern(size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return b
}

func TestReplyIsTheHandlersBytes(t *testing.T) {
	noLeak(t)
	b := newBus(t)
	client := b.attach("client")
	b.serve(b.attach("server"), "echo", echo)
	for _, size := range []int{0, 1, 10, 256, 257, 5000, 1 << 20} {
		r, err := client.Request(b.ctx, "echo", pattern(size))
		if err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		if !bytes.Equal(r.Bytes(), pattern(size)) || !bytes.Equal(r.Copy(), r.Bytes()) || r.Provider() != "server" {
			t.Errorf("%d bytes came back as %d from %q", size, len(r.Bytes()), r.Provider())
		}
		if err := r.Release(); err != nil {
			t.Error(err)
		}
		if err := r.Release(); !errors.Is(err, node.ErrReleased) {
			t.Errorf("released twice: %v", err)
		}
	}
	if st := client.Stats(); st.Misused != 7 || st.Held != 0 {
		t.Errorf("%+v", st)
	}
}

func TestHandlersErrorsAndPanicsAreTyped(t *testing.T) {
	b := newBus(t)
	client := b.attach("client")
	b.serve(b.attach("server"), "odd", func(_ context.Context, r *node.Request) ([]byte, error) {
		switch string(r.Bytes()) {
		case "fail":
			return nil, errors.New("the moon is full")
		case "panic":
			panic("out of cheese")
		}
		return []byte(r.Client() + " " + r.Topic()), nil
	})
	for range 3 { // it goes on after each
		_, err := client.Request(b.ctx, "odd", []byte("fail"))
		var he *node.HandlerError
		if !errors.As(err, &he) || !errors.Is(err, node.ErrHandler) || errors.Is(err, node.ErrHandlerPanic) || !strings.Contains(err.Error(), "the moon is full") {
			t.Errorf("the handler's error: %v", err)
		}
		_, err = client.Request(b.ctx, "odd", []byte("panic"))
		if !errors.Is(err, node.ErrHandlerPanic) || !strings.Contains(err.Error(), "out of cheese") {
			t.Errorf("the handler's panic: %v", err)
		}
		r, err := client.Request(b.ctx, "odd", nil)
		if err != nil || string(r.Bytes()) != "client odd" {
			t.Fatalf("after that: %q, %v", r.Bytes(), err)
		}
		r.Release()
	}
}

func TestNobodyToAsk(t *testing.T) {
	b := newBus(t)
	client := b.attach("client")
	if _, err := client.Request(b.ctx, "nowhere", nil); !errors.Is(err, node.ErrNoProvider) || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("no provider: %v", err)
	}
	for _, topic := range []string{"", "a.>", strings.Repeat("x", 64<<10), "\xff"} {
		if _, err := client.Request(b.ctx, topic, nil); !errors.Is(err, node.ErrBadTopic) {
			t.Errorf("topic of %d bytes: %v", len(topic), err)
		}
	}
	// Whoever waits for a service sees it come, and a service that has gone is no provider any more.
	came := make(chan error, 1)
	go func() { came <- client.WaitForService(b.ctx, "nowhere") }()
	server := b.attach("server")
	s := b.serve(server, "nowhere", echo)
	if err := <-came; err != nil {
		t.Fatal(err)
	}
	r, err := client.Request(b.ctx, "nowhere", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Release()
	if s.Served() != 1 || s.Topic() != "nowhere" {
		t.Errorf("served %d of %q", s.Served(), s.Topic())
	}
	if err := s.Close(b.ctx); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string { // the client is told by the center
		if _, err := client.Request(b.ctx, "nowhere", nil); !errors.Is(err, node.ErrNoProvider) && !errors.Is(err, node.ErrProviderGone) {
			return fmt.Sprint("the service was closed: ", err)
		}
		return ""
	})
}

// Whoever gives up gets its context's error, and the handler's context ends.
func TestGivingUpReachesTheHandler(t *testing.T) {
	noLeak(t)
	b := newBus(t)
	client := b.attach("client")
	begun, over := make(chan struct{}, 3), make(chan error, 3)
	b.serve(b.attach("server"), "slow", func(ctx context.Context, _ *node.Request) ([]byte, error) {
		begun <- struct{}{}
		<-ctx.Done()
		over <- context.Cause(ctx)
		return nil, ctx.Err()
	})
	why := errors.New("no more interest")
	ctx, cancel := context.WithCancelCause(b.ctx)
	result := make(chan error, 1)
	go func() {
		_, err := client.Request(ctx, "slow", nil)
		result <- err
	}()
	<-begun
	cancel(why)
	if err := <-result; !errors.Is(err, why) {
		t.Errorf("cancelled: %v", err)
	}
	if err := <-over; !errors.Is(err, node.ErrCancelled) {
		t.Errorf("the handler's context: %v", err)
	}
	deadline := &manualDeadline{Context: b.ctx, done: make(chan struct{})}
	go func() {
		_, err := client.Request(deadline, "slow", nil)
		result <- err
	}()
	<-begun
	close(deadline.done)
	if err := <-result; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("timed out: %v", err)
	}
	if err := <-over; !errors.Is(err, node.ErrCancelled) {
		t.Errorf("the context of the handler that took too long: %v", err)
	}
	// One that passes by itself, whether or not the handler has begun.
	ctx, stop := context.WithTimeout(b.ctx, time.Millisecond)
	defer stop()
	if _, err := client.Request(ctx, "slow", nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("timed out: %v", err)
	}
}

// manualDeadline passes when the test says so.
type manualDeadline struct {
	context.Context
	done chan struct{}
}

func (d *manualDeadline) Done() <-chan struct{} { return d.done }

func (d *manualDeadline) Value(any) any { return nil } // else context.Cause asks the parent

func (d *manualDeadline) Err() error {
	select {
	case <-d.done:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

func TestProvidersTakeTurns(t *testing.T) {
	b := newBus(t)
	client := b.attach("client")
	for i := range 3 {
		name := fmt.Sprint("server", i)
		b.serve(b.attach(name), "who", func(context.Context, *node.Request) ([]byte, error) { return []byte(name), nil })
	}
	ps, err := client.Providers(b.ctx, "who")
	if err != nil || len(ps) != 3 {
		t.Fatal(ps, err)
	}
	answers := map[string]int{}
	for range 30 {
		r, err := client.Request(b.ctx, "who", nil)
		if err != nil {
			t.Fatal(err)
		}
		answers[string(r.Bytes())]++
		r.Release()
	}
	for i := range 3 {
		if n := answers[fmt.Sprint("server", i)]; n != 10 {
			t.Errorf("server%d answered %d of 30", i, n)
		}
	}
}

func TestEachCallerGetsItsOwnReply(t *testing.T) {
	noLeak(t)
	b := newBus(t)
	client := b.attach("client")
	b.serve(b.attach("server"), "echo", echo, node.Workers(4))
	var wg sync.WaitGroup
	for c := range 16 {
		wg.Go(func() {
			for i := range 100 {
				q := []byte(fmt.Sprintf("%d of %d%s", i, c, strings.Repeat("x", i*10)))
				r, err := client.Request(b.ctx, "echo", q)
				if err != nil {
					t.Error(err)
					return
				}
				if !bytes.Equal(r.Bytes(), q) {
					t.Errorf("asked %.20q, got %.20q", q, r.Bytes())
				}
				r.Release()
			}
		})
	}
	// The asynchronous form in between: each is answered once.
	answers := make(chan string, 300)
	for i := range 100 {
		want := fmt.Sprint("async ", i)
		if err := client.RequestAsync(b.ctx, "echo", []byte(want), func(r *node.Reply, err error) {
			if err != nil {
				answers <- err.Error()
				return
			}
			answers <- string(r.Bytes())
			r.Release()
		}); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[string]bool{}
	for range 100 {
		seen[<-answers] = true
	}
	wg.Wait()
	if len(seen) != 100 || !seen["async 0"] || !seen["async 99"] || len(answers) != 0 {
		t.Errorf("%d different answers, %d more", len(seen), len(answers))
	}
}

func TestWorkers(t *testing.T) {
	for _, workers := range []int{1, 4} {
		t.Run(fmt.Sprint(workers), func(t *testing.T) {
			b := newBus(t)
			client := b.attach("client")
			begun, goOn := make(chan struct{}, 16), make(chan struct{})
			b.serve(b.attach("server"), "work", func(context.Context, *node.Request) ([]byte, error) {
				begun <- struct{}{}
				<-goOn
				return nil, nil
			}, node.Workers(workers))
			results := make(chan error, 8)
			for range 8 {
				if err := client.RequestAsync(b.ctx, "work", nil, func(r *node.Reply, err error) {
					if err == nil {
						err = r.Release()
					}
					results <- err
				}); err != nil {
					t.Fatal(err)
				}
			}
			for range workers {
				<-begun
			}
			for i := range 8 {
				if extra := len(begun); extra > 0 {
					t.Fatalf("%d handlers more than %d are at work", extra, workers)
				}
				goOn <- struct{}{}
				if err := <-results; err != nil {
					t.Fatal(err)
				}
				if i < 8-workers {
					<-begun // the next one only now
				}
			}
		})
	}
}
