package ctl

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/bhome-bus/bhome/cmd/internal/child"
	"github.com/bhome-bus/bhome/cmd/internal/exitcode"
	"github.com/bhome-bus/bhome/cmd/internal/soak"
	"github.com/bhome-bus/bhome/cmd/internal/units"
)

func (a *app) soakCmd() *cobra.Command {
	cfg := soak.Config{}
	var inject string
	length := units.Duration(time.Minute)
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "soak",
		Short: "Try to break the bus, on a bus of its own",
		Long: `Start a bus of its own and real processes on it that publish, subscribe, serve, request and stall, and for as long as --for
says stop and kill them, and bhomed, several times a second. What arrived is held against what was sent, message by
message; requests are counted where they are asked, handled and answered; at quiescent points everything is compared, and
nothing may be left of those that are gone. The --seed decides who does what and what is done to whom; the kernel decides
when. Status 1: something wasn't as it must be; what, and the seed, is printed.`,
		Args: cobra.NoArgs,
		RunE: runE(func(ctx context.Context, _ []string) error {
			if cfg.For = time.Duration(length); cfg.For <= 0 {
				return exitcode.Usagef("--for %v: it must be more than nothing", length)
			}
			switch cfg.Inject = soak.Fault(inject); cfg.Inject {
			case soak.NoFault, soak.Corrupt, soak.Double:
			default:
				return exitcode.Usagef("--inject %q: there are corrupt and double", inject)
			}
			if cfg.Seed == 0 {
				cfg.Seed = uint64(time.Now().UnixNano())
			}
			cfg.Self, cfg.Out = a.Executable, a.Stdout
			if asJSON {
				cfg.Out = io.Discard
			}
			cfg.Launch = func(label, role string, config any) (*child.Process, error) {
				return child.Start(label, a.Executable, []string{"child", role}, config)
			}
			return a.soak(ctx, cfg, asJSON)
		}),
	}
	f := cmd.Flags()
	f.Var(&length, "for", "how long; the round that is under way then is finished")
	f.Uint64Var(&cfg.Seed, "seed", 0, "what decides the schedule; 0: one is drawn, and printed")
	f.StringVar(&inject, "inject", "", "a `fault` that must be noticed: corrupt (a bit of a message), double (a message comes twice)")
	f.BoolVar(&asJSON, "json", false, "only the summary, as JSON")
	return cmd
}

func (a *app) soak(ctx context.Context, cfg soak.Config, asJSON bool) error {
	sum, err := soak.Run(ctx, cfg)
	if err != nil {
		return fmt.Errorf("soak with seed %d: %w", cfg.Seed, err)
	}
	if asJSON {
		err = writeJSON(a.Stdout, sum)
	} else {
		err = sum.Print(a.Stdout, fmt.Sprintf("bhctl soak --for %v --seed %d", cfg.For, cfg.Seed))
	}
	if err == nil && !sum.OK() {
		err = fmt.Errorf("soak with seed %d: %d faults", cfg.Seed, len(sum.Faults))
	}
	return err
}
