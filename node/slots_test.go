package node

import (
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
)

// Slots are taken with the inbox's lock held and released without it, by whom it may be, at once or late: none is ever taken while it
// is out, and none gets lost or into the list twice.
func TestSlotsGoRound(t *testing.T) {
	s := slots{n: &Node{}}
	var inbox sync.Mutex
	var out sync.Map // *lot → *atomic.Bool
	has := func(l *lot) *atomic.Bool {
		v, _ := out.LoadOrStore(l, new(atomic.Bool))
		return v.(*atomic.Bool)
	}
	type message struct {
		m  Message
		is *atomic.Bool
	}
	msgs := make(chan message, 8)
	var receivers, releasers sync.WaitGroup
	for id := range 3 {
		receivers.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(id)))
			for range 20_000 {
				inbox.Lock()
				rec := s.Record()
				l := rec.Tag.(*lot)
				is := has(l)
				if !is.CompareAndSwap(false, true) {
					t.Error("a slot is taken that is out")
				}
				if r.IntN(4) == 0 { // as park does
					inbox.Unlock()
					inbox.Lock()
				}
				l.slots[0].rec.Word = 1 // no block
				what := r.IntN(8)
				if what == 0 {
					is.Store(false)
					s.Unused(rec)
				}
				inbox.Unlock()
				switch what {
				case 0:
				case 1:
					is.Store(false)
					l.slots[0].refuse()
				case 2, 3, 4:
					m := message{Message{l, l.serial() << serialShift}, is}
					is.Store(false)
					if err := m.m.Release(); err != nil {
						t.Error(err)
					}
				default:
					msgs <- message{Message{l, l.serial() << serialShift}, is}
				}
			}
		})
	}
	for range 3 {
		releasers.Go(func() {
			var some []Message
			for m := range msgs {
				m.is.Store(false) // before: from then on it is another's
				if some = append(some, m.m); len(some) > 3 {
					if err := ReleaseBatch(some); err != nil {
						t.Error(err)
					}
					some = some[:0]
				}
			}
			for _, m := range some {
				if err := m.Release(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	receivers.Wait()
	close(msgs)
	releasers.Wait()
	seen := map[*lot]bool{}
	for _, l := range s.singles.free {
		if seen[l] || l == s.current {
			t.Error("a slot is in the list twice, or the current one")
		}
		seen[l] = true
	}
	if len(seen)+1 != len(s.all) {
		t.Errorf("%d slots are in the list, there are %d", len(seen), len(s.all))
	}
}

// Messages of a lot are released by whom it may be, alone and together, some of them twice and with others that are none: each counts
// once, every slot is back as soon as its message is released, and none is there twice.
func TestLotsGoRound(t *testing.T) {
	const workers, rounds = 3, 4000
	n := &Node{}
	s := slots{n: n}
	jobs := make(chan []Message, workers)
	var released, refused atomic.Uint64
	var releasers sync.WaitGroup
	for id := range workers {
		releasers.Go(func() {
			r := rand.New(rand.NewPCG(2, uint64(id)))
			var late []Message
			for ms := range jobs {
				want := uint64(len(ms))
				ms = append(slices.Clone(ms), late...) // released long ago
				bad := uint64(len(late))
				if r.IntN(3) == 0 {
					ms, bad = append(ms, ms[0], Message{}), bad+1 // and just now; and none at all, which nobody counts
				}
				before := ms[:want]
				if r.IntN(2) == 0 {
					if err := ReleaseBatch(ms); bad > 0 != errors.Is(err, ErrReleased) {
						t.Error("released together:", err)
					}
				} else {
					for i, m := range ms {
						if err := m.Release(); (err == nil) != (uint64(i) < want) {
							t.Error("released alone:", i, want, err)
						}
					}
				}
				late = slices.Clone(before[:min(len(before), r.IntN(3))])
				released.Add(want)
				refused.Add(bad)
			}
		})
	}
	r := rand.New(rand.NewPCG(3, 0))
	out := map[*slot]bool{}
	for range rounds {
		sls, into := make([]*slot, 1+r.IntN(batchChunk)), make([]Message, batchChunk)
		s.getAll(sls)
		into = into[:r.IntN(len(sls)+1)]
		for i, sl := range sls {
			sl.rec.Word = 1 // no block
			if i < len(into) {
				out[sl] = true
			}
		}
		s.lend(nil, nil, true, sls, into)
		r.Shuffle(len(into), func(i, j int) { into[i], into[j] = into[j], into[i] })
		for len(into) > 0 { // those of a lot to several
			k := 1 + r.IntN(len(into))
			jobs <- into[:k]
			into = into[k:]
		}
	}
	close(jobs)
	releasers.Wait()
	if got := s.taken.Load(); got != released.Load() {
		t.Errorf("%d released, %d counted", released.Load(), got)
	}
	if got := n.stats.misused.Load(); got != refused.Load() {
		t.Errorf("%d refused, %d counted", refused.Load(), got)
	}
	seen := map[*slot]bool{}
	for _, sl := range s.batch.free {
		if seen[sl] {
			t.Error("a slot is free twice")
		}
		seen[sl] = true
	}
	if len(seen) != s.slots {
		t.Errorf("%d slots are free, there are %d", len(seen), s.slots)
	}
	for sl := range out {
		if !seen[sl] {
			t.Error("a slot got lost")
		}
	}
}

// Who keeps one message of each lot keeps no more slots than that.
func TestAKeptMessageKeepsOneSlot(t *testing.T) {
	s := slots{n: &Node{}}
	var kept []Message
	for range 100 {
		var sls [lotPlaces]*slot
		var ms [lotPlaces]Message
		s.getAll(sls[:])
		for _, sl := range sls {
			sl.rec.Word = 1
		}
		s.lend(nil, nil, true, sls[:], ms[:])
		kept = append(kept, ms[0])
		if err := ReleaseBatch(ms[1:9]); err != nil {
			t.Fatal(err)
		}
		for _, m := range ms[9:] {
			if err := m.Release(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if most := len(kept) + lotPlaces; s.slots > most {
		t.Errorf("%d slots for %d messages", s.slots, len(kept))
	}
	if err := ReleaseBatch(kept); err != nil {
		t.Fatal(err)
	}
}
