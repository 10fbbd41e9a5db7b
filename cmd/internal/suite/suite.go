// Package suite is `bhctl bench suite` and `bhctl bench grow`. The first: bhome, the bare queue and a Go Unix-socket pair side by side in one run, two processes
// each, the same work: the payload is copied in by the sender and read, one word a cache line, by the receiver.
//
// Machines are noisy: contestants alternate, the bare queue's round trip is probed before and after each row (it shows
// in which placement the machine's cores were), and what counts is the ratio within a row.
//
// The second: how bhome's cost grows with one thing at a time.
package suite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/bhome-bus/bhome/cmd/internal/child"
	"github.com/bhome-bus/bhome/cmd/internal/latency"
)

// Launcher starts a child in the named role.
type Launcher func(role string, config any) (*child.Process, error)

// Config says what to measure. Socket is of a running bus.
type Config struct {
	Socket string
	Sizes  []int         // bytes
	Each   time.Duration // of one measurement
}

// Sizes is what is measured by default.
func Sizes() []int { return []int{64, 1 << 10, 64 << 10, 1 << 20} }

// pairConfig goes to both children of a measurement.
type pairConfig struct {
	Kind   string // bhome, bhome batch (64 messages a call), bare, unix
	Wait   string // bhome: adaptive, park, spin
	Socket string // bhome: the bus's; unix: the pair's
	Size   int
	Each   time.Duration
	OneWay bool
	Peer   string // bare: where the other's segment is
	Tag    string // bhome: makes the topics of this pair
	Topics int    // bhome: of each side, used in turn; 0: one
	Hold   int    // bhome: messages that a receiver holds
}

// Row is one measurement.
type Row struct {
	Kind, Wait string
	Size       int
	OneWay     bool
	RTT        latency.Percentiles // round trips
	PerSec     float64             // one way
	Allocs     float64             // per message, at the sender
	Probe      [2]int64            // p50 of the bare queue's 64 B round trip before and after, ns
}

// batchBelow is up to which size, in bytes, batches are measured: of large messages they only make the working set larger.
const batchBelow = 4096

// contestant is one line of the tables.
type contestant struct{ kind, wait string }

// Run measures everything and prints it.
func Run(ctx context.Context, cfg Config, launch Launcher, out io.Writer) ([]Row, error) {
	var rows []Row
	round := []contestant{{"bare", "spin"}, {"bhome", "spin"}, {"bhome", "adaptive"}, {"bhome", "park"}, {"unix", ""}}
	for _, size := range cfg.Sizes {
		one := []contestant{{"bare", "spin"}, {"bhome", "adaptive"}, {"bhome", "spin"}, {"unix", ""}}
		if size <= batchBelow {
			one = slices.Insert(one, 1, contestant{"bhome batch", "adaptive"})
		}
		for i, list := range [][]contestant{round, one} {
			part, err := measure(ctx, cfg, launch, list, size, i == 1)
			if err != nil {
				return rows, err
			}
			rows = append(rows, part...)
			if err := printRows(out, part); err != nil {
				return rows, err
			}
		}
	}
	return rows, nil
}

// measure runs the contestants in turn, three times, and keeps each one's median.
func measure(ctx context.Context, cfg Config, launch Launcher, list []contestant, size int, oneWay bool) ([]Row, error) {
	results := make([][]Row, len(list))
	for range 3 {
		for i, c := range list {
			before, err := probe(ctx, launch)
			if err != nil {
				return nil, err
			}
			r, err := runPair(ctx, launch, pairConfig{Kind: c.kind, Wait: c.wait, Socket: cfg.Socket, Size: size, OneWay: oneWay, Each: cfg.Each})
			if err != nil {
				return nil, fmt.Errorf("%s %s, %d bytes: %w", c.kind, c.wait, size, err)
			}
			after, err := probe(ctx, launch)
			if err != nil {
				return nil, err
			}
			r.Kind, r.Wait, r.Size, r.OneWay, r.Probe = c.kind, c.wait, size, oneWay, [2]int64{before, after}
			results[i] = append(results[i], r)
		}
	}
	var rows []Row
	for _, rs := range results {
		slices.SortFunc(rs, func(a, b Row) int {
			if oneWay {
				return int(a.PerSec - b.PerSec)
			}
			return int(a.RTT.P50 - b.RTT.P50)
		})
		rows = append(rows, rs[len(rs)/2])
	}
	return rows, nil
}

