package ctl

import (
	"context"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/bhome-bus/bhome/cmd/internal/private"
	"github.com/bhome-bus/bhome/cmd/internal/suite"
	"github.com/bhome-bus/bhome/cmd/internal/units"
)

func (a *app) growCmd() *cobra.Command {
	cfg := suite.GrowConfig{}
	each := units.Duration(300 * time.Millisecond)
	size := units.Bytes(64 << 20)
	asJSON := false
	cmd := &cobra.Command{
		Use: "grow", Short: "Measure how cost grows",
		Long: `Measure, on a bus of its own, how the cost of a message grows with one thing at a time: its size, the topics of a
publisher, the messages that a subscriber holds or that may wait at it, the subscribing and the publishing processes. See docs/growth.md.`,
		Args: cobra.NoArgs,
		RunE: runE(func(ctx context.Context, _ []string) error {
			return a.onPrivateBus(ctx, "grow", asJSON, func(bus *private.Bus, out io.Writer) (any, error) {
				cfg.Socket, cfg.Each, cfg.Size = bus.Socket, time.Duration(each), int(size)
				return suite.Grow(ctx, cfg, a.launch, out)
			})
		}),
	}
	f := cmd.Flags()
	f.Var(&each, "each", "about how long one measurement takes")
	f.Var(&size, "size", "the largest message")
	f.IntVar(&cfg.Topics, "topics", 100_000, "topics at most")
	f.IntVar(&cfg.Held, "held", 32_768, "messages held at most")
	f.IntVar(&cfg.Depth, "depth", 16_384, "messages that may wait at most")
	f.IntVar(&cfg.Subs, "subs", 256, "subscribing processes at most")
	f.IntVar(&cfg.Processes, "pubs", 1000, "publishing processes at most")
	f.IntVar(&cfg.Total, "total", 1_000_000, "deliveries of a measurement with many processes")
	f.BoolVar(&asJSON, "json", false, "the points as JSON, the tables on standard error")
	return cmd
}
