package node

import "github.com/bhome-bus/bhome/wire"

// hotBytes is about how much idle memory of a class is lent in turn.
const hotBytes = 4 << 20

// idleBlocks is the idle blocks of a class. What came back last goes round: of the last few megabytes the one that has been
// back longest is lent next, so that blocks are written in the order in which they lie, as the caches like it, and what a
// receiver has just read has left its cache before it is written again (docs/decisions/0027). What is beyond gets cold, and
// is there for who gives memory back. The zero idleBlocks has none; not for concurrent use.
type idleBlocks struct {
	cold []*block
	ring []*block // a power of two; hot ones from first on
	at   int      // of the ring: the first
	hot  int      // how many are in the ring
	most int      // how many may be without another look at how many may be
}

// turn is how many blocks of a class are lent in turn.
func turn(class uint8) int { return max(4, int(hotBytes/wire.BlockSize(class))) }

func (q *idleBlocks) len() int { return len(q.cold) + q.hot }

// push takes a block that came back.
func (q *idleBlocks) push(b *block) {
	if q.hot == q.most {
		q.makeRoom(turn(b.class))
	}
	q.ring[(q.at+q.hot)&(len(q.ring)-1)] = b
	q.hot++
}

// makeRoom lets one more be hot, or one less.
func (q *idleBlocks) makeRoom(turn int) {
	if q.hot == turn {
		q.cold = append(q.cold, q.shift())
		return
	}
	ring := make([]*block, max(4, 2*len(q.ring)))
	for i := range q.hot {
		ring[i] = q.ring[(q.at+i)&(len(q.ring)-1)]
	}
	q.ring, q.at, q.most = ring, 0, min(len(ring), turn)
}

// shift takes the first of the ring, which has one.
func (q *idleBlocks) shift() *block {
	b := q.ring[q.at]
	q.ring[q.at] = nil
	q.at = (q.at + 1) & (len(q.ring) - 1)
	q.hot--
	return b
}

// pop takes the block that is to be lent next, nil if there is none.
func (q *idleBlocks) pop() *block {
	if q.hot > 0 {
		return q.shift()
	}
	n := len(q.cold)
	if n == 0 {
		return nil
	}
	b := q.cold[n-1]
	q.cold[n-1] = nil
	q.cold = q.cold[:n-1]
	return b
}

// popAll takes up to len(into) blocks, in the order in which pop would, and returns how many.
func (q *idleBlocks) popAll(into []*block) (n int) {
	for q.hot > 0 && n < len(into) { // in one piece or two
		k := copy(into[n:], q.ring[q.at:min(len(q.ring), q.at+q.hot)])
		clear(q.ring[q.at : q.at+k])
		q.at = (q.at + k) & (len(q.ring) - 1)
		q.hot -= k
		n += k
	}
	for n < len(into) && len(q.cold) > 0 {
		into[n] = q.pop()
		n++
	}
	return n
}

// next is the hot block that pop would take, nil if there is none. Its size is that of what it held last.
func (q *idleBlocks) next() *block {
	if q.hot == 0 {
		return nil
	}
	return q.ring[q.at]
}

// all lists the blocks, the coldest first.
func (q *idleBlocks) all() []*block {
	list := make([]*block, 0, q.len())
	list = append(list, q.cold...)
	for i := range q.hot {
		list = append(list, q.ring[(q.at+i)&(len(q.ring)-1)])
	}
	return list
}

// set has list, the coldest first, be all that there is.
func (q *idleBlocks) set(list []*block) {
	*q = idleBlocks{}
	for _, b := range list {
		q.push(b)
	}
}
