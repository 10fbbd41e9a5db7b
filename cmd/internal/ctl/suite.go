package ctl

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/bhome-bus/bhome/cmd/internal/private"
	"github.com/bhome-bus/bhome/cmd/internal/suite"
	"github.com/bhome-bus/bhome/cmd/internal/units"
)

func (a *app) suiteCmd() *cobra.Command {
	var sizes []int
	each := units.Duration(300 * time.Millisecond)
	asJSON := false
	crowd := 1000
	cmd := &cobra.Command{
		Use: "suite", Short: "Compare bhome with a bare queue and a Unix socket, in one run",
		Long: `Measure round trips and one-way rates between two processes, on a bus of its own: bhome (spinning, adaptive, parked), a bare
queue with tail and slot and nothing else, and a Go Unix-socket pair doing the same work. Contestants alternate; each
figure is the median of three; the probe columns are the bare queue's round trip before and after, which tells whether the
machine was the same for all. Then one publisher with several subscribers, requests, and a crowd.`,
		Args: cobra.NoArgs,
		RunE: runE(func(ctx context.Context, _ []string) error {
			return a.onPrivateBus(ctx, "suite", asJSON, func(bus *private.Bus, out io.Writer) (any, error) {
				cfg := suite.Config{Socket: bus.Socket, Sizes: sizes, Each: time.Duration(each)}
				rows, err := suite.Run(ctx, cfg, a.launch, out)
				if err != nil || crowd == 0 {
					return rows, err
				}
				if err := suite.Fans(ctx, cfg, rows, a.launch, out); err != nil {
					return rows, err
				}
				writers := []int{1, 10, 100}
				if crowd >= 1000 {
					writers = append(writers, 1000)
				}
				return rows, suite.Crowd(ctx, suite.CrowdConfig{Socket: bus.Socket, Daemon: bus.PID(), Nodes: crowd, Writers: writers, Depths: []int{64, 256}, Total: 1_000_000, Watch: 5 * time.Second}, a.launch, out)
			})
		}),
	}
	f := cmd.Flags()
	f.IntSliceVar(&sizes, "sizes", suite.Sizes(), "payload sizes in bytes")
	f.Var(&each, "each", "about how long one measurement takes")
	f.IntVar(&crowd, "crowd", crowd, "idle processes to attach, and writers of the seed's speed test at most; 0: leave that and all that takes more than two processes out")
	f.BoolVar(&asJSON, "json", false, "the rows as JSON, the tables on standard error")
	return cmd
}

// onPrivateBus measures on a bus of its own. Tables go to standard output; or there goes what measure returns, as JSON, and
// they to standard error.
func (a *app) onPrivateBus(ctx context.Context, name string, asJSON bool, measure func(bus *private.Bus, out io.Writer) (any, error)) (err error) {
	bus, err := private.Start(ctx, a.Executable, name, "--log-level", "warn")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bus.Close()) }()
	out := a.Stdout
	if asJSON {
		out = a.Stderr
	}
	rows, err := measure(bus, out)
	if err != nil || !asJSON {
		return err
	}
	return writeJSON(a.Stdout, rows)
}
