package shmio

import (
	"slices"
	"testing"

	"github.com/bhome-bus/bhome/wire"
)

type died struct{}

// dieAt runs f until its n-th step; false: it came to its end before.
func dieAt(step *func(string), n int, f func()) (dead bool) {
	defer func() {
		*step = nil
		if r := recover(); r != nil {
			if _, ok := r.(died); !ok {
				panic(r)
			}
			dead = true
		}
	}()
	*step = func(string) {
		if n--; n < 0 {
			panic(died{})
		}
	}
	f()
	return false
}

// deathScripts are pushes and receives that take every turn there is.
func deathScripts() []RouteSpec {
	near := ^uint64(0) - 3
	return []RouteSpec{
		{Slots: 1, Depth: 1, Out: 3, First: near},
		{Slots: 4, Depth: 2, Out: 5, First: near},
		{Slots: 16, Depth: 4, Out: 8, First: near, Quota: 3},
		{Slots: 4, Depth: 4, Out: 5, First: near, Policy: DropNewest},
		{Slots: 4, Depth: 4, Out: 5, First: near, Policy: BlockOnFull},
	}
}

// TestSenderDiesAtAnyStep: what it published is read, in order, and nothing else; its table shows every block that a
// receiver may hold.
func TestSenderDiesAtAnyStep(t *testing.T) {
	for _, spec := range deathScripts() {
		for n := 0; ; n++ {
			p := newPair(t, spec)
			committed := -1 // last message that was surely published
			dead := dieAt(&p.w.step, n, func() {
				var rec Record
				for i := range uint64(12) {
					p.w.Push(blockWord(i), 1, nil)
					p.w.Commit()
					committed = int(i)
					if i%4 == 2 {
						if ok, err := p.r.TryReceive(&rec); !ok || err != nil {
							t.Fatal(ok, err)
						}
						p.r.Return(rec.Seq)
					}
				}
			})
			p.r.SetPeerDead()
			shown := map[wire.Word]bool{}
			v, err := ScanOut(p.wmem, func(_ uint64, w wire.Word) { shown[w] = true })
			if err != nil || v.ID != p.w.spec.ID {
				t.Fatal(v, err)
			}
			var got []wire.Word
			var rec Record
			for {
				ok, err := p.r.TryReceive(&rec)
				if err != nil {
					t.Fatalf("%+v, dead after %d steps: %v", spec, n, err)
				}
				if !ok {
					break
				}
				// The one sequence number that a table can't show is 2^64-1.
				if got = append(got, rec.Word); !shown[rec.Word] && rec.Seq+1 != 0 {
					t.Fatalf("%+v, dead after %d steps: %#x is in nobody's table", spec, n, rec.Word)
				}
				if spec.Policy != DropOldest {
					p.r.Return(rec.Seq)
				}
			}
			if !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != len(got) {
				t.Fatalf("%+v, dead after %d steps: %v", spec, n, got)
			}
			if spec.Policy == DropOldest && spec.Slots > 1 && committed >= 0 && int64(len(got)) < p.r.spec.holdLimit() &&
				(len(got) == 0 || got[len(got)-1] < blockWord(uint64(committed))) {
				t.Fatalf("%+v, dead after %d steps: %v, the last committed was %d", spec, n, got, committed)
			}
			if !dead {
				break
			}
		}
	}
}

// TestReceiverDiesAtAnyStep: every block comes back once, whatever it had in hand.
func TestReceiverDiesAtAnyStep(t *testing.T) {
	for _, spec := range deathScripts() {
		for n := 0; ; n++ {
			p := newPair(t, spec)
			back := map[uint64]int{}
			sent := 0
			push := func(i uint64) {
				if p.w.Push(blockWord(i), 1, heldFunc(func(uint64) { back[i]++ })) == Sent {
					sent++
				}
				p.w.Commit()
			}
			dead := dieAt(&p.r.step, n, func() {
				var rec Record
				for i := range uint64(12) {
					push(i)
					if i%3 == 0 { // the others are overwritten
						for ok, _ := p.r.TryReceive(&rec); ok; ok, _ = p.r.TryReceive(&rec) {
							if i != 6 {
								p.r.Return(rec.Seq)
							}
						}
						p.r.Arm()
						p.r.Disarm()
					}
				}
			})
			for i := range uint64(5) { // it isn't known to be dead yet
				push(100 + i)
			}
			if _, err := p.w.Reclaim(); err != nil {
				t.Fatalf("%+v, dead after %d steps: %v", spec, n, err)
			}
			p.w.ReclaimAll()
			if len(back) != sent {
				t.Fatalf("%+v, dead after %d steps: %d of %d blocks came back", spec, n, len(back), sent)
			}
			for i, k := range back {
				if k != 1 {
					t.Fatalf("%+v, dead after %d steps: block %d came back %d times", spec, n, i, k)
				}
			}
			if !dead {
				break
			}
		}
	}
}
