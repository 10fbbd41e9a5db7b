package ctl

import (
	"context"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/bhome-bus/bhome/cmd/internal/hostile"
	"github.com/bhome-bus/bhome/cmd/internal/private"
	"github.com/bhome-bus/bhome/cmd/internal/units"
)

func (a *app) hostileCmd() *cobra.Command {
	cfg := hostile.Config{}
	each := units.Duration(time.Second)
	size := units.Bytes(1 << 10)
	asJSON, list := false, false
	cmd := &cobra.Command{
		Use: "hostile", Short: "Measure what a hostile process costs honest ones",
		Long: `Measure, on a bus of its own, an honest publisher and subscriber undisturbed, beside a process that only computes, and beside
each of the attacks of docs/attacks.md; and what bhomed takes meanwhile. Each honest message's number and checksum are
looked at: one that is lost, doubled or changed ends it with an error. An attacker takes its share of the cores by the
kernel's scheduler as any process does: that is what the spinner's row is for.`,
		Args: cobra.NoArgs,
		RunE: runE(func(ctx context.Context, _ []string) error {
			if list {
				return writeJSON(a.Stdout, hostile.Attacks())
			}
			return a.onPrivateBus(ctx, "hostile", asJSON, func(bus *private.Bus, out io.Writer) (any, error) {
				cfg.Socket, cfg.Daemon, cfg.Log, cfg.Each, cfg.Size = bus.Socket, bus.PID(), bus.Log, time.Duration(each), max(16, int(size)&^7)
				return hostile.Run(ctx, cfg, a.launch, out)
			})
		}),
	}
	f := cmd.Flags()
	f.Var(&each, "each", "how long one measurement takes")
	f.Var(&size, "size", "bytes of an honest message")
	f.StringSliceVar(&cfg.Attacks, "attacks", nil, "names of attacks; all unless given")
	f.Uint64Var(&cfg.Seed, "seed", 1, "of what is random")
	f.BoolVar(&list, "list", false, "say which attacks there are, as JSON, and do nothing")
	f.BoolVar(&asJSON, "json", false, "the rows as JSON, the table on standard error")
	return cmd
}
