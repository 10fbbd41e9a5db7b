package deaths

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/bhome-bus/bhome/node"
)

func TestProviderKilledWithARequestInHand(t *testing.T) {
	d := newDaemon(t)
	p := role(t, "provider", d.socket)
	p.until("ready")
	n := attach(t, d, "client")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := n.WaitForService(ctx, "slow"); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := n.Request(ctx, "slow", []byte("?"))
		done <- err
	}()
	p.until("in hand")
	killed := time.Now()
	p.kill()
	err := <-done
	t.Logf("told %v after the kill", time.Since(killed))
	if !errors.Is(err, node.ErrProviderGone) {
		t.Fatalf("%v, want ErrProviderGone", err)
	}
	if _, err := n.Request(ctx, "slow", nil); !errors.Is(err, node.ErrNoProvider) {
		t.Fatalf("afterwards: %v, want ErrNoProvider", err)
	}
}

func receive(t *testing.T, s *node.Subscription, want int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	m, err := s.Receive(ctx)
	if err != nil {
		t.Fatalf("message %d: %v", want, err)
	}
	if got := int(binary.NativeEndian.Uint64(m.Bytes())); got != want {
		t.Fatalf("got message %d, want %d", got, want)
	}
	if err := m.Release(); err != nil {
		t.Fatal(err)
	}
}

func TestWhatTheDeadHaveSentIsDelivered(t *testing.T) {
	d := newDaemon(t)
	s, err := attach(t, d, "reader").Subscribe(t.Context(), "t", node.Depth(64), node.OnFull(node.Block))
	if err != nil {
		t.Fatal(err)
	}
	p := role(t, "publisher", d.socket)
	p.until("ready")
	p.kill()
	for i := range 50 {
		receive(t, s, i)
	}
}

func TestCenterKilledUnderLoad(t *testing.T) {
	d := newDaemon(t)
	n := attach(t, d, "reader")
	s, err := n.Subscribe(t.Context(), "t", node.Depth(256), node.OnFull(node.Block))
	if err != nil {
		t.Fatal(err)
	}
	p := role(t, "streamer", d.socket)
	p.until("ready")
	next := 0
	stream := func(more int) {
		t.Helper()
		fmt.Fprintln(p.in, more)
		for range more {
			receive(t, s, next)
			next++
		}
		p.until(fmt.Sprint("sent ", next))
	}
	stream(1000)
	d.kill()
	stream(1000) // there is no center: the route goes on
	fmt.Fprintln(p.in, 1000)
	d.run(t) // it comes back under load
	for range 1000 {
		receive(t, s, next)
		next++
	}
	p.until(fmt.Sprint("sent ", next))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	// Both are known again under their names, with the same sessions; and new things work.
	for {
		rows, err := n.Procs(ctx)
		if err != nil {
			t.Fatal(err)
		}
		online := 0
		for _, r := range rows {
			if (r.GetName() == "reader" || r.GetName() == "streamer") && r.GetState() == "online" && r.GetRoutes() > 0 {
				online++
			}
		}
		if online == 2 {
			break
		}
	}
	late, err := attach(t, d, "late").Subscribe(ctx, "t", node.Depth(256), node.OnFull(node.Block))
	if err != nil {
		t.Fatal(err)
	}
	from := next
	stream(200)
	for i := range 200 {
		receive(t, late, from+i)
	}
	if _, ok, err := s.TryReceive(); ok || err != nil {
		t.Fatal("a message came twice, or the subscription failed:", ok, err)
	}
}

func TestAStoppedSubscriberHoldsNobodyUp(t *testing.T) {
	d := newDaemon(t)
	p := role(t, "subscriber", d.socket)
	p.until("ready")
	pub, err := attach(t, d, "sender").Publisher(t.Context(), "t")
	if err != nil {
		t.Fatal(err)
	}
	if err := pub.Publish(t.Context(), numbered(300, 7)); err != nil {
		t.Fatal(err)
	}
	p.until("got 7")
	if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for state(t, p.cmd.Process.Pid) != "T" {
	}
	for i := range 200 { // none of them waits
		if err := pub.Publish(t.Context(), numbered(300, i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	// It may have been stopped within taking one message, which then counts as taken.
	want := 184
	for i, l := 0, ""; want < 200; i++ {
		if l = p.next(); l == fmt.Sprint("got ", want) {
			want++
		} else if i > 0 {
			t.Fatalf("%q, want message %d", l, want)
		}
	}
}
