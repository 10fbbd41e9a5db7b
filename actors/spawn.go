package actors

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/bhome-bus/bhome/shmio"
)

// Info is what Spawn tells of the center it started.
type Info struct {
	Bus    string
	Socket string
}

// Spawn starts a center as a child of parent, or of the root context. When it returns the socket listens. Errors:
// shmio.ErrBusInUse (another center has the bus; the text says which process), shmio.ErrUnsupported, and what the
// socket's folder refuses. End it with Stop.
func Spawn(parent actor.SpawnerContext, name string, cfg Config) (*actor.PID, Info, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if err := cfg.Validate(); err != nil {
		return nil, Info{}, err
	}
	if err := shmio.Probe(); err != nil {
		return nil, Info{}, fmt.Errorf("start the center: %w", err)
	}
	l, err := listen(cfg)
	if err != nil {
		return nil, Info{}, fmt.Errorf("start the center of bus %q: %w", cfg.Bus, err)
	}
	c := &center{cfg: cfg, log: cfg.Logger, listener: l}
	if err := c.open(); err != nil {
		return nil, Info{}, errors.Join(fmt.Errorf("start the center of bus %q: %w", cfg.Bus, err), l.Close())
	}
	pid, err := parent.SpawnNamed(c.props(), name)
	if err != nil {
		c.closeAll()
		return nil, Info{}, fmt.Errorf("start the center of bus %q: %w", cfg.Bus, err)
	}
	return pid, Info{Bus: cfg.Bus, Socket: l.Path()}, nil
}

// Props are for those who spawn by themselves. The center of these props can be spawned once; its actor fails if it
// can't listen.
func Props(cfg Config) *actor.Props {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	c := &center{cfg: cfg, log: cfg.Logger}
	return c.props()
}

// Stop ends a center and waits until all that it held is gone: actors, goroutines, descriptors, mappings.
func Stop(ctx context.Context, system *actor.ActorSystem, pid *actor.PID) error {
	done := make(chan error, 1)
	go func() { done <- system.Root.PoisonFuture(pid).Wait() }()
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("stop the center: %w", err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop the center: %w", context.Cause(ctx))
	}
}

// listen binds the configured socket, or the first candidate that can be.
func listen(cfg Config) (*shmio.Listener, error) {
	paths := []string{cfg.Socket}
	if cfg.Socket == "" {
		paths = shmio.SocketCandidates(cfg.Bus)
	}
	var errs []error
	for _, p := range paths {
		l, err := shmio.Listen(p, cfg.SocketMode)
		if err == nil {
			return l, nil
		}
		errs = append(errs, err)
		if errors.Is(err, shmio.ErrBusInUse) {
			break
		}
	}
	return nil, errors.Join(errs...)
}
