package ctl

import (
	"context"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/bhome-bus/bhome/cmd/internal/burst"
	"github.com/bhome-bus/bhome/cmd/internal/exitcode"
	"github.com/bhome-bus/bhome/cmd/internal/private"
	"github.com/bhome-bus/bhome/cmd/internal/units"
)

func (a *app) burstCmd() *cobra.Command {
	cfg := burst.Config{}
	bytes := units.Bytes(1 << 30)
	sizes := []string{"1MiB", "1KiB"}
	settle, most := units.Duration(12*time.Second), units.Duration(time.Minute)
	asJSON := false
	cmd := &cobra.Command{
		Use: "burst", Short: "Measure what memory a burst takes, and when it is given back",
		Long: `Measure, on a bus of its own, what bhomed, a publisher and its subscribers have resident: idle, when a burst of messages is
held by all subscribers at once (or waits in their queues), and each second after these have let all of it go, until
each process, and all together, are within a fifth of the idle level. See docs/growth.md. Status 4: one of the bursts wasn't
given back in 30 s.`,
		Args: cobra.NoArgs,
		RunE: runE(func(ctx context.Context, _ []string) error {
			for _, s := range sizes {
				n, err := units.ParseBytes(s)
				if err != nil {
					return exitcode.With(exitcode.Usage, err)
				}
				cfg.Sizes = append(cfg.Sizes, uint64(n))
			}
			cfg.Bytes, cfg.Settle, cfg.Most = uint64(bytes), time.Duration(settle), time.Duration(most)
			if err := cfg.Validate(); err != nil {
				return exitcode.With(exitcode.Usage, err)
			}
			var rows []burst.Row
			err := a.onPrivateBus(ctx, "burst", asJSON, func(bus *private.Bus, out io.Writer) (_ any, err error) {
				cfg.Socket, cfg.Daemon = bus.Socket, bus.PID()
				rows, err = burst.Run(ctx, cfg, a.launch, out)
				return rows, err
			})
			late := 0
			for _, r := range rows {
				if !r.Met {
					late++
				}
			}
			if err == nil && late > 0 {
				err = exitcode.Degradedf("after %d of %d bursts memory wasn't within a fifth of the idle level in %v", late, len(rows), burst.Within)
			}
			return err
		}),
	}
	f := cmd.Flags()
	f.Var(&bytes, "bytes", "payload of a burst")
	f.StringSliceVar(&sizes, "sizes", sizes, "payload of a message: a burst for each")
	f.StringSliceVar(&cfg.How, "how", []string{burst.Held, burst.Queued}, "whether subscribers hold the messages or leave them in their queues: a burst for each")
	f.IntVar(&cfg.Subs, "subs", 2, "subscribers, all of which get all messages")
	f.Var(&settle, "settle", "how long all are left alone before the idle level is taken")
	f.Var(&most, "most", "how long memory is waited for")
	f.BoolVar(&asJSON, "json", false, "the rows as JSON, the tables on standard error")
	return cmd
}
