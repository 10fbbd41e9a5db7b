package suite

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/bhome-bus/bhome/cmd/internal/bench"
	"github.com/bhome-bus/bhome/cmd/internal/child"
	"github.com/bhome-bus/bhome/cmd/internal/latency"
)

// transport is one process's side of a pair: what it sends goes to the other.
type transport interface {
	where() string // for the other side to find us
	join(ctx context.Context, peer string) error
	send(ctx context.Context, payload []byte) error
	flush(ctx context.Context) error // what send may have kept
	recv(ctx context.Context, read func([]byte)) error
	close(ctx context.Context) error
}

func open(ctx context.Context, cfg pairConfig, side string) (transport, error) {
	switch cfg.Kind {
	case "bare":
		return openBare(cfg)
	case "unix":
		return openUnix(cfg, side)
	case "bhome batch":
		return openBhomeBatch(ctx, cfg, side)
	default:
		return openBhome(ctx, cfg, side)
	}
}

// Roles are the children of a measurement.
func Roles() map[string]child.Role {
	return map[string]child.Role{"suite-a": roleA, "suite-b": roleB, "suite-idle": idleRole}
}

// roleA sends, and measures.
func roleA(ctx context.Context, s *child.Session) (err error) {
	var cfg pairConfig
	if err := s.Config(&cfg); err != nil {
		return err
	}
	t, err := open(ctx, cfg, "a")
	if err != nil {
		return err
	}
	if err := t.join(ctx, cfg.Peer); err != nil {
		return err
	}
	if err := s.Emit("ready", t.where()); err != nil {
		return err
	}
	if err := s.Await(ctx, "go", nil); err != nil {
		return err
	}
	payload := make([]byte, cfg.Size)
	var sum uint64
	read := func(b []byte) { sum += bench.Touch(b) }
	res := result{Latency: latency.New()}
	var before, after runtime.MemStats
	trip := func() error {
		if err := t.send(ctx, payload); err != nil {
			return err
		}
		return t.recv(ctx, read)
	}
	if !cfg.OneWay {
		for warm := time.Now(); time.Since(warm) < cfg.Each/10; {
			if err := trip(); err != nil {
				return err
			}
		}
	}
	runtime.ReadMemStats(&before)
	begin := time.Now()
	res.StartNs = begin.UnixNano()
	if cfg.OneWay {
		for ; res.Count&63 != 0 || time.Since(begin) < cfg.Each; res.Count++ {
			if err := t.send(ctx, payload); err != nil {
				return err
			}
		}
	} else {
		for now := begin; now.Sub(begin) < cfg.Each; res.Count++ {
			if err := trip(); err != nil {
				return err
			}
			end := time.Now()
			res.Latency.Record(int64(end.Sub(now)))
			now = end
		}
	}
	payload[0] = lastMessage
	if err := errors.Join(t.send(ctx, payload), t.flush(ctx)); err != nil {
		return err
	}
	res.Count++
	runtime.ReadMemStats(&after)
	res.Allocs = float64(after.Mallocs-before.Mallocs) / float64(res.Count)
	if err := s.Emit("result", res); err != nil {
		return err
	}
	return finish(ctx, s, t)
}

// roleB receives, and sends back unless it is one way.
func roleB(ctx context.Context, s *child.Session) (err error) {
	var cfg pairConfig
	if err := s.Config(&cfg); err != nil {
		return err
	}
	t, err := open(ctx, cfg, "b")
	if err != nil {
		return err
	}
	if err := s.Emit("ready", t.where()); err != nil {
		return err
	}
	var peer string
	if err := s.Await(ctx, "peer", &peer); err != nil {
		return err
	}
	if err := t.join(ctx, peer); err != nil {
		return err
	}
	if err := s.Emit("joined", nil); err != nil {
		return err
	}
	payload := make([]byte, cfg.Size)
	var sum uint64
	over := false
	read := func(b []byte) { over = b[0] == lastMessage; sum += bench.Touch(b) }
	count := 0
	for {
		if err := t.recv(ctx, read); err != nil {
			return fmt.Errorf("message %d: %w", count, err)
		}
		count++
		if over {
			break
		}
		if cfg.OneWay {
			continue
		}
		if err := t.send(ctx, payload); err != nil {
			return err
		}
	}
	if err := s.Emit("result", result{Latency: latency.New(), Count: count, EndNs: time.Now().UnixNano()}); err != nil {
		return err
	}
	return finish(ctx, s, t)
}

// lastMessage, as the first byte, ends a measurement.
const lastMessage = 1

func finish(ctx context.Context, s *child.Session, t transport) error {
	if err := s.Await(ctx, "close", nil); err != nil {
		return err
	}
	return t.close(ctx)
}
