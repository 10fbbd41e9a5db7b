package shmio

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/bhome-bus/bhome/wire"
)

// The bare benchmarks are what a queue costs that believes everything and forgets nothing: a tail, a head, the slots.
type bareRing struct {
	_    [128]byte
	tail atomic.Uint64
	_    [120]byte
	head atomic.Uint64
	_    [120]byte
	ring [1024]uint64
}

func BenchmarkBareWord(b *testing.B) {
	r := new(bareRing)
	var tail, head uint64
	b.ReportAllocs()
	for b.Loop() {
		r.ring[tail&1023] = 42
		tail++
		r.tail.Store(tail)
		if r.tail.Load() == head || atomic.LoadUint64(&r.ring[head&1023]) != 42 {
			b.Fatal()
		}
		head++
		r.head.Store(head)
	}
}

func BenchmarkBareInline64(b *testing.B) {
	r := new(bareRing)
	var tail, head uint64
	var in, out [8]uint64
	b.ReportAllocs()
	for b.Loop() {
		for i, v := range in {
			r.ring[(tail+uint64(i))&1023] = v
		}
		tail += 8
		r.tail.Store(tail)
		if r.tail.Load() == head {
			b.Fatal()
		}
		for i := range out {
			out[i] = r.ring[(head+uint64(i))&1023]
		}
		head += 8
		r.head.Store(head)
	}
}

func forPolicies(b *testing.B, spec RouteSpec, f func(b *testing.B, p *pair)) {
	for _, policy := range []Policy{DropOldest, DropNewest, BlockOnFull} {
		b.Run(policy.String(), func(b *testing.B) {
			spec.Policy = policy
			f(b, newPair(b, spec))
		})
	}
}

