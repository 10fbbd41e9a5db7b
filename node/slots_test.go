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
				l := rec.Tag.(*slot).lot
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
