package suite

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/bhome-bus/bhome/cmd/internal/bench"
	"github.com/bhome-bus/bhome/node"
)

// GrowConfig says how far the curves go. Socket is of a running bus.
type GrowConfig struct {
	Socket    string
	Each      time.Duration // of one measurement
	Size      int           // the largest message, bytes
	Processes int           // publishing at most
	Topics    int           // at most
	Subs      int           // subscribers at most
	Held      int           // messages at most
	Depth     int           // messages that may wait at most
	Total     int           // messages of a measurement with many processes
}

// Point is one measurement on a curve.
type Point struct {
	Curve  string  `json:"curve"` // size, topics, held, depth, publishers or subscribers
	X      int     `json:"x"`
	P50    int64   `json:"p50_ns,omitempty"` // there and back, spinning
	PerSec float64 `json:"msgs_per_sec"`     // published one way
	Bytes  float64 `json:"bytes_per_sec"`    // received by all
	Lost   uint64  `json:"lost"`             // with many processes
	Allocs float64 `json:"allocs,omitempty"` // per message, at the sender
}

// curve is one of them: what is measured at each x.
type curve struct {
	name, title string
	xs          []int
	at          func(ctx context.Context, x int) (Point, error)
}

// Grow measures how cost grows with one thing at a time, and prints a table for each.
func Grow(ctx context.Context, cfg GrowConfig, launch Launcher, out io.Writer) ([]Point, error) {
	pair := func(ctx context.Context, c pairConfig) (Row, error) {
		c.Kind, c.Socket, c.Each = "bhome", cfg.Socket, cfg.Each
		if c.Wait == "" {
			c.Wait = "adaptive"
		}
		return runPair(ctx, launch, c)
	}
	oneWay := func(ctx context.Context, c pairConfig) (Point, error) {
		c.OneWay = true
		r, err := pair(ctx, c)
		return Point{PerSec: r.PerSec, Bytes: r.PerSec * float64(c.Size), Allocs: r.Allocs}, err
	}
	crowd := func(ctx context.Context, pubs, subs, size, depth int) (Point, error) {
		c := bench.Config{Socket: cfg.Socket, Topic: "suite.grow", Size: size, Count: max(1, cfg.Total/pubs/subs), Pubs: pubs, Subs: subs,
			Concurrency: 1, Batch: 64, Depth: depth, Policy: node.Block, Timeout: 2 * time.Minute}
		if err := c.Normalize(); err != nil {
			return Point{}, err
		}
		r, err := bench.PubSub(ctx, c, bench.Launcher(launch))
		return Point{PerSec: r.MsgsPerSec, Bytes: r.MsgsPerSec * float64(size*subs), Lost: r.Lost}, err
	}
	curves := []curve{
		{"size", "message size, bytes", upTo([]int{8, 64, 256, 264, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20, 64 << 20}, cfg.Size),
			func(ctx context.Context, x int) (Point, error) {
				p, err := oneWay(ctx, pairConfig{Size: x})
				if err != nil {
					return p, err
				}
				r, err := pair(ctx, pairConfig{Size: x, Wait: "spin"})
				p.P50 = r.RTT.P50
				return p, err
			}},
		{"topics", "topics of one publisher, used in turn, one wildcard subscription, 64 B", upTo([]int{1, 10, 100, 1000, 10_000, 100_000}, cfg.Topics),
			func(ctx context.Context, x int) (Point, error) { return oneWay(ctx, pairConfig{Size: 64, Topics: x}) }},
		{"held", "messages held by the subscriber, 1 KiB", upTo([]int{0, 16, 256, 4096, 32_768}, cfg.Held),
			func(ctx context.Context, x int) (Point, error) {
				return oneWay(ctx, pairConfig{Size: 1 << 10, Hold: x})
			}},
		{"depth", "messages of one publisher that may wait at each of four subscribing processes, 1 KiB in batches",
			upTo([]int{64, 256, 512, 1024, 2048, 4096, 16_384}, cfg.Depth),
			func(ctx context.Context, x int) (Point, error) { return crowd(ctx, 1, 4, 1<<10, x) }},
		{"subscribers", "subscribing processes of one publisher, 64 B", upTo([]int{1, 2, 4, 8, 16, 32, 64, 128, 256}, cfg.Subs),
			func(ctx context.Context, x int) (Point, error) { return crowd(ctx, 1, x, 64, 256) }},
		{"publishers", "publishing processes of one subscriber, 64 B", upTo([]int{1, 2, 5, 10, 20, 50, 100, 200, 500, 1000}, cfg.Processes),
			func(ctx context.Context, x int) (Point, error) { return crowd(ctx, x, 1, 64, 256) }},
	}
	var points []Point
	for _, c := range curves {
		var part []Point
		for _, x := range c.xs {
			p, err := c.at(ctx, x)
			if err != nil {
				return points, fmt.Errorf("%s at %d: %w", c.name, x, err)
			}
			p.Curve, p.X = c.name, x
			part = append(part, p)
		}
		points = append(points, part...)
		if err := printCurve(out, c.title, part); err != nil {
			return points, err
		}
	}
	return points, nil
}

// upTo is the xs that don't exceed most.
func upTo(xs []int, most int) []int {
	for i, x := range xs {
		if x > most {
			return xs[:i]
		}
	}
	return xs
}

func printCurve(out io.Writer, title string, points []Point) error {
	if len(points) == 0 {
		return nil
	}
	w := tabwriter.NewWriter(out, 2, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(out, title)
	fmt.Fprint(w, "x\tpublished/s\tns each\tagainst the first\treceived MB/s\tthere and back\t\n")
	first := points[0].PerSec
	for _, p := range points {
		trip := ""
		if p.P50 > 0 {
			trip = time.Duration(p.P50).String()
		}
		fmt.Fprintf(w, "%d\t%.0f\t%.0f\t%.2f\t%.1f\t%s\t\n", p.X, p.PerSec, 1e9/p.PerSec, p.PerSec/first, p.Bytes/1e6, trip)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(out)
	return err
}
