package node

import (
	"sync"
	"sync/atomic"
	"testing"
)

// However many want a few places, never more have one, and all get one in the end: a wake-up that is lost hangs.
func TestPlaces(t *testing.T) {
	const most, goroutines, rounds = 3, 16, 2000
	p := newPlaces(most)
	var inside, peak atomic.Int32
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for i := range rounds {
				if !p.try() {
					has := p.await()
					if !has && i%5 == 0 { // it gives up at once
						select {
						case <-p.handed:
							has = true
						default:
							p.done()
							continue
						}
					}
					if !has {
						<-p.handed
					}
					p.done()
				}
				n := inside.Add(1)
				for at := peak.Load(); n > at && !peak.CompareAndSwap(at, n); at = peak.Load() {
				}
				inside.Add(-1)
				p.leave()
			}
		})
	}
	wg.Wait()
	if n := peak.Load(); n > most {
		t.Errorf("%d have a place at once, of %d", n, most)
	}
	if p.taken.Load() != 0 || p.waiters.Load() != 0 {
		t.Errorf("%d places are taken, %d wait", p.taken.Load(), p.waiters.Load())
	}
}

// What was handed to one who gives up is the next one's; and nobody's if there is none.
func TestPlacesPassOn(t *testing.T) {
	p := newPlaces(2)
	p.try()
	p.try()
	for range 2 { // they wait
		if p.await() {
			t.Error("there were places")
		}
	}
	p.leave()
	if p.try() {
		t.Error("one who came later is served first")
	}
	p.done() // the first has gone, without it
	select {
	case <-p.handed:
	default:
		t.Error("the second doesn't have it")
	}
	p.done()
	p.leave()
	p.leave()
	if p.await() {
		p.leave()
	}
	p.done()
	if p.taken.Load() != 0 || len(p.handed) != 0 || !p.try() || !p.try() || p.try() {
		t.Errorf("%d are taken, %d handed over", p.taken.Load(), len(p.handed))
	}
}
