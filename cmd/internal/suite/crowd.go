package suite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/bhome-bus/bhome/cmd/internal/bench"
	"github.com/bhome-bus/bhome/cmd/internal/child"
	"github.com/bhome-bus/bhome/cmd/internal/procfs"
	"github.com/bhome-bus/bhome/node"
)

// CrowdConfig says how many processes there are. Daemon is the pid of the bus's bhomed.
type CrowdConfig struct {
	Socket  string
	Daemon  int
	Nodes   int           // idle processes that attach
	Writers []int         // of the seed's speed test, each with two readers
	Depths  []int         // of their queues
	Total   int           // messages of one speed test
	Watch   time.Duration // how long idle processes are watched
}

// Crowd measures what many processes cost: attaching, being idle, and the seed's own speed test.
func Crowd(ctx context.Context, cfg CrowdConfig, launch Launcher, out io.Writer) error {
	if err := idle(ctx, cfg, launch, out); err != nil {
		return err
	}
	for _, depth := range cfg.Depths {
		if err := speed(ctx, cfg, depth, launch, out); err != nil {
			return err
		}
	}
	return nil
}

// speed is the seed's own speed test, with queues of that depth.
func speed(ctx context.Context, cfg CrowdConfig, depth int, launch Launcher, out io.Writer) error {
	ten := 0.0 // messages/s of ten writers
	for _, writers := range cfg.Writers {
		b := bench.Config{Socket: cfg.Socket, Topic: "suite.speed", Size: 64, Count: cfg.Total / writers, Pubs: writers, Subs: 2, Concurrency: 1,
			Depth: depth, Policy: node.Block, Timeout: 2 * time.Minute}
		if err := b.Normalize(); err != nil {
			return err
		}
		r, err := bench.PubSub(ctx, b, bench.Launcher(launch))
		if err != nil {
			return fmt.Errorf("speed test with %d writers: %w", writers, err)
		}
		ratio := ""
		if ten > 0 {
			ratio = fmt.Sprintf(", %.2f of what 10 writers make", r.MsgsPerSec/ten)
		}
		if writers == 10 {
			ten = r.MsgsPerSec
		}
		fmt.Fprintf(out, "speed test, depth %d: %4d writers × 2 readers, %d messages: %.0f messages/s%s, received %d, lost %d\n", depth, writers, r.Sent, r.MsgsPerSec, ratio, r.Received, r.Lost)
	}
	return nil
}

// idleConfig goes to an idle process; Attach false: it is what a bare Go process is like.
type idleConfig struct {
	Socket string
	Attach bool
}

// idleRole attaches when told and then does nothing.
func idleRole(ctx context.Context, s *child.Session) error {
	var cfg idleConfig
	if err := s.Config(&cfg); err != nil {
		return err
	}
	if err := s.Emit("started", os.Getpid()); err != nil {
		return err
	}
	if err := s.Await(ctx, "go", nil); err != nil {
		return err
	}
	var n *node.Node
	if cfg.Attach {
		var err error
		if n, err = node.Attach(ctx, node.Config{Name: "suite-idle", Pooled: true, Socket: cfg.Socket, AttachTimeout: time.Minute}); err != nil {
			return err
		}
	}
	if err := s.Emit("attached", nil); err != nil {
		return err
	}
	if err := s.Await(ctx, "close", nil); err != nil {
		return err
	}
	if n != nil {
		return n.Close(ctx)
	}
	return nil
}

func idle(ctx context.Context, cfg CrowdConfig, launch Launcher, out io.Writer) error {
	var ps []*child.Process
	defer func() {
		for _, p := range ps {
			p.Kill()
		}
	}()
	pids := make([]int, cfg.Nodes+1)
	for i := range pids { // the last doesn't attach
		p, err := launch("suite-idle", idleConfig{Socket: cfg.Socket, Attach: i < cfg.Nodes})
		if err != nil {
			return err
		}
		ps = append(ps, p)
		if err := p.Await(ctx, "started", &pids[i]); err != nil {
			return err
		}
	}
	rss0, share0 := rss(cfg.Daemon), procfs.Share(cfg.Daemon)
	begin := time.Now()
	for _, p := range ps {
		if err := p.Send("go", nil); err != nil {
			return err
		}
	}
	for _, p := range ps {
		if err := p.Await(ctx, "attached", nil); err != nil {
			return err
		}
	}
	fmt.Fprintf(out, "attach: %d node processes in %.2f s\n", cfg.Nodes, time.Since(begin).Seconds())
	<-time.After(2 * time.Second) // what attaching leaves to do
	fmt.Fprintf(out, "memory: the center %.0f KiB per node, %.0f where what it shares with the node counts by half; a node %.0f KiB more than a bare Go process (%.0f KiB)\n",
		float64(rss(cfg.Daemon)-rss0)/1024/float64(cfg.Nodes), float64(procfs.Share(cfg.Daemon)-share0)/1024/float64(cfg.Nodes), float64(rss(pids[0])-rss(pids[cfg.Nodes]))/1024, float64(rss(pids[cfg.Nodes]))/1024)
	center, one, bare := cpu(cfg.Daemon), cpu(pids[0]), cpu(pids[cfg.Nodes])
	<-time.After(cfg.Watch)
	fmt.Fprintf(out, "idle for %v: the center with %d nodes used %.2f %% of a core, a node %.2f %%, a bare Go process %.2f %%\n", cfg.Watch, cfg.Nodes,
		percent(cpu(cfg.Daemon)-center, cfg.Watch), percent(cpu(pids[0])-one, cfg.Watch), percent(cpu(pids[cfg.Nodes])-bare, cfg.Watch))
	var errs []error
	for _, p := range ps {
		errs = append(errs, p.Send("close", nil))
	}
	for _, p := range ps {
		errs = append(errs, p.Wait(ctx))
	}
	return errors.Join(errs...)
}

func percent(used, of time.Duration) float64 { return used.Seconds() / of.Seconds() * 100 }

func cpu(pid int) time.Duration { return procfs.Of(pid).CPU }

func rss(pid int) int64 { return procfs.Of(pid).RSS }
