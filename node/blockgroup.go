package node

import (
	"sync"
	"sync/atomic"

	"github.com/bhome-bus/bhome/shmio"
	"github.com/bhome-bus/bhome/wire"
)

// blockGroup is the idle blocks of one access group: they lie in segments that only processes get which the group admits.
type blockGroup struct {
	mag     *magazine
	access  string                                           // "": every peer
	classes [wire.AllocClasses]atomic.Pointer[magazineClass] // made when it is first asked for: most nodes use a few. Pairs with class
}

// class is what there is of a class.
func (g *blockGroup) class(class uint8) *magazineClass {
	if c := g.classes[class].Load(); c != nil {
		return c
	}
	c := &magazineClass{}
	if g.mag.limit > 0 {
		c.most = max(1, min(g.mag.limit, int(maxClassBytes/wire.BlockSize(class))))
	}
	g.classes[class].CompareAndSwap(nil, c) // another may have been first
	return g.classes[class].Load()
}

// known is the class if it was ever asked for, else nil.
func (g *blockGroup) known(class int) *magazineClass { return g.classes[class].Load() }

type magazineClass struct {
	most int // blocks that it keeps idle: always the same
	mu   sync.Mutex
	idle idleBlocks
	low  int // the fewest that it had since the last idle check
}

// pop takes the block whose turn it is, nil if there is none.
func (g *blockGroup) pop(class uint8) *block {
	c := g.class(class)
	c.mu.Lock()
	b := c.idle.pop()
	var next []byte
	if n := c.idle.next(); n != nil {
		next = n.mem[:wire.HeaderSize+n.size]
	}
	c.low = min(c.low, c.idle.len())
	c.mu.Unlock()
	shmio.WillWrite(next) // it comes while the caller fills and sends this one
	return b
}

// popAll takes up to len(into) blocks with one look, in turn, and returns how many.
func (g *blockGroup) popAll(class uint8, into []*block) int {
	c := g.class(class)
	c.mu.Lock()
	n := c.idle.popAll(into)
	c.low = min(c.low, c.idle.len())
	c.mu.Unlock()
	return n
}

// popShared takes an idle block for sh: of the class that is asked for, or else a larger one, of up to twice the size, as far as blocks are
// shared at all. nil: there is none, or none is wanted.
func (g *blockGroup) popShared(sh share) *block {
	if sh.payloads == nil {
		return nil
	}
	var one [1]*block
	first := int(sh.class)
	for c := first; c == first || c <= mostClass && wire.BlockSize(uint8(c)) <= 2*wire.BlockSize(sh.class); c++ {
		if g.known(c) != nil && g.popAll(uint8(c), one[:]) > 0 {
			return one[0]
		}
	}
	return nil
}

// idle is how many blocks of the class nobody refers to.
func (g *blockGroup) idle(class uint8) int {
	c := g.known(int(class))
	if c == nil {
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.idle.len()
}

// idleFor tells whether there is an idle block for each of payloads, whose lengths are such that there can be.
func (g *blockGroup) idleFor(payloads [][]byte) bool {
	var want [wire.AllocClasses]int
	for _, payload := range payloads {
		class := wire.CalcAllocIndex(int64(len(payload)))
		if want[class]++; want[class] > g.idle(uint8(class)) {
			return false
		}
	}
	return true
}

// drop takes k references of b, and b if they were the last; false: there is no room for it. c is locked, and b's home.
func (c *magazineClass) drop(b *block, k int32) (kept bool) {
	if b.refs -= k; b.refs > 0 {
		return true
	}
	if c.idle.len() >= c.most {
		return false
	}
	c.idle.push(b)
	return true
}

// takeBack takes the references of blocks at the start of hs that are of c, and returns how many; not kept: there was no room for the one
// after them, whose reference is gone all the same. c is locked.
func (c *magazineClass) takeBack(hs []shmio.Held) (n int, kept bool) {
	for _, h := range hs {
		b := h.(*block)
		if b.home != c {
			break
		}
		if !c.drop(b, 1) {
			return n, false
		}
		n++
	}
	return n, true
}
