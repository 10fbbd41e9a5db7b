// Command embed runs the center of a bus inside somebody else's actor system: a program that has actors of its own
// spawns the center next to them, asks it by message who is there, hears who comes and goes, handles a message type of
// its own, and stops and starts the center while its other actors go on.
//
//	go run ./examples/embed
//
// What it shows, and what must stay true: the center creates no actor system, sets nothing global, and leaves nothing
// behind once actors.Stop has returned.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/bhome-bus/bhome/actors"
	"github.com/bhome-bus/bhome/node"
)

func main() {
	dir, err := os.MkdirTemp("", "bhome-embed-")
	if err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		err = run(ctx, os.Stdout, filepath.Join(dir, "bus.sock"))
		cancel()
		_ = os.RemoveAll(dir) // a temporary folder: the system clears what is left
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "embed:", err)
		os.Exit(1)
	}
}

// run is the host program: an actor system with a screen, and twice a center in it.
func run(ctx context.Context, out io.Writer, socket string) (err error) {
	// The framework's own log is the host's to decide on; the center logs through its Config.Logger alone.
	quiet := slog.New(slog.DiscardHandler)
	system := actor.NewActorSystem(actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger { return quiet }))
	defer system.Shutdown()
	screen := system.Root.Spawn(actor.PropsFromProducer(func() actor.Actor { return &screen{out: out} }))
	defer func() {
		if e := system.Root.PoisonFuture(screen).Wait(); err == nil {
			err = e
		}
	}()
	for round := 1; round <= 2; round++ {
		if err := host(ctx, system, screen, socket, round); err != nil {
			return err
		}
	}
	lines, err := system.Root.RequestFuture(screen, &count{}, 5*time.Second).Result()
	if err != nil {
		return fmt.Errorf("the host's own actor doesn't answer: %w", err)
	}
	system.Root.Send(screen, line(fmt.Sprintf("the host's screen has written %d lines, and never stopped", lines)))
	return nil
}

// host spawns a center and a clerk, has a node come and go, and stops the center again.
func host(ctx context.Context, system *actor.ActorSystem, screen *actor.PID, socket string, round int) (err error) {
	say := func(format string, args ...any) { system.Root.Send(screen, line(fmt.Sprintf(format, args...))) }

	cfg := actors.DefaultConfig()
	cfg.Bus, cfg.Socket = "embedded", socket
	center, info, err := actors.Spawn(system.Root, "bus", cfg)
	if err != nil {
		return err
	}
	say("round %d: bus %q listens", round, info.Bus)

	events := make(chan any, 16)
	clerk := system.Root.Spawn(actor.PropsFromProducer(func() actor.Actor { return &clerk{center: center, screen: screen, events: events} }))
	defer func() {
		for _, stop := range []error{actors.Stop(ctx, system, center), system.Root.PoisonFuture(clerk).Wait()} {
			if err == nil {
				err = stop
			}
		}
		if err == nil {
			say("round %d: the center has stopped", round)
		}
	}()
	if _, err := next[ready](ctx, events); err != nil {
		return err
	}
	return visit(ctx, system, clerk, events, info.Socket, say)
}

// visit is a process that uses the bus; here it is this one, as any other could be.
func visit(ctx context.Context, system *actor.ActorSystem, clerk *actor.PID, events <-chan any, socket string, say func(string, ...any)) error {
	n, err := node.Attach(ctx, node.Config{Name: "camera", Bus: "embedded", Socket: socket})
	if err != nil {
		return err
	}
	closed := false
	defer func() {
		if !closed {
			_ = n.Close(ctx) // what failed before counts
		}
	}()
	if _, err := next[*actors.NodeUp](ctx, events); err != nil {
		return err
	}
	sub, err := n.Subscribe(ctx, "camera.>")
	if err != nil {
		return err
	}
	pub, err := n.Publisher(ctx, "camera.front")
	if err != nil {
		return err
	}
	frame := make([]byte, 10_000)
	if err := pub.Publish(ctx, frame); err != nil {
		return err
	}
	m, err := sub.Receive(ctx)
	if err != nil {
		return err
	}
	// The message is held while the clerk looks, so that there is one to be seen.
	system.Root.Send(clerk, &look{})
	if _, err := next[looked](ctx, events); err != nil {
		return err
	}
	if err := m.Release(); err != nil {
		return err
	}
	typ, answer, err := n.CenterRequest(ctx, typeGreeting, []byte("hello"))
	if err != nil {
		return err
	}
	say("the clerk answers with type %d: %s", typ, answer)
	closed = true
	if err := n.Close(ctx); err != nil {
		return err
	}
	_, err = next[*actors.NodeDown](ctx, events)
	return err
}

// next waits for the clerk's next event, which must be an E.
func next[E any](ctx context.Context, events <-chan any) (e E, err error) {
	select {
	case got := <-events:
		if e, ok := got.(E); ok {
			return e, nil
		}
		return e, fmt.Errorf("the clerk tells of %T, %T was to come", got, e)
	case <-ctx.Done():
		return e, fmt.Errorf("waiting for %T: %w", e, context.Cause(ctx))
	}
}
