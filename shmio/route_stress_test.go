package shmio

import (
	"context"
	"encoding/binary"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/bhome-bus/bhome/wire"
)

// magazine lends numbered blocks of plain memory, so that the race detector sees a block that is written while a
// receiver has it.
type magazine struct {
	mem  [][]byte
	free []uint64
}

type lentBlock struct {
	m *magazine
	n uint64
}

func (l lentBlock) Returned(uint64) { l.m.free = append(l.m.free, l.n) }

func newMagazine(n int) *magazine {
	m := &magazine{}
	for i := range n {
		m.mem = append(m.mem, make([]byte, 8))
		m.free = append(m.free, uint64(i))
	}
	return m
}

// sendAll pushes numbered messages, every third of them inline, and returns what the route says of them.
func sendAll(t *testing.T, p *pair, m *magazine, count int) {
	var payload [8]byte
	for i := 0; i < count; {
		var o Outcome
		if i%3 == 2 && p.w.spec.InlineLimit() >= 8 {
			binary.LittleEndian.PutUint64(payload[:], uint64(i))
			o = p.w.PushInline(wire.Inline{}, payload[:])
		} else {
			if len(m.free) == 0 {
				p.w.Commit()
				p.w.Reclaim()
				runtime.Gosched()
				continue
			}
			b := m.free[len(m.free)-1]
			m.free = m.free[:len(m.free)-1]
			binary.LittleEndian.PutUint64(m.mem[b], uint64(i))
			if o = p.w.Push(blockWord(b), 8, lentBlock{m, b}); o != Sent {
				m.free = append(m.free, b)
			}
		}
		switch o {
		case Sent, DroppedNewest:
			i++
			if i%5 != 0 {
				p.w.Commit()
			}
		case Full:
			if p.w.ArmSpace() {
				<-p.w.SpaceC()
			}
			p.w.DisarmSpace()
		default:
			t.Errorf("message %d: %v %v", i, o, p.w.Err())
			return
		}
	}
	p.w.Commit()
}

// TestStress runs senders against receivers, over the heap so that the race detector looks on.
func TestStress(t *testing.T) {
	count := 60_000
	if testing.Short() {
		count = 5_000
	}
	for _, policy := range []Policy{DropOldest, DropNewest, BlockOnFull} {
		for _, shape := range []RouteSpec{
			{Slots: 1, Depth: 1, Out: 3}, {Slots: 4, Depth: 4, Out: 6}, {Slots: 64, Depth: 8, Out: 16}, {Slots: 64, Depth: 16, Out: 20, Quota: 64},
		} {
			for _, wait := range []WaitStrategy{Adaptive, Park, BusySpin} {
				spec := shape
				spec.Policy, spec.First = policy, ^uint64(0)-1000
				t.Run(fmt.Sprintf("%v/%d-%d/%v", policy, spec.Slots, spec.Depth, wait), func(t *testing.T) {
					stress(t, spec, wait, count/3)
				})
			}
		}
	}
}

// stress runs two senders into one inbox.
func stress(t *testing.T, spec RouteSpec, wait WaitStrategy, count int) {
	in := NewInbox(wait)
	defer in.Close()
	const senders = 2
	var pairs [senders]*pair
	var mags [senders]*magazine
	var wg sync.WaitGroup
	var sending atomic.Int32
	sending.Store(senders)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for k := range senders {
		p := newPair(t, spec)
		pairs[k] = p
		mags[k] = newMagazine(int(spec.Out) + 2)
		p.toReader.on = func() { in.Wake(p.r) }
		p.toWriter.on = p.w.WakeSpace
		p.r.SetTag(k)
		in.Add(p.r)
		wg.Go(func() {
			sendAll(t, p, mags[k], count)
			sending.Add(-1)
		})
	}
	go func() {
		wg.Wait()
		cancel() // what is left is taken without waiting
	}()
	var one Record
	batch := []*Record{{}, {}, {}, {}}
	var got [senders]int
	var next [senders]uint64
	var held []func()
	take := func(r *Reader, rec *Record) {
		k := r.Tag().(int)
		var n uint64
		if rec.IsBlock() {
			place, _, _ := rec.Word.Message()
			mem := mags[k].mem[place/4-1]
			n = binary.LittleEndian.Uint64(mem)
			seq := rec.Seq
			held = append(held, func() {
				if again := binary.LittleEndian.Uint64(mem); again != n {
					t.Errorf("message %d became %d while held", n, again)
				}
				r.Return(seq)
			})
		} else {
			n = binary.LittleEndian.Uint64(rec.Payload)
		}
		if n < next[k] {
			t.Errorf("message %d after %d", n, next[k])
		}
		next[k] = n + 1
		got[k]++
		for len(held) > 2 { // of any route, the latest first
			held[len(held)-2]()
			held = append(held[:len(held)-2], held[len(held)-1])
		}
	}
	release := func() {
		for _, f := range held {
			f()
		}
		held = nil
	}
	for {
		if r, err := in.TryReceive(&one); r != nil {
			take(r, &one)
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		release() // so that no sender waits for what this one holds
		r, n, err := in.ReceiveBatch(ctx, batch)
		if ctx.Err() != nil && r == nil {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, rec := range batch[:n] {
			take(r, rec)
		}
	}
	in.Backstop()
	for r, _ := in.TryReceive(&one); r != nil; r, _ = in.TryReceive(&one) {
		take(r, &one)
		release()
	}
	release()
	for k, p := range pairs {
		if _, err := p.w.Reclaim(); err != nil {
			t.Fatal(err)
		}
		if got[k]+int(p.w.Dropped()) != count || (spec.Policy == BlockOnFull && got[k] != count) {
			t.Errorf("%d sent, %d received, %d counted as dropped", count, got[k], p.w.Dropped())
		}
		if p.w.Out() != 0 || p.w.BadReturns() != 0 || len(mags[k].free) != len(mags[k].mem) {
			t.Errorf("%d out, %d bad returns, %d of %d blocks free", p.w.Out(), p.w.BadReturns(), len(mags[k].free), len(mags[k].mem))
		}
	}
}
