package suite

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/bhome-bus/bhome/cmd/internal/bench"
	"github.com/bhome-bus/bhome/node"
	"github.com/bhome-bus/bhome/shmio"
)

const (
	fanSize     = 1 << 10 // bytes
	fanDepth    = 1024
	fanMessages = 10_000_000 // in a second of Config.Each, received by all
	requests    = 330_000
)

// Fans measures what two processes don't show: one publisher and several subscribers, requests beside publishing there and back, and many
// clients of one service. rows is what Run returned, for the ratios.
func Fans(ctx context.Context, cfg Config, rows []Row, launch Launcher, out io.Writer) error {
	share := func(n int) int { return max(1000, int(float64(n)*cfg.Each.Seconds())) }
	base := bench.Config{Socket: cfg.Socket, Topic: "suite.fan", Pubs: 1, Subs: 1, Concurrency: 1, Depth: fanDepth, Policy: node.Block, Timeout: 2 * time.Minute}
	for _, subs := range []int{1, 4, 16} {
		b := base
		b.Size, b.Batch, b.Subs, b.Count = fanSize, 64, subs, share(fanMessages)/subs
		r, err := bench.PubSub(ctx, b, bench.Launcher(launch))
		if err != nil {
			return fmt.Errorf("1 publisher, %d subscribers: %w", subs, err)
		}
		fmt.Fprintf(out, "fan-out: 1 publisher × %2d subscribers, %s in batches: %.0f messages/s published, received %d, lost %d\n", subs, sizeName(fanSize), r.MsgsPerSec, r.Received, r.Lost)
	}
	var one float64
	for _, c := range []struct {
		clients int
		wait    shmio.WaitStrategy
	}{{1, shmio.BusySpin}, {1, shmio.Park}, {16, shmio.Park}, {16, shmio.Adaptive}} {
		b := base
		b.Size, b.Wait, b.Pubs, b.Count = 64, c.wait, c.clients, share(requests)
		r, err := bench.Request(ctx, b, bench.Launcher(launch))
		if err != nil {
			return fmt.Errorf("%d clients of one service: %w", c.clients, err)
		}
		fmt.Fprintf(out, "requests, 64 B: %2d clients of one service, %-8v %.0f/s, p50 %v", c.clients, c.wait, r.MsgsPerSec, time.Duration(r.Percentiles.P50))
		switch {
		case c.wait == shmio.BusySpin:
			for _, row := range rows {
				if row.Kind == "bhome" && row.Wait == "spin" && row.Size == 64 && !row.OneWay {
					fmt.Fprintf(out, ", %.2f times publishing there and back", float64(r.Percentiles.P50)/float64(row.RTT.P50))
				}
			}
		case c.clients == 1:
			one = r.MsgsPerSec
		default:
			fmt.Fprintf(out, ", %.2f times one that parks", r.MsgsPerSec/one)
		}
		fmt.Fprintln(out)
	}
	return nil
}
