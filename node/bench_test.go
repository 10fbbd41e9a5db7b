package node_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/bhome-bus/bhome/node"
)

// BenchmarkPublishReceive is a message's whole way within one goroutine: no waiting, no other core.
func BenchmarkPublishReceive(b *testing.B) {
	for _, bench := range []struct {
		name string
		size int
	}{{"64B", 64}, {"1KiB", 1 << 10}, {"64KiB", 64 << 10}} {
		b.Run(bench.name, func(b *testing.B) {
			bus := newBus(b)
			pub := bus.publisher(bus.attach("pub"), "a")
			sub := bus.subscribe(bus.attach("sub"), "a")
			payload := make([]byte, bench.size)
			ctx := context.Background()
			b.SetBytes(int64(bench.size))
			b.ReportAllocs()
			for b.Loop() {
				if err := pub.Publish(ctx, payload); err != nil {
					b.Fatal(err)
				}
				m, err := sub.Receive(ctx)
				if err != nil {
					b.Fatal(err)
				}
				if err := m.Release(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkPublishReceiveBatch is the same, 64 messages at a time.
func BenchmarkPublishReceiveBatch(b *testing.B) {
	const batch = 64
	for _, bench := range []struct {
		size   int
		policy node.Policy
	}{{64, node.Block}, {64, node.DropOldest}, {1 << 10, node.Block}, {1 << 10, node.DropOldest}} {
		size := bench.size
		b.Run(fmt.Sprint(size, "B/", bench.policy), func(b *testing.B) {
			bus := newBus(b)
			pub := bus.publisher(bus.attach("pub"), "a")
			sub := bus.subscribe(bus.attach("sub"), "a", node.Depth(128), node.OnFull(bench.policy))
			ctx := context.Background()
			payloads, ms := make([][]byte, batch), make([]node.Message, batch)
			for i := range payloads {
				payloads[i] = make([]byte, size)
			}
			b.SetBytes(int64(batch * size))
			b.ReportAllocs()
			for b.Loop() {
				if err := pub.PublishBatch(ctx, payloads); err != nil {
					b.Fatal(err)
				}
				for got := 0; got < batch; {
					n, err := sub.ReceiveBatch(ctx, ms)
					if err != nil {
						b.Fatal(err)
					}
					if err := node.ReleaseBatch(ms[:n]); err != nil {
						b.Fatal(err)
					}
					got += n
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/batch, "ns/msg")
		})
	}
}

// BenchmarkPublish is the sender's part: the reader stalls, and the oldest message goes each time.
func BenchmarkPublish(b *testing.B) {
	bus := newBus(b)
	pub := bus.publisher(bus.attach("pub"), "a")
	bus.subscribe(bus.attach("sub"), "a", node.Depth(64))
	payload := make([]byte, 64)
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		if err := pub.Publish(ctx, payload); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRequest is a request and its answer: 64 bytes each, between two goroutines that wait for one another.
func BenchmarkRequest(b *testing.B) {
	bus := newBus(b)
	ctx := context.Background()
	payload := make([]byte, 64)
	echo := func(context.Context, *node.Request) ([]byte, error) { return payload, nil }
	if _, err := bus.attach("provider").Serve(ctx, "echo", echo); err != nil {
		b.Fatal(err)
	}
	client := bus.attach("client")
	if err := client.WaitForService(ctx, "echo"); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		r, err := client.Request(ctx, "echo", payload)
		if err != nil {
			b.Fatal(err)
		}
		if err := r.Release(); err != nil {
			b.Fatal(err)
		}
	}
}
