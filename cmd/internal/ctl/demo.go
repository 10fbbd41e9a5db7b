package ctl

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/bhome-bus/bhome/cmd/internal/child"
	"github.com/bhome-bus/bhome/cmd/internal/demo"
	"github.com/bhome-bus/bhome/cmd/internal/exitcode"
)

// demoLimit is within what time the demo ends, whatever happens.
const demoLimit = 29 * time.Second

func (a *app) demoCmd() *cobra.Command {
	cfg := demo.Config{Passes: 2, Limit: demoLimit}
	var inject string
	var asJSON, quiet bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show the bus at work on real input, on a bus of its own",
		Long: `Start a bus of its own and real processes on it: two publishers stream every file of the Go toolchain's source tree, one
message a file, to two subscribers that check each file's SHA-256 against the disk; a word-count service answers requests.
On the way one publisher and one subscriber are killed with SIGKILL and replaced. At the end every file must have come
exactly once per pass, and nothing may be lost, corrupt or leaked; else the status is 1. It takes less than 30 s.`,
		Args: cobra.NoArgs,
		RunE: runE(func(ctx context.Context, _ []string) error {
			cfg.Inject = demo.Fault(inject)
			switch cfg.Inject {
			case demo.NoFault, demo.Corrupt, demo.Leak:
			default:
				return exitcode.Usagef("--inject %q: there are corrupt and leak", inject)
			}
			if cfg.Passes < 1 || cfg.Passes > 100 {
				return exitcode.Usagef("--passes %d: 1 to 100", cfg.Passes)
			}
			cfg.Self, cfg.Out, cfg.Tables = a.Executable, a.Stdout, a.Stdout
			if quiet {
				cfg.Tables = nil
			}
			if asJSON {
				cfg.Out, cfg.Tables = io.Discard, nil
			}
			cfg.Launch = func(label, role string, config any) (*child.Process, error) {
				return child.Start(label, a.Executable, []string{"child", role}, config)
			}
			return a.demo(ctx, cfg, asJSON)
		}),
	}
	f := cmd.Flags()
	f.StringVar(&cfg.Tree, "tree", "", "`folder` whose files are streamed; unset: the source of the Go toolchain")
	f.IntVar(&cfg.Passes, "passes", cfg.Passes, "how often at least each publisher streams the tree")
	f.StringVar(&inject, "inject", "", "a `fault` that must be noticed: corrupt (a bit of a file), leak (a message never given back)")
	f.BoolVarP(&quiet, "quiet", "q", false, "don't show procs, msgs and topics on the way")
	f.BoolVar(&asJSON, "json", false, "only the summary, as JSON")
	return cmd
}

func (a *app) demo(ctx context.Context, cfg demo.Config, asJSON bool) error {
	sum, err := demo.Run(ctx, cfg)
	if err != nil {
		for _, f := range sum.Faults {
			fmt.Fprintf(a.Stderr, "bhctl: %s\n", f)
		}
		return fmt.Errorf("demo: %w", err)
	}
	if asJSON {
		err = writeJSON(a.Stdout, sum)
	} else {
		err = sum.Print(a.Stdout)
	}
	if err == nil && !sum.OK() {
		err = fmt.Errorf("demo: %d faults, %d corrupt, leaked %d", len(sum.Faults), sum.Corrupted, sum.Leaked)
	}
	return err
}
