package node_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/bhome-bus/bhome/actors"
	"github.com/bhome-bus/bhome/node"
)

// bus is a center in this process.
type bus struct {
	t      testing.TB
	ctx    context.Context
	system *actor.ActorSystem
	pid    *actor.PID
	socket string
}

func newBus(t testing.TB, change ...func(*actors.Config)) *bus {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	b := &bus{t: t, ctx: ctx}
	b.system = actor.NewActorSystem(actor.WithDeadLetterThrottleInterval(time.Millisecond), actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger { return slog.New(slog.DiscardHandler) }))
	cfg := actors.DefaultConfig()
	cfg.Socket = filepath.Join(t.TempDir(), "bus.sock")
	for _, f := range change {
		f(&cfg)
	}
	pid, info, err := actors.Spawn(b.system.Root, "center", cfg)
	if err != nil {
		t.Fatal(err)
	}
	b.pid, b.socket = pid, info.Socket
	t.Cleanup(func() {
		if err := actors.Stop(context.Background(), b.system, pid); err != nil {
			t.Error(err)
		}
		b.system.Shutdown()
		cancel()
	})
	return b
}

// attach joins the bus and leaves it at the end of the test.
func (b *bus) attach(name string, change ...func(*node.Config)) *node.Node {
	b.t.Helper()
	cfg := node.Config{Name: name, Socket: b.socket}
	for _, f := range change {
		f(&cfg)
	}
	n, err := node.Attach(b.ctx, cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := n.Close(ctx); err != nil {
			b.t.Errorf("close %q: %v", name, err)
		}
	})
	return n
}

func (b *bus) publisher(n *node.Node, topic string, opts ...node.PubOption) *node.Publisher {
	b.t.Helper()
	p, err := n.Publisher(b.ctx, topic, opts...)
	if err != nil {
		b.t.Fatal(err)
	}
	return p
}

func (b *bus) subscribe(n *node.Node, pattern string, opts ...node.SubOption) *node.Subscription {
	b.t.Helper()
	s, err := n.Subscribe(b.ctx, pattern, opts...)
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

func (b *bus) receive(s *node.Subscription) node.Message {
	b.t.Helper()
	m, err := s.Receive(b.ctx)
	if err != nil {
		b.t.Fatal(err)
	}
	return m
}
