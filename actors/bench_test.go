package actors

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"

	"github.com/bhome-bus/bhome/node"
	"github.com/bhome-bus/bhome/shmio"
	"github.com/bhome-bus/bhome/wire"
)

// BenchmarkWords is what the center does for its 100 links: each asks for a batch of 64 blocks, gets 64 words down, and
// gives each back with a word up. The links' other ends take turns in this goroutine.
func BenchmarkWords(b *testing.B) {
	const links, batch, log2 = 100, 64, 6
	bus := newTestBus(b)
	raws := make([]*rawNode, links)
	for i := range raws {
		raws[i] = bus.onlineRaw(fmt.Sprint("raw", i))
	}
	var rec shmio.Record
	id := uint32(1000)
	words := 0
	for b.Loop() {
		id++
		ask := func(r *rawNode) wire.Word {
			return must(wire.AllocRequest{Proc: r.index, Class: 3, Batch: true, Log2: log2, ID: id}.Encode())
		}
		for _, r := range raws {
			r.push(0, ask(r))
		}
		for _, r := range raws {
			for got := 0; got < batch; {
				ok, err := r.down[0].TryReceive(&rec)
				if err != nil {
					b.Fatal(err)
				}
				if !ok {
					runtime.Gosched()
					continue
				}
				a, err := wire.DecodeAllocReply(rec.Word)
				if err != nil || a.Place == 0 || a.ID != id {
					b.Fatalf("reply %+v to request %d, %v", a, id, err)
				}
				if o := r.up[0].PushCommand(must(wire.Free{Grant: wire.NewGrant(a.ID, a.Place)}.Encode())); o != shmio.Sent {
					b.Fatal(o)
				}
				got++
			}
			r.up[0].Commit()
			words += 1 + 2*batch
		}
	}
	b.ReportMetric(float64(words)/b.Elapsed().Seconds(), "words/s")
}

// BenchmarkAttach is a node from nothing to ready, and its end.
func BenchmarkAttach(b *testing.B) {
	bus := newTestBus(b)
	for b.Loop() {
		n, err := node.Attach(bus.ctx, node.Config{Name: "n", Pooled: true, Socket: bus.socket})
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := n.Close(bus.ctx); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

// BenchmarkRouteUpdate is a subscription that begins, and ends, among 10,000 topics and as many subscriptions, a tenth of
// them with wildcards: its route stands when Subscribe returns.
func BenchmarkRouteUpdate(b *testing.B) {
	const topics, together = 10_000, 64
	bus := newTestBus(b, func(c *Config) { c.Limits.RoutesPerNode = 1 << 16 })
	pub, sub, late := bus.attach("pub"), bus.attach("sub"), bus.attach("late")
	var setting sync.WaitGroup
	free := make(chan struct{}, together)
	for i := range topics {
		free <- struct{}{}
		setting.Go(func() {
			defer func() { <-free }()
			if _, err := pub.Publisher(bus.ctx, fmt.Sprintf("t.%d.%d.x", i/100, i%100)); err != nil {
				b.Error(err)
			}
			pattern := fmt.Sprintf("s.%d.%d", i/100, i%100)
			if i%10 == 0 {
				pattern = fmt.Sprintf("s.*.%d.>", i)
			}
			if _, err := sub.Subscribe(bus.ctx, pattern); err != nil {
				b.Error(err)
			}
		})
	}
	setting.Wait()
	for _, bench := range []struct{ name, pattern string }{{"exact", "t.50.50.x"}, {"one of 100", "t.50.*.x"}} {
		b.Run(bench.name, func(b *testing.B) {
			for b.Loop() {
				s, err := late.Subscribe(bus.ctx, bench.pattern)
				if err != nil {
					b.Fatal(err)
				}
				if err := s.Close(context.Background()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
