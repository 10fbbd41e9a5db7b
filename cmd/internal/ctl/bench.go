package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"time"

	"github.com/spf13/cobra"

	"github.com/bhome-bus/bhome/cmd/internal/bench"
	"github.com/bhome-bus/bhome/cmd/internal/burst"
	"github.com/bhome-bus/bhome/cmd/internal/child"
	"github.com/bhome-bus/bhome/cmd/internal/deaths"
	"github.com/bhome-bus/bhome/cmd/internal/demo"
	"github.com/bhome-bus/bhome/cmd/internal/exitcode"
	"github.com/bhome-bus/bhome/cmd/internal/hostile"
	"github.com/bhome-bus/bhome/cmd/internal/private"
	"github.com/bhome-bus/bhome/cmd/internal/soak"
	"github.com/bhome-bus/bhome/cmd/internal/suite"
	"github.com/bhome-bus/bhome/cmd/internal/units"
	"github.com/bhome-bus/bhome/node"
)

// benchOptions are the flags of bench.
type benchOptions struct {
	cfg     bench.Config
	size    units.Bytes
	wait    waitFlag
	policy  policyFlag
	timeout units.Duration
	asJSON  bool
	private bool
}

func (a *app) benchCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure the bus across real processes",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return exitcode.Usagef("bench what? pubsub, request, suite, grow, deaths, hostile or burst")
		},
	}
	cmd.AddCommand(
		a.benchOne("pubsub", "Measure publishing", `Measure --pubs publishers of --count messages each to --subs subscribers, all of them processes. The receivers read
a word of every cache line of each message, and check its number. Status 4: messages were lost.`, 1_000_000, bench.PubSub),
		a.benchOne("request", "Measure requests", `Measure --pubs clients that send --count requests together to one echo service and wait for each reply.`,
			100_000, bench.Request),
		a.suiteCmd(),
		a.growCmd(),
		a.deathsCmd(),
		a.hostileCmd(),
		a.burstCmd(),
	)
	return cmd
}

type benchRun func(context.Context, bench.Config, bench.Launcher) (bench.Result, error)

func (a *app) benchOne(name, short, long string, count int, run benchRun) *cobra.Command {
	o := benchOptions{size: 64, timeout: units.Duration(5 * time.Minute), policy: policyFlag{node.Block}}
	cmd := &cobra.Command{
		Use: name, Short: short, Long: long, Args: cobra.NoArgs,
		RunE: runE(func(ctx context.Context, _ []string) error {
			o.cfg.Size, o.cfg.Wait, o.cfg.Policy, o.cfg.Timeout = int(o.size), o.wait.WaitStrategy, o.policy.Policy, time.Duration(o.timeout)
			o.cfg.Topic = "bench." + name
			if err := o.cfg.Normalize(); err != nil {
				return exitcode.With(exitcode.Usage, err)
			}
			return a.bench(ctx, o, run)
		}),
	}
	f := cmd.Flags()
	f.Var(&o.size, "size", "bytes of a message, at least 16")
	f.IntVar(&o.cfg.Count, "count", count, "messages of each publisher, or requests of all clients together")
	f.IntVar(&o.cfg.Pubs, "pubs", 1, "publishers, or clients")
	f.IntVar(&o.cfg.Subs, "subs", 1, "subscribers")
	f.Var(&o.wait, "wait", "how receivers wait: adaptive, park or spin")
	f.IntVar(&o.cfg.Rate, "rate", 0, "messages/s of each publisher or client; 0: as fast as it goes")
	f.Var(&o.timeout, "deadline", "give up after this time")
	f.BoolVar(&o.asJSON, "json", false, "the result as JSON: msgs_per_sec, percentiles_ns and more")
	f.BoolVar(&o.private, "private", false, "start a bhomed for this run instead of using the bus")
	f.IntVar(&o.cfg.Batch, "batch", 0, "messages published at a time; 0: 64 if they are small, else 1")
	f.IntVar(&o.cfg.Depth, "depth", 4096, "messages of each publisher that may wait at a subscriber")
	f.Var(&o.policy, "on-full", "what then: block, drop-oldest or drop-newest")
	f.IntVar(&o.cfg.Concurrency, "concurrency", 1, "requests each client has under way")
	unused := []string{"concurrency"}
	if name == "request" {
		unused = []string{"batch", "depth", "on-full", "subs"}
	}
	for _, flag := range unused {
		_ = f.MarkHidden(flag)
	}
	return cmd
}

func (a *app) bench(ctx context.Context, o benchOptions, run benchRun) (err error) {
	o.cfg.Bus, o.cfg.Socket = a.bus, a.socket
	if o.private {
		bus, err := private.Start(ctx, a.Executable, "bench", "--log-level", "warn")
		if err != nil {
			return err
		}
		o.cfg.Bus, o.cfg.Socket = bus.Name, bus.Socket
		defer func() { err = errors.Join(err, bus.Close()) }()
	} else { // the children's message would come without the exit status
		n, err := a.inspect(ctx)
		if err != nil {
			return err
		}
		if err := detach(n, nil); err != nil {
			return err
		}
	}
	r, err := run(ctx, o.cfg, a.launch)
	if err != nil {
		return err
	}
	if o.asJSON {
		err = writeJSON(a.Stdout, r)
	} else {
		err = printBench(a.Stdout, r)
	}
	if err == nil && (r.Lost > 0 || r.Disordered > 0) {
		err = exitcode.Degradedf("%d of %d messages were lost, %d came out of order or wrong", r.Lost, r.Sent*uint64(r.Subs), r.Disordered)
	}
	return err
}

func printBench(w io.Writer, r bench.Result) error {
	_, err := fmt.Fprintf(w, `%s: %d × %s, %d → %d processes, waiting %s
  %s messages/s, %s/s, in %.3f s
  %v (%s timed)
  sent %s, received %s, lost %s
`, r.Bench, r.Count, units.HumanBytes(uint64(r.Size)), r.Pubs, r.Subs, r.Wait, units.HumanCount(uint64(r.MsgsPerSec)),
		units.HumanBytes(uint64(r.BytesPerSec)), r.Seconds, r.Percentiles, units.HumanCount(uint64(r.Samples)),
		units.HumanCount(r.Sent), units.HumanCount(r.Received), units.HumanCount(r.Lost))
	return err
}

// roles are what this program does as a child of itself, by the name of the hidden command.
func roles() map[string]child.Role {
	all := bench.Roles()
	maps.Copy(all, demo.Roles())
	maps.Copy(all, suite.Roles())
	maps.Copy(all, soak.Roles())
	maps.Copy(all, deaths.Roles())
	maps.Copy(all, hostile.Roles())
	maps.Copy(all, burst.Roles())
	return all
}

// launch starts this program again in a role.
func (a *app) launch(role string, config any) (*child.Process, error) {
	return child.Start(role, a.Executable, []string{"child", role}, config)
}

// childCmd is how this program starts parts of bench and demo.
func (a *app) childCmd() *cobra.Command {
	return &cobra.Command{
		Use: "child ROLE", Short: "For bhctl's own use", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: runE(func(ctx context.Context, args []string) error {
			role, ok := roles()[args[0]]
			if !ok {
				return exitcode.Usagef("no role %q", args[0])
			}
			return child.Run(ctx, a.Stdin, a.Stdout, role)
		}),
	}
}
