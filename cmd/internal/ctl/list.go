package ctl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/bhome-bus/bhome/cmd/internal/exitcode"
	"github.com/bhome-bus/bhome/cmd/internal/listing"
	"github.com/bhome-bus/bhome/cmd/internal/units"
	"github.com/bhome-bus/bhome/node"
)

// query asks for the rows of one listing and what goes below them.
type query[T any] func(ctx context.Context, n *node.Node) ([]T, []listing.Extra, error)

// listCmd makes the command of one listing: one query, many renderings.
func listCmd[T any](a *app, use, short, long string, l listing.Listing[T], ask query[T]) *cobra.Command {
	var o listing.Options
	var watch bool
	interval := units.Duration(time.Second)
	cmd := &cobra.Command{
		Use: use, Short: short, Args: cobra.NoArgs,
		Long: long + "\n\nColumns for --sort: " + strings.Join(l.Keys(), ", ") + ". Columns with a star are the nodes' own word.",
		RunE: runE(func(ctx context.Context, _ []string) error {
			if err := l.CheckSort(o.Sort); err != nil {
				return exitcode.With(exitcode.Usage, err)
			}
			if o.JSON && o.Quiet {
				return exitcode.Usagef("--json and --quiet exclude each other")
			}
			if interval < units.Duration(10*time.Millisecond) {
				return exitcode.Usagef("--interval %v: at least 10ms", interval)
			}
			if a.Terminal {
				o.Bold, o.Width = true, a.Width
			}
			o.Compact = watch
			return list(ctx, a, l, ask, o, watch, time.Duration(interval))
		}),
	}
	f := cmd.Flags()
	f.BoolVar(&o.JSON, "json", false, "as one JSON document; with --watch one a line")
	f.BoolVarP(&o.Quiet, "quiet", "q", false, "ids only, one a line")
	f.StringVar(&o.Sort, "sort", "", "`column` to sort by; with '-' before it in reverse (--sort=-age)")
	f.BoolVarP(&watch, "watch", "w", false, "again and again, until interrupted")
	f.Var(&interval, "interval", "how often --watch looks")
	_ = cmd.RegisterFlagCompletionFunc("sort", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return l.Keys(), cobra.ShellCompDirectiveNoFileComp
	})
	return cmd
}

func list[T any](ctx context.Context, a *app, l listing.Listing[T], ask query[T], o listing.Options, watch bool, every time.Duration) (err error) {
	n, err := a.inspect(ctx)
	if err != nil {
		return err
	}
	defer func() { err = detach(n, err) }()
	once := func() error {
		bound, cancel := a.bounded(ctx)
		defer cancel()
		rows, extras, err := ask(bound, n)
		if err != nil {
			return err
		}
		var b bytes.Buffer
		if watch && a.Terminal && !o.JSON {
			b.WriteString("\x1b[H\x1b[2J") // home, clear: one write a screen, so that it doesn't flicker
		}
		if err := l.Render(&b, rows, o, extras...); err != nil {
			return err
		}
		if watch && !a.Terminal && !o.JSON {
			b.WriteByte('\n')
		}
		_, err = a.Stdout.Write(b.Bytes())
		return err
	}
	if !watch {
		return once()
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if err := once(); err != nil && ctx.Err() == nil {
			// A daemon that is away comes back: the node attaches again by itself.
			if !errors.Is(err, node.ErrDisconnected) && !errors.Is(err, context.DeadlineExceeded) {
				return err
			}
			fmt.Fprintf(a.Stderr, "bhctl: %v\n", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-n.Done():
			return n.Err()
		case <-tick.C:
		}
	}
}
