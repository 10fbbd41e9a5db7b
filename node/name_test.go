package node_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bhome-bus/bhome/node"
)

func TestANameIsOneNodes(t *testing.T) {
	b := newBus(t)
	first := b.attach("cam")
	s := b.subscribe(first, "t")
	pub := b.publisher(b.attach("pub"), "t")
	for range 3 {
		var in *node.NameInUseError
		n, err := node.Attach(b.ctx, node.Config{Name: "cam", Socket: b.socket})
		if !errors.Is(err, node.ErrNameInUse) || !errors.As(err, &in) || n != nil {
			t.Fatalf("%v, want ErrNameInUse", err)
		}
		if in.Name != "cam" || int(in.PID) != os.Getpid() || int(in.UID) != os.Getuid() {
			t.Fatalf("%+v", in)
		}
	}
	b.sendNumbers(pub, 0, 10) // the refused ones took nothing from it
	b.wantNumbers(s, 0, 10)
	for range 5 {
		if err := first.Close(b.ctx); err != nil {
			t.Fatal(err)
		}
		if first.State() != node.StateClosed || !errors.Is(first.Err(), node.ErrClosed) {
			t.Fatalf("%v, %v", first.State(), first.Err())
		}
		first = b.attach("cam") // free again once Close has returned
		s = b.subscribe(first, "t")
		b.sendNumbers(pub, 10, 14)
		b.wantNumbers(s, 10, 14)
	}
}

func TestTakeover(t *testing.T) {
	b := newBus(t)
	pub := b.publisher(b.attach("pub"), "t")
	takeover := func(c *node.Config) { c.Takeover = true }
	old := b.attach("cam", takeover) // of nobody
	s := b.subscribe(old, "t")
	p := b.publisher(old, "u")
	patient := b.publisher(b.attach("patient"), "v", node.AllowBlock(time.Hour))
	for range 3 {
		b.subscribe(old, "v", node.Depth(2), node.OnFull(node.Block))
		b.sendNumbers(patient, 0, 2)
		b.sendNumbers(pub, 0, 4)
		b.wantNumbers(s, 0, 1)
		held := b.receive(s)
		done := make(chan error)
		go func() {
			for {
				m, err := s.Receive(b.ctx)
				if err != nil {
					done <- err
					return
				}
				m.Release()
			}
		}()
		n := b.attach("cam", takeover)
		select {
		case <-old.Done():
		case <-b.ctx.Done():
			t.Fatal("the displaced node doesn't hear of it")
		}
		if err := old.Err(); !errors.Is(err, node.ErrDisplaced) || old.State() != node.StateDisplaced {
			t.Fatalf("%v, %v", old.State(), err)
		}
		if err := <-done; !errors.Is(err, node.ErrDisplaced) || !errors.Is(s.Err(), node.ErrDisplaced) {
			t.Fatalf("Receive: %v; Err: %v", err, s.Err())
		}
		if _, err := old.Subscribe(b.ctx, "x"); !errors.Is(err, node.ErrDisplaced) {
			t.Fatalf("Subscribe: %v", err)
		}
		if _, err := old.Request(b.ctx, "x", nil); !errors.Is(err, node.ErrDisplaced) {
			t.Fatalf("Request: %v", err)
		}
		if err := p.Publish(b.ctx, numbered(8, 1)); !errors.Is(err, node.ErrDisplaced) {
			t.Fatalf("Publish: %v", err)
		}
		b.sendNumbers(patient, 2, 10) // nobody waits for the displaced,
		b.sendNumbers(pub, 4, 100)    // and what it holds stays
		if number(held) != 1 {
			t.Fatalf("a held message is %d now, was 1", number(held))
		}
		if err := held.Release(); err != nil {
			t.Fatal(err)
		}
		old, s, p = n, b.subscribe(n, "t"), b.publisher(n, "u")
	}
}

// The error names each place that was looked at, and what to do.
func TestNoDaemon(t *testing.T) {
	dir := t.TempDir()
	stale := filepath.Join(dir, "stale.sock")
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: stale, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	t.Setenv("BHOME_SOCKET", stale)
	t.Setenv("XDG_RUNTIME_DIR", dir)
	for _, c := range []struct {
		cfg   node.Config
		tried []string
	}{
		{node.Config{Name: "n", Bus: "no-such-bus"}, []string{stale + " (nobody listens)", filepath.Join(dir, "bhome/no-such-bus.sock") + " (no such file)", "/run/bhome/no-such-bus.sock (no such file)"}},
		{node.Config{Name: "n", Socket: filepath.Join(dir, "x")}, []string{filepath.Join(dir, "x") + " (no such file)"}},
	} {
		_, err := node.Attach(context.Background(), c.cfg)
		if !errors.Is(err, node.ErrNoDaemon) {
			t.Fatalf("%v, want ErrNoDaemon", err)
		}
		for _, part := range append(c.tried, "bhomed") {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%q doesn't say %q", err, part)
			}
		}
		if got := strings.Count(err.Error(), " ("); got != len(c.tried) {
			t.Errorf("%q names %d places, want %d", err, got, len(c.tried))
		}
	}
}

// A center that goes while a process attaches is an error that can be tested for, to try again.
func TestTheCenterGoesWhileAttaching(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bus.sock")
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	if _, err := node.Attach(t.Context(), node.Config{Name: "n", Socket: path}); !errors.Is(err, node.ErrDisconnected) {
		t.Errorf("got %v, want ErrDisconnected", err)
	}
}
