package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/bhome-bus/bhome/cmd/internal/child"
	"github.com/bhome-bus/bhome/cmd/internal/latency"
	"github.com/bhome-bus/bhome/cmd/internal/words"
	"github.com/bhome-bus/bhome/node"
)

// wordRole is the service: it answers with the number of words in the payload, until "close".
func wordRole(ctx context.Context, s *child.Session) (err error) {
	var cfg base
	if err := s.Config(&cfg); err != nil {
		return err
	}
	n, err := cfg.attach(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, leave(n, leaveTimeout)) }()
	count := func(_ context.Context, r *node.Request) ([]byte, error) {
		return strconv.AppendInt(nil, int64(words.Count(r.Bytes())), 10), nil
	}
	if _, err := n.Serve(ctx, serviceTopic, count, node.Workers(2)); err != nil {
		return err
	}
	if err := s.Emit("ready", subReady{n.Session()}); err != nil {
		return err
	}
	return s.Await(ctx, "close", nil)
}

// loadReport is what the client of the service has seen.
type loadReport struct {
	Requests uint64
	Bytes    uint64
	Wrong    []string // the first few answers that were wrong
	Latency  *latency.Recorder
}

// loadRole asks for the words of one file after the other and checks each answer, until "finish"; leaves on "close".
func loadRole(ctx context.Context, s *child.Session) (err error) {
	var cfg base
	if err := s.Config(&cfg); err != nil {
		return err
	}
	t, err := openTree(cfg.Root)
	if err != nil {
		return err
	}
	n, err := cfg.attach(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, leave(n, leaveTimeout)) }()
	if err := n.WaitForService(ctx, serviceTopic); err != nil {
		return err
	}
	if err := s.Emit("ready", subReady{n.Session()}); err != nil {
		return err
	}
	r := loadReport{Latency: latency.New()}
	for i := uint64(0); ; i++ {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case c := <-s.Commands():
			if c.Name != "finish" {
				return fmt.Errorf("the load doesn't know how to %q", c.Name)
			}
			if err := s.Emit("report", r); err != nil {
				return err
			}
			return s.Await(ctx, "close", nil)
		default:
		}
		_, name := t.at(i)
		if err := r.ask(ctx, n, filepath.Join(t.root, name)); err != nil {
			return err
		}
	}
}

func (r *loadReport) ask(ctx context.Context, n *node.Node, file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	start := time.Now()
	reply, err := n.Request(ctx, serviceTopic, text)
	if err != nil {
		return fmt.Errorf("count the words of %s: %w", file, err)
	}
	r.Latency.Record(int64(time.Since(start)))
	got, want := string(reply.Bytes()), strconv.Itoa(words.Count(text))
	reply.Release()
	r.Requests++
	r.Bytes += uint64(len(text))
	if got != want && len(r.Wrong) < maxCorruptions {
		r.Wrong = append(r.Wrong, fmt.Sprintf("%s: %q words, really %s", file, got, want))
	}
	return nil
}
