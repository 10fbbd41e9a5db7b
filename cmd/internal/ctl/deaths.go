package ctl

import (
	"context"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/bhome-bus/bhome/cmd/internal/deaths"
	"github.com/bhome-bus/bhome/cmd/internal/exitcode"
	"github.com/bhome-bus/bhome/cmd/internal/private"
	"github.com/bhome-bus/bhome/cmd/internal/units"
)

func (a *app) deathsCmd() *cobra.Command {
	var cfg deaths.Config
	touched := []string{"1MiB", "1GiB"}
	down := units.Duration(time.Second)
	asJSON := false
	cmd := &cobra.Command{
		Use: "deaths", Short: "Measure what follows the death of a process, and of bhomed",
		Long: `Measure, on a bus of its own, how long after the kernel reports a process's death everything of it is gone, who waited
for it is told, and its senders have back what it held; then how long after bhomed is started again, having been killed or
stopped under load, it knows everything again. See docs/operations.md. Status 4: a message was lost or doubled.`,
		Args: cobra.NoArgs,
		RunE: runE(func(ctx context.Context, _ []string) error {
			for _, s := range touched {
				n, err := units.ParseBytes(s)
				if err != nil {
					return exitcode.With(exitcode.Usage, err)
				}
				cfg.Touched = append(cfg.Touched, uint64(n))
			}
			cfg.Down = time.Duration(down)
			if err := cfg.Validate(); err != nil {
				return exitcode.With(exitcode.Usage, err)
			}
			var res deaths.Result
			err := a.onPrivateBus(ctx, "deaths", asJSON, func(bus *private.Bus, out io.Writer) (_ any, err error) {
				res, err = deaths.Run(ctx, cfg, bus, a.launch, out)
				return res, err
			})
			if lost, doubled := res.Wrong(); err == nil && lost+doubled > 0 {
				err = exitcode.Degradedf("%d messages were lost, %d doubled", lost, doubled)
			}
			return err
		}),
	}
	f := cmd.Flags()
	f.IntVar(&cfg.Kills, "kills", 200, "processes to kill, of each kind; 0: none")
	f.StringSliceVar(&touched, "touched", touched, "message memory that a process has written to when it is killed: a kind for each")
	f.IntVar(&cfg.Restarts, "restarts", 4, "restarts of bhomed, by SIGKILL and SIGTERM in turn; 0: none")
	f.IntVar(&cfg.Nodes, "nodes", 100, "processes that it is restarted under")
	f.IntVar(&cfg.Rate, "rate", 50, "messages/s that each of them publishes")
	f.Var(&down, "down", "how long there is no bhomed")
	f.BoolVar(&asJSON, "json", false, "the result as JSON, the tables on standard error")
	return cmd
}
