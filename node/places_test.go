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
			for range rounds {
				if !p.try() {
					p.await()
					for !p.try() {
						<-p.freed
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

// Who gives up waiting may have taken the word that was for another.
func TestPlacesPassOn(t *testing.T) {
	p := newPlaces(2)
	p.try()
	p.try()
	p.await() // two wait
	p.await()
	p.leave()
	p.leave() // there is room for one word
	<-p.freed
	p.done() // the first has gone
	select {
	case <-p.freed:
	default:
		t.Error("nobody has told the second")
	}
	if !p.try() {
		t.Error("no place is free")
	}
	p.done()
}
