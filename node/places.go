package node

import "sync/atomic"

// places are a number of places that are taken and left: a semaphore that costs one atomic operation each as long as nobody waits,
// and can be waited for together with other things. Safe for concurrent use.
type places struct {
	most    int32
	taken   atomic.Int32  // pairs with waiters: each side changes its own first, then loads the other
	waiters atomic.Int32  // who waits at freed, or is about to
	freed   chan struct{} // a place may be free; holds one
}

func newPlaces(most int) *places { return &places{most: int32(most), freed: make(chan struct{}, 1)} }

// try takes a place if one is free.
func (p *places) try() bool {
	for {
		t := p.taken.Load()
		if t >= p.most {
			return false
		}
		if p.taken.CompareAndSwap(t, t+1) {
			return true
		}
	}
}

// leave gives a place back.
func (p *places) leave() {
	p.taken.Add(-1)
	p.tell()
}

// tell wakes one of those that wait.
func (p *places) tell() {
	if p.waiters.Load() > 0 {
		select {
		case p.freed <- struct{}{}:
		default:
		}
	}
}

// await begins waiting: until done is called try is to be repeated, and again whenever freed has had a value.
func (p *places) await() { p.waiters.Add(1) }

// done ends waiting, with a place or without.
func (p *places) done() {
	p.waiters.Add(-1)
	if p.taken.Load() < p.most { // what freed said may have been for more than one
		p.tell()
	}
}
