// Package deaths is `bhctl bench deaths`: what a process's death costs the others, in time, and what the daemon's does.
//
// It kills real processes, and takes the time from the kernel's report of the death (the process's pidfd becomes readable,
// in this process) to each thing that must follow. It restarts the daemon under load and takes the time until all is known
// again. Every message is numbered: what is lost or doubled is counted. It measures only; what is promised is in the docs.
package deaths

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/bhome-bus/bhome/cmd/internal/child"
	"github.com/bhome-bus/bhome/cmd/internal/latency"
	"github.com/bhome-bus/bhome/cmd/internal/private"
	"github.com/bhome-bus/bhome/cmd/internal/units"
)

// Launcher starts a child in the named role.
type Launcher func(role string, config any) (*child.Process, error)

// Config says how much to measure.
type Config struct {
	Kills    int           // of each kind of victim; 0: none
	Touched  []uint64      // bytes of message memory that a victim has written to: a kind of victim for each
	Restarts int           // of the daemon: SIGKILL and SIGTERM in turn; 0: none
	Nodes    int           // processes that the daemon is restarted under, 2 at least
	Rate     int           // messages/s that each of them publishes
	Down     time.Duration // how long there is no daemon
}

// Validate says what is wrong with c, if anything.
func (c Config) Validate() error {
	if c.Kills < 0 || c.Restarts < 0 || c.Nodes < 2 || c.Nodes > 10_000 || c.Rate < 1 || c.Rate > 100_000 || c.Down < 0 {
		return fmt.Errorf("kills (%d) and restarts (%d) must not be negative, nodes (%d) 2 to 10000, the rate (%d) 1 to 100000, down (%v) not negative",
			c.Kills, c.Restarts, c.Nodes, c.Rate, c.Down)
	}
	for _, t := range c.Touched {
		if t < 1 || t > 1<<40 {
			return fmt.Errorf("touched: %d bytes, must be 1 to 1 TiB", t)
		}
	}
	return nil
}

// Result is all that was measured.
type Result struct {
	Kills    []KillRow    `json:"kills"`
	Restarts []RestartRow `json:"restarts"`
}

// Wrong counts the messages that did not come, and those that came twice.
func (r Result) Wrong() (lost, doubled uint64) {
	for _, k := range r.Kills {
		lost += uint64(k.Lost)
	}
	if n := len(r.Restarts); n > 0 { // the last has the sums
		lost, doubled = lost+r.Restarts[n-1].Lost, r.Restarts[n-1].Doubled
	}
	return lost, doubled
}

// KillRow is of one kind of victim; times are from the kernel's report of its death, in ns.
type KillRow struct {
	Touched   uint64              `json:"touched_bytes"`
	Kills     int                 `json:"kills"`
	Center    latency.Percentiles `json:"gone_at_center_ns"` // session, services, subscriptions, routes, blocks
	Caller    latency.Percentiles `json:"caller_told_ns"`    // of a request that the victim had in hand
	Publisher latency.Percentiles `json:"publisher_told_ns"` // has no subscriber any more
	Returned  latency.Percentiles `json:"blocks_back_ns"`    // what the victim held of the sender
	Delivered int                 `json:"delivered"`         // messages that the victims had sent, read after their death
	Lost      int                 `json:"lost"`
}

// RestartRow is of one restart of the daemon; times are from the new daemon's start.
type RestartRow struct {
	Kill      bool          `json:"sigkill"` // else SIGTERM
	Nodes     int           `json:"nodes"`
	Ready     time.Duration `json:"ready_ns"`     // it listens
	Known     time.Duration `json:"known_ns"`     // every record is there again
	Newcomer  time.Duration `json:"newcomer_ns"`  // a new process has attached, subscribed and got a message
	Loan      time.Duration `json:"loan_ns"`      // one that was there before has been lent a block of a class it never had
	Delivered uint64        `json:"delivered"`    // messages, from before the first restart to after this one
	Lost      uint64        `json:"lost"`         // of them
	Doubled   uint64        `json:"doubled"`      // of them
	Requests  uint64        `json:"requests"`     // answered meanwhile
	Failed    uint64        `json:"failed"`       // of them
	Pause     time.Duration `json:"max_pause_ns"` // the longest time that a subscriber got nothing
}

// Run measures on a bus of its own, and prints tables.
func Run(ctx context.Context, cfg Config, bus *private.Bus, launch Launcher, out io.Writer) (Result, error) {
	var res Result
	if err := cfg.Validate(); err != nil {
		return res, err
	}
	for _, touched := range cfg.Touched {
		if cfg.Kills == 0 {
			break
		}
		row, err := kills(ctx, bus.Socket, cfg.Kills, touched, launch)
		if err != nil {
			return res, fmt.Errorf("kills with %v touched: %w", units.HumanBytes(touched), err)
		}
		res.Kills = append(res.Kills, row)
	}
	if err := printKills(out, res.Kills); err != nil || cfg.Restarts == 0 {
		return res, err
	}
	rows, err := restarts(ctx, cfg, bus, launch)
	res.Restarts = rows
	return res, errors.Join(err, printRestarts(out, rows))
}

func printKills(out io.Writer, rows []KillRow) error {
	if len(rows) == 0 {
		return nil
	}
	w := tabwriter.NewWriter(out, 2, 0, 2, ' ', 0)
	fmt.Fprintln(w, "from the kernel's report of a death to\ttouched\tkills\tp50\tp99\tmax")
	for _, r := range rows {
		for _, f := range []struct {
			what string
			p    latency.Percentiles
		}{
			{"session, services, subscriptions, routes, blocks gone", r.Center}, {"its caller told", r.Caller},
			{"its publisher told", r.Publisher}, {"its sender has back what it held", r.Returned},
		} {
			fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\t%s\n", f.what, units.HumanBytes(r.Touched), r.Kills, ms(f.p.P50), ms(f.p.P99), ms(f.p.Max))
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, r := range rows {
		fmt.Fprintf(out, "%s: what they had sent was delivered: %d messages, %d lost\n", units.HumanBytes(r.Touched), r.Delivered, r.Lost)
	}
	_, err := fmt.Fprintln(out)
	return err
}

func printRestarts(out io.Writer, rows []RestartRow) error {
	if len(rows) == 0 {
		return nil
	}
	w := tabwriter.NewWriter(out, 2, 0, 2, ' ', 0)
	fmt.Fprintln(w, "from the new bhomed's start\tnodes\tready\tevery record\tnewcomer's first message\tfirst loan\tdelivered so far\tlost\tdoubled\trequests\tfailed\tlongest pause")
	for _, r := range rows {
		how := "after SIGTERM"
		if r.Kill {
			how = "after SIGKILL"
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t%s\n", how, r.Nodes, ms(int64(r.Ready)), ms(int64(r.Known)), ms(int64(r.Newcomer)), ms(int64(r.Loan)),
			r.Delivered, r.Lost, r.Doubled, r.Requests, r.Failed, ms(int64(r.Pause)))
	}
	return w.Flush()
}

func ms(ns int64) string { return fmt.Sprintf("%.2f ms", float64(ns)/1e6) }

// Roles are the children of a measurement.
func Roles() map[string]child.Role {
	return map[string]child.Role{"deaths-victim": victim, "deaths-member": member}
}

// poll asks until the answer is yes, with a short pause between two questions.
func poll(ctx context.Context, every time.Duration, ask func() (bool, error)) error {
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		yes, err := ask()
		if yes || err != nil {
			return err
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
