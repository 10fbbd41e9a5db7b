package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/bhome-bus/bhome/cmd/internal/child"
	"github.com/bhome-bus/bhome/cmd/internal/latency"
)

// Launcher starts a child in the named role with a configuration.
type Launcher func(role string, config any) (*child.Process, error)

// group is the children of a run.
type group struct {
	launch Launcher
	all    []*child.Process
}

func (g *group) start(role string, config any) (*child.Process, error) {
	p, err := g.launch(role, config)
	if err == nil {
		g.all = append(g.all, p)
	}
	return p, err
}

// end kills what is still there.
func (g *group) end() {
	for _, p := range g.all {
		p.Kill()
	}
}

// leave tells everybody to close and waits for it.
func (g *group) leave(ctx context.Context) error {
	var errs []error
	for _, p := range g.all {
		errs = append(errs, p.Send("close", nil))
	}
	for _, p := range g.all {
		errs = append(errs, p.Wait(ctx))
	}
	return errors.Join(errs...)
}

func tell(ps []*child.Process, command string) error {
	for _, p := range ps {
		if err := p.Send(command, nil); err != nil {
			return err
		}
	}
	return nil
}

func await(ctx context.Context, ps []*child.Process, event string) error {
	for _, p := range ps {
		if err := p.Await(ctx, event, nil); err != nil {
			return err
		}
	}
	return nil
}

// PubSub measures cfg.Pubs publishers to cfg.Subs subscribers.
func PubSub(ctx context.Context, cfg Config, launch Launcher) (res Result, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, cfg.Timeout, fmt.Errorf("not done after %v", cfg.Timeout))
	defer cancel()
	g := &group{launch: launch}
	defer g.end()
	var subs, pubs []*child.Process
	for range cfg.Subs {
		p, err := g.start("bench-sub", cfg)
		if err != nil {
			return res, err
		}
		subs = append(subs, p)
	}
	if err := await(ctx, subs, "ready"); err != nil {
		return res, err
	}
	for i := range cfg.Pubs {
		p, err := g.start("bench-pub", pubConfig{cfg, i})
		if err != nil {
			return res, err
		}
		pubs = append(pubs, p)
	}
	if err := await(ctx, pubs, "ready"); err != nil {
		return res, err
	}
	if err := tell(pubs, "go"); err != nil {
		return res, err
	}
	res = cfg.result("pubsub")
	first, last := int64(math.MaxInt64), int64(0)
	for _, p := range pubs {
		var r pubResult
		if err := p.Await(ctx, "result", &r); err != nil {
			return res, err
		}
		res.Sent += r.Sent
		first, last = min(first, r.StartNs), max(last, r.EndNs)
	}
	if err := tell(subs, "drain"); err != nil {
		return res, err
	}
	total := latency.New()
	for _, p := range subs {
		r := subResult{Latency: latency.New()}
		if err := p.Await(ctx, "result", &r); err != nil {
			return res, err
		}
		res.Received += r.Received
		res.Disordered += r.Disordered
		last = max(last, r.LastNs)
		total.Merge(r.Latency)
	}
	if all := res.Sent * uint64(cfg.Subs); all > res.Received {
		res.Lost = all - res.Received
	}
	res.finish(res.Sent, time.Duration(last-first), total)
	return res, g.leave(ctx)
}

// Request measures cfg.Pubs clients of one service.
func Request(ctx context.Context, cfg Config, launch Launcher) (res Result, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, cfg.Timeout, fmt.Errorf("not done after %v", cfg.Timeout))
	defer cancel()
	g := &group{launch: launch}
	defer g.end()
	server, err := g.start("bench-serve", cfg)
	if err != nil {
		return res, err
	}
	if err := server.Await(ctx, "ready", nil); err != nil {
		return res, err
	}
	var clients []*child.Process
	for i := range cfg.Pubs {
		share := cfg.Count / cfg.Pubs
		if i < cfg.Count%cfg.Pubs {
			share++
		}
		p, err := g.start("bench-client", clientConfig{cfg, share})
		if err != nil {
			return res, err
		}
		clients = append(clients, p)
	}
	if err := await(ctx, clients, "ready"); err != nil {
		return res, err
	}
	if err := tell(clients, "go"); err != nil {
		return res, err
	}
	res = cfg.result("request")
	first, last := int64(math.MaxInt64), int64(0)
	total := latency.New()
	for _, p := range clients {
		r := clientResult{Latency: latency.New()}
		if err := p.Await(ctx, "result", &r); err != nil {
			return res, err
		}
		res.Received += r.Answered
		res.Disordered += r.Wrong
		first, last = min(first, r.StartNs), max(last, r.EndNs)
		total.Merge(r.Latency)
	}
	res.Sent = uint64(cfg.Count)
	res.Lost = res.Sent - min(res.Received, res.Sent)
	res.finish(res.Received, time.Duration(last-first), total)
	return res, g.leave(ctx)
}

func (c Config) result(name string) Result {
	r := Result{Bench: name, Size: c.Size, Count: c.Count, Pubs: c.Pubs, Subs: c.Subs, Wait: c.Wait.String(), Batch: c.Batch}
	if name == "request" {
		r.Subs, r.Batch, r.Concurrency = 1, 0, c.Concurrency
	}
	return r
}

func (r *Result) finish(messages uint64, took time.Duration, l *latency.Recorder) {
	r.Seconds = took.Seconds()
	if r.Seconds > 0 {
		r.MsgsPerSec = float64(messages) / r.Seconds
		r.BytesPerSec = r.MsgsPerSec * float64(r.Size)
	}
	r.Percentiles, r.Samples = l.Percentiles(), l.Count()
}
