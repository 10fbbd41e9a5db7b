package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/bhome-bus/bhome/cmd/internal/child"
	"github.com/bhome-bus/bhome/cmd/internal/latency"
	"github.com/bhome-bus/bhome/node"
)

// clientConfig is a client's configuration: its share of the requests.
type clientConfig struct {
	Config
	Share int
}

type clientResult struct {
	Answered uint64
	Wrong    uint64 // replies that weren't the request's payload
	StartNs  int64
	EndNs    int64
	Latency  *latency.Recorder
}

// warmUp is how many requests of each client aren't measured: they open routes and fill magazines.
const warmUp = 200

// serveRole serves an echo until it is told to close.
func serveRole(ctx context.Context, s *child.Session) (err error) {
	var cfg Config
	if err := s.Config(&cfg); err != nil {
		return err
	}
	n, err := cfg.attach(ctx, "bench-serve")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, leave(n)) }()
	echo := func(_ context.Context, r *node.Request) ([]byte, error) { return r.Bytes(), nil }
	workers := min(cfg.Concurrency*cfg.Pubs, 64)
	if _, err := n.Serve(ctx, cfg.Topic, echo, node.Workers(workers), node.ServeDepth(max(64, cfg.Concurrency)), node.ServeWait(cfg.Wait)); err != nil {
		return err
	}
	if err := s.Emit("ready", nil); err != nil {
		return err
	}
	return s.Await(ctx, "close", nil)
}

// clientRole: ready once there is a service and it is warm; on "go" asks, reports, and leaves on "close".
func clientRole(ctx context.Context, s *child.Session) (err error) {
	var cfg clientConfig
	if err := s.Config(&cfg); err != nil {
		return err
	}
	n, err := cfg.attach(ctx, "bench-client")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, leave(n)) }()
	if err := n.WaitForService(ctx, cfg.Topic); err != nil {
		return err
	}
	if _, err := cfg.ask(ctx, n, min(warmUp, cfg.Share)); err != nil {
		return err
	}
	if err := s.Emit("ready", nil); err != nil {
		return err
	}
	if err := s.Await(ctx, "go", nil); err != nil {
		return err
	}
	r := clientResult{Latency: latency.New(), StartNs: time.Now().UnixNano()}
	parts := make([]clientResult, cfg.Concurrency)
	errs := make([]error, cfg.Concurrency)
	var wg sync.WaitGroup
	for i := range parts {
		share := cfg.Share / cfg.Concurrency
		if i < cfg.Share%cfg.Concurrency {
			share++
		}
		wg.Go(func() { parts[i], errs[i] = cfg.ask(ctx, n, share) })
	}
	wg.Wait()
	r.EndNs = time.Now().UnixNano()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for _, p := range parts {
		r.Answered += p.Answered
		r.Wrong += p.Wrong
		r.Latency.Merge(p.Latency)
	}
	if err := s.Emit("result", r); err != nil {
		return err
	}
	return s.Await(ctx, "close", nil)
}

// ask sends count requests one after another.
func (cfg clientConfig) ask(ctx context.Context, n *node.Node, count int) (clientResult, error) {
	r := clientResult{Latency: latency.New()}
	payload := make([]byte, cfg.Size)
	pace := newPacer(cfg.Rate)
	for i := range count {
		start := time.Now()
		putHead(payload, 0, uint64(i+1), start.UnixNano())
		reply, err := n.Request(ctx, cfg.Topic, payload)
		if err != nil {
			return r, fmt.Errorf("request %d: %w", i+1, err)
		}
		if !bytes.Equal(reply.Bytes(), payload) {
			r.Wrong++
		}
		reply.Release()
		r.Latency.Record(int64(time.Since(start)))
		r.Answered++
		pace.wait(1)
	}
	return r, nil
}