func BenchmarkInline64(b *testing.B) {
	forPolicies(b, RouteSpec{Slots: 1024, Depth: 64, Out: 128}, func(b *testing.B, p *pair) {
		payload := make([]byte, 64)
		in := wire.Inline{Topic: 7}
		var rec Record
		b.ReportAllocs()
		for b.Loop() {
			if p.w.PushInline(in, payload) != Sent {
				b.Fatal("full")
			}
			p.w.Commit()
			if ok, err := p.r.TryReceive(&rec); !ok || err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkBlock(b *testing.B) {
	forPolicies(b, RouteSpec{Slots: 1024, Depth: 64, Out: 128}, benchBlock)
}

func BenchmarkOneSlot(b *testing.B) {
	forPolicies(b, RouteSpec{Slots: 1, Depth: 1, Out: 2}, benchBlock)
}

func benchBlock(b *testing.B, p *pair) {
	w := blockWord(1)
	var h Held = heldFunc(func(uint64) {})
	var rec Record
	b.ReportAllocs()
	for b.Loop() {
		if p.w.Push(w, 1000, h) != Sent {
			b.Fatal("full")
		}
		p.w.Commit()
		if ok, err := p.r.TryReceive(&rec); !ok || err != nil {
			b.Fatal(err)
		}
		p.r.Return(rec.Seq)
		p.w.Reclaim()
	}
}

func BenchmarkBatch64(b *testing.B) {
	forPolicies(b, RouteSpec{Slots: 1024, Depth: 64, Out: 128}, func(b *testing.B, p *pair) {
		w := blockWord(1)
		var rec Record
		b.ReportAllocs()
		for n := 0; b.Loop(); n++ { // one message each
			if p.w.Push(w, 1000, nil) != Sent {
				b.Fatal("full")
			}
			if n&63 == 63 {
				p.w.Commit()
				for range 64 {
					if ok, err := p.r.TryReceive(&rec); !ok || err != nil {
						b.Fatal(err)
					}
					p.r.Return(rec.Seq)
				}
				p.w.Reclaim()
			}
		}
	})
}

// BenchmarkOverwrite pushes into a full route.
func BenchmarkOverwrite(b *testing.B) {
	p := newPair(b, RouteSpec{Slots: 128, Depth: 64, Out: 128})
	w := blockWord(1)
	b.ReportAllocs()
	for b.Loop() {
		if p.w.Push(w, 1000, nil) != Sent {
			b.Fatal("full")
		}
		p.w.Commit()
	}
}

// BenchmarkInbox receives through an inbox of one hot route and a thousand cold ones.
func BenchmarkInbox(b *testing.B) {
	in := NewInbox(Adaptive)
	defer in.Close()
	var p *pair
	for range 1001 {
		p = newPair(b, RouteSpec{Slots: 1024, Depth: 64, Out: 128, Policy: DropNewest})
		in.Add(p.r)
	}
	payload := make([]byte, 64)
	var rec Record
	do := func() {
		p.w.PushInline(wire.Inline{}, payload)
		p.w.Commit()
		if _, err := in.Receive(context.Background(), &rec); err != nil {
			b.Fatal(err)
		}
	}
	for range coolAfter + 1 {
		do()
	}
	b.ReportAllocs()
	for b.Loop() {
		do()
	}
}

// BenchmarkRoundTrip sends 64 bytes there and back between two goroutines.
func BenchmarkRoundTrip(b *testing.B) {
	for _, s := range []WaitStrategy{BusySpin, Adaptive, Park} {
		b.Run(s.String(), func(b *testing.B) {
			var ins [2]*Inbox
			var ps [2]*pair
			for k := range 2 {
				ins[k] = NewInbox(s)
				ps[k] = newPair(b, RouteSpec{Slots: 1024, Depth: 64, Out: 128, Policy: DropNewest})
				ps[k].toReader.on = func() { ins[k].Wake(ps[k].r) }
				ins[k].Add(ps[k].r)
			}
			payload := make([]byte, 64)
			done := make(chan struct{})
			go func() {
				defer close(done)
				var rec Record
				for {
					if _, err := ins[0].Receive(context.Background(), &rec); err != nil {
						return
					}
					ps[1].w.PushInline(wire.Inline{}, rec.Payload)
					ps[1].w.Commit()
				}
			}()
			var rec Record
			b.ReportAllocs()
			for b.Loop() {
				ps[0].w.PushInline(wire.Inline{}, payload)
				ps[0].w.Commit()
				if _, err := ins[1].Receive(context.Background(), &rec); err != nil {
					b.Fatal(err)
				}
			}
			ins[0].Close()
			<-done
			ins[1].Close()
		})
	}
}

// BenchmarkBareRoundTrip is the same with nothing but a word in each direction.
func BenchmarkBareRoundTrip(b *testing.B) {
	there, back := new(bareRing), new(bareRing)
	var stop atomic.Bool
	done := make(chan struct{})
	wait := func(r *bareRing, n uint64) bool {
		for k := 1; r.tail.Load() != n; k++ {
			if k&15 == 0 {
				if stop.Load() {
					return false
				}
				runtime.Gosched()
			}
		}
		return true
	}
	go func() {
		defer close(done)
		for n := uint64(1); wait(there, n); n++ {
			back.ring[n&1023] = there.ring[n&1023]
			back.tail.Store(n)
		}
	}()
	n := uint64(0)
	for b.Loop() {
		n++
		there.ring[n&1023] = n
		there.tail.Store(n)
		wait(back, n)
	}
	stop.Store(true)
	<-done
}

// BenchmarkOneWay sends 64 bytes in one direction between two goroutines.
func BenchmarkOneWay(b *testing.B) {
	for _, batch := range []int{1, 64} {
		b.Run(map[int]string{1: "single", 64: "batch"}[batch], func(b *testing.B) {
			in := NewInbox(BusySpin)
			p := newPair(b, RouteSpec{Slots: 16384, Depth: 1024, Out: 1100, Policy: BlockOnFull})
			p.toReader.on = func() { in.Wake(p.r) }
			in.Add(p.r)
			received := make(chan struct{})
			go func() {
				defer close(received)
				var rec Record
				for n := 0; n < b.N; n++ {
					if _, err := in.Receive(context.Background(), &rec); err != nil {
						b.Error(err)
						return
					}
				}
			}()
			payload := make([]byte, 64)
			b.ReportAllocs()
			b.ResetTimer()
			for n := 0; n < b.N; {
				if p.w.PushInline(wire.Inline{}, payload) != Sent {
					p.w.Commit()
					runtime.Gosched()
					continue
				}
				if n++; n%batch == 0 {
					p.w.Commit()
				}
			}
			p.w.Commit()
			<-received
			in.Close()
		})
	}
}
