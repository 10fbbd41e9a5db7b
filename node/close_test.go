package node_test

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/bhome-bus/bhome/node"
)

// What the program still holds when the node closes stays readable; everything else says ErrClosed.
func TestCloseLeavesHeldMessagesReadable(t *testing.T) {
	for _, size := range []int{8, 5000, 1 << 20} {
		b := newBus(t)
		pub := b.publisher(b.attach("pub"), "a")
		n := b.attach("sub")
		sub := b.subscribe(n, "a")
		if err := pub.Publish(b.ctx, pattern(size)); err != nil {
			t.Fatal(err)
		}
		m := b.receive(sub)
		ctx, cancel := context.WithCancel(b.ctx)
		cancel()
		held := 1
		if size < 100 { // inline: a copy, which its sender doesn't wait for
			held = 0
		}
		err := n.Close(ctx)
		var left *node.NotSentError
		if held == 0 && err != nil || held == 1 && (!errors.As(err, &left) || !errors.Is(err, node.ErrNotSent) || left.Held != 1 || left.Messages != 0) {
			t.Errorf("%d bytes, one message held: %v", size, err)
		}
		eventually(t, func() string {
			if k := pub.Subscribers(); k != 0 {
				return "a node that has closed subscribes"
			}
			return ""
		})
		other := b.subscribe(b.attach("sub"), "a", node.OnFull(node.DropOldest)) // the name is free
		for range 200 {                                                          // would be written over it, if it were free
			if err := pub.Publish(b.ctx, bytes.Repeat([]byte{0xee}, size)); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(m.Bytes(), pattern(size)) {
			t.Errorf("%d bytes have changed since their node closed", size)
		}
		if err := m.Release(); err != nil {
			t.Error(err)
		}
		if err := m.Release(); !errors.Is(err, node.ErrReleased) {
			t.Errorf("released twice, after Close: %v", err)
		}
		if err := other.Close(b.ctx); err != nil {
			t.Error(err)
		}
		if err := n.Close(b.ctx); err != nil {
			t.Errorf("closed twice: %v", err)
		}
	}
}

func TestAfterClose(t *testing.T) {
	b := newBus(t)
	n := b.attach("n")
	pub, sub, svc := b.publisher(n, "a"), b.subscribe(n, "b"), b.serve(n, "c", echo)
	waiting := make(chan error, 1)
	go func() {
		_, err := sub.Receive(b.ctx)
		waiting <- err
	}()
	l, err := pub.Loan(b.ctx, 100)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
	if err := n.Close(b.ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-waiting; !errors.Is(err, node.ErrClosed) {
		t.Errorf("Receive that waited: %v", err)
	}
	for range sub.Messages(b.ctx) {
		t.Error("a message after Close")
	}
	for what, f := range map[string]func() error{
		"Publish":        func() error { return pub.Publish(b.ctx, []byte("x")) },
		"PublishBatch":   func() error { return pub.PublishBatch(b.ctx, [][]byte{{1}}) },
		"Loan":           func() error { _, err := pub.Loan(b.ctx, 10); return err },
		"Send":           func() error { return pub.Send(b.ctx, l) },
		"Receive":        func() error { _, err := sub.Receive(b.ctx); return err },
		"TryReceive":     func() error { _, _, err := sub.TryReceive(); return err },
		"Publisher":      func() error { _, err := n.Publisher(b.ctx, "z"); return err },
		"Subscribe":      func() error { _, err := n.Subscribe(b.ctx, "z"); return err },
		"Serve":          func() error { _, err := n.Serve(b.ctx, "z", echo); return err },
		"Request":        func() error { _, err := n.Request(b.ctx, "c", nil); return err },
		"WaitForService": func() error { return n.WaitForService(b.ctx, "c") },
		"Procs":          func() error { _, err := n.Procs(b.ctx); return err },
		"Topics":         func() error { _, err := n.Topics(b.ctx); return err },
	} {
		err := f()
		want := node.ErrClosed
		if what == "Send" { // it was released before
			want = node.ErrReleased
		}
		if !errors.Is(err, want) {
			t.Errorf("%s after Close: %v", what, err)
		}
	}
	for what, f := range map[string]func(context.Context) error{"subscription": sub.Close, "service": svc.Close, "publisher": pub.Close} {
		if err := f(b.ctx); err != nil {
			t.Errorf("closing the %s after its node: %v", what, err)
		}
	}
}

// Replies wait for a client that doesn't take them; a node that closes meanwhile says how many it could not send.
func TestCloseTellsWhatWasNotSent(t *testing.T) {
	const count = 3000
	b := newBus(t)
	client, server := b.attach("client"), b.attach("server")
	s := b.serve(server, "echo", echo, node.ServeDepth(count))
	stuck, got := make(chan struct{}), make(chan error, count)
	for i := range count {
		err := client.RequestAsync(b.ctx, "echo", numbered(8, i), func(r *node.Reply, err error) {
			<-stuck
			if err == nil {
				err = r.Release()
			}
			got <- err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, func() string {
		if s.Served() != count {
			return "not all are answered"
		}
		return ""
	})
	ctx, cancel := context.WithTimeout(b.ctx, 10*time.Millisecond)
	defer cancel()
	err := server.Close(ctx)
	close(stuck)
	lost := 0
	for range count {
		if err := <-got; err != nil {
			lost++
		}
	}
	var left *node.NotSentError
	if !errors.As(err, &left) || left.Messages == 0 || left.Held != 0 || lost != left.Messages {
		t.Errorf("%d of %d requests had no reply; Close said %v", lost, count, err)
	}
}
