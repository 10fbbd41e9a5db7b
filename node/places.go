package node

import "sync/atomic"

// places are a number of places that are taken and left: a semaphore that costs one atomic operation each as long as nobody waits,
// and can be waited for together with other things. Who waits is served in turn: a place that is left is handed over, nobody who comes
// later takes it first. Safe for concurrent use.
type places struct {
	most    int32
	taken   atomic.Int32  // those in handed, too; pairs with waiters: each side changes its own first, then loads the other
	waiters atomic.Int32  // who waits at handed, or is about to
	handed  chan struct{} // places for those that wait; has room for all there are
}

func newPlaces(most int) *places {
	return &places{most: int32(most), handed: make(chan struct{}, most)}
}

// try takes a place if one is free and nobody waits.
func (p *places) try() bool { return p.waiters.Load() == 0 && p.grab() }

// grab takes a place if one is free.
func (p *places) grab() bool {
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
	if p.waiters.Load() > 0 {
		p.handed <- struct{}{}
		p.settle()
		return
	}
	p.taken.Add(-1)
	p.offer()
}

// offer hands what is free to those that wait: they may have come when nothing was.
func (p *places) offer() {
	if p.waiters.Load() > 0 && p.grab() {
		p.handed <- struct{}{}
		p.settle()
	}
}

// settle takes back what was handed over when nobody waits for it any more.
func (p *places) settle() {
	for p.waiters.Load() == 0 {
		select {
		case <-p.handed:
			p.taken.Add(-1)
			p.offer()
		default:
			return
		}
	}
}

// await begins waiting; true: there is a place already. Otherwise a value from handed is one. Either way done ends it.
func (p *places) await() bool {
	p.waiters.Add(1)
	return p.grab()
}

// done ends waiting, with a place or without.
func (p *places) done() {
	p.waiters.Add(-1)
	p.settle()
}
