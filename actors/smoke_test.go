package actors_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/bhome-bus/bhome/actors"
	"github.com/bhome-bus/bhome/node"
)

func TestSmoke(t *testing.T) {
	sys := actor.NewActorSystem()
	cfg := actors.DefaultConfig()
	cfg.Socket = filepath.Join(t.TempDir(), "s.sock")
	cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	pid, info, err := actors.Spawn(sys.Root, "center", cfg)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println(info)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	a, err := node.Attach(ctx, node.Config{Name: "a", Socket: info.Socket})
	if err != nil {
		t.Fatal(err)
	}
	b, err := node.Attach(ctx, node.Config{Name: "b", Socket: info.Socket})
	if err != nil {
		t.Fatal(err)
	}
	pub, err := a.Publisher(ctx, "x.y")
	if err != nil {
		t.Fatal(err)
	}
	sub, err := b.Subscribe(ctx, "x.>")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		if err := pub.Publish(ctx, []byte(fmt.Sprint("hello ", i))); err != nil {
			t.Fatal(err)
		}
		big := make([]byte, 5000)
		big[4999] = byte(i)
		if err := pub.Publish(ctx, big); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 10 {
		m, err := sub.Receive(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if string(m.Bytes()) != fmt.Sprint("hello ", i) || m.Topic() != "x.y" {
			t.Fatalf("%q %q", m.Bytes(), m.Topic())
		}
		m.Release()
		m, err = sub.Receive(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if len(m.Bytes()) != 5000 || m.Bytes()[4999] != byte(i) {
			t.Fatal(len(m.Bytes()))
		}
		if err := m.Release(); err != nil {
			t.Fatal(err)
		}
		if err := m.Release(); err == nil {
			t.Fatal("double release")
		}
	}
	svc, err := a.Serve(ctx, "math.add", func(ctx context.Context, r *node.Request) ([]byte, error) {
		return append([]byte("re:"), r.Bytes()...), nil
	}, node.Workers(2))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		r, err := b.Request(ctx, "math.add", []byte(fmt.Sprint(i)))
		if err != nil {
			t.Fatal(err)
		}
		if string(r.Bytes()) != fmt.Sprint("re:", i) {
			t.Fatal(string(r.Bytes()))
		}
		r.Release()
	}
	procs, err := b.Procs(ctx)
	fmt.Println(procs, err)
	msgs, tot, err := b.Msgs(ctx)
	fmt.Println(len(msgs), tot, err)
	topics, err := b.Topics(ctx)
	fmt.Println(topics, err)
	fmt.Println(svc.Close(ctx), a.Close(ctx), b.Close(ctx))
	if err := actors.Stop(ctx, sys, pid); err != nil {
		t.Fatal(err)
	}
}