// probe is the bare queue's round trip at 64 B: which placement the cores are in.
func probe(ctx context.Context, launch Launcher) (int64, error) {
	r, err := runPair(ctx, launch, pairConfig{Kind: "bare", Size: 64, Each: 10 * time.Millisecond})
	return r.RTT.P50, err
}

func runPair(ctx context.Context, launch Launcher, cfg pairConfig) (row Row, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("not done within a minute"))
	defer cancel()
	cfg.Tag = fmt.Sprint(time.Now().UnixNano())
	b, err := launch("suite-b", cfg)
	if err != nil {
		return row, err
	}
	defer b.Kill()
	var where string
	if err := b.Await(ctx, "ready", &where); err != nil {
		return row, err
	}
	cfg.Peer = where
	a, err := launch("suite-a", cfg)
	if err != nil {
		return row, err
	}
	defer a.Kill()
	if err := a.Await(ctx, "ready", &where); err != nil {
		return row, err
	}
	if err := b.Send("peer", where); err != nil {
		return row, err
	}
	if err := b.Await(ctx, "joined", nil); err != nil {
		return row, err
	}
	if err := a.Send("go", nil); err != nil {
		return row, err
	}
	res := result{Latency: latency.New()}
	if err := a.Await(ctx, "result", &res); err != nil {
		return row, err
	}
	end := result{Latency: latency.New()}
	if err := b.Await(ctx, "result", &end); err != nil {
		return row, err
	}
	if cfg.OneWay {
		row.PerSec = float64(res.Count) / (float64(end.EndNs-res.StartNs) / 1e9)
		if end.Count != res.Count {
			return row, fmt.Errorf("%d messages were sent and %d received", res.Count, end.Count)
		}
	} else {
		row.RTT = res.Latency.Percentiles()
	}
	row.Allocs = res.Allocs
	for _, p := range []*child.Process{a, b} {
		if err := p.Send("close", nil); err != nil {
			return row, err
		}
	}
	return row, errors.Join(a.Wait(ctx), b.Wait(ctx))
}

type result struct {
	Latency *latency.Recorder
	Count   int
	StartNs int64
	EndNs   int64
	Allocs  float64
}

func printRows(out io.Writer, rows []Row) error {
	w := tabwriter.NewWriter(out, 2, 0, 2, ' ', 0)
	base := rows[0]
	if base.OneWay {
		fmt.Fprintf(w, "one way, %s\tmessages/s\tMB/s\tagainst bare\tallocs/msg\tprobe ns\n", sizeName(base.Size))
		for _, r := range rows {
			fmt.Fprintf(w, "  %s %s\t%.0f\t%.0f\t%.2f\t%.2f\t%d–%d\n", r.Kind, r.Wait, r.PerSec, r.PerSec*float64(r.Size)/1e6, r.PerSec/base.PerSec, r.Allocs, r.Probe[0], r.Probe[1])
		}
	} else {
		fmt.Fprintf(w, "round trip, %s\tp50\tp99\tagainst bare\tallocs/msg\tprobe ns\n", sizeName(base.Size))
		for _, r := range rows {
			fmt.Fprintf(w, "  %s %s\t%v\t%v\t%.2f\t%.2f\t%d–%d\n", r.Kind, r.Wait, time.Duration(r.RTT.P50), time.Duration(r.RTT.P99), float64(r.RTT.P50)/float64(base.RTT.P50), r.Allocs, r.Probe[0], r.Probe[1])
		}
	}
	fmt.Fprintln(w)
	return w.Flush()
}

func sizeName(n int) string {
	switch {
	case n >= 1<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<10:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d B", n)
}
