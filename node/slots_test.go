package node

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
)

// Slots are taken with the inbox's lock held and released without it, by whom it may be, at once or late: none is ever taken while it
// is out, and none gets lost or into the list twice.
func TestSlotsGoRound(t *testing.T) {
	var s slots
	var inbox sync.Mutex
	var out sync.Map // *slot → *atomic.Bool
	has := func(sl *slot) *atomic.Bool {
		v, _ := out.LoadOrStore(sl, new(atomic.Bool))
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
				sl := rec.Tag.(*slot)
				is := has(sl)
				if !is.CompareAndSwap(false, true) {
					t.Error("a slot is taken that is out")
				}
				if r.IntN(4) == 0 { // as park does
					inbox.Unlock()
					inbox.Lock()
				}
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
					sl.refuse()
				case 2, 3, 4:
					m := message{Message{sl, sl.serial.Load()}, is}
					is.Store(false)
					if err := m.m.Release(); err != nil {
						t.Error(err)
					}
				default:
					msgs <- message{Message{sl, sl.serial.Load()}, is}
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
	seen := map[*slot]bool{}
	for _, sl := range s.free {
		if seen[sl] || sl == s.current {
			t.Error("a slot is in the list twice, or the current one")
		}
		seen[sl] = true
	}
	if len(seen)+1 != len(s.all) {
		t.Errorf("%d slots are in the list, there are %d", len(seen), len(s.all))
	}
}
