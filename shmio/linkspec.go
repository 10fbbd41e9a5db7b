package shmio

// FirstUpQueue is the number of a link's first queue up, the next is its second; 0 to 3 are down, one per socket index (docs/abi.md
// section 6).
const FirstUpQueue = 8

// LinkSpec is the route that a link's queue is. The ids are the same on every link, so that each side can lay out its halves before
// it knows the other. What a node says fills its queue at once, and is answered; the answers that find no room wait at the center:
// so the queues down are short, as every idle node has all of them.
func LinkSpec(queue int) RouteSpec {
	slots := uint32(128)
	if queue >= FirstUpQueue {
		slots = 256
	}
	return RouteSpec{ID: uint64(16 + queue), Slots: slots, Depth: slots, Out: 16, Policy: BlockOnFull, Quota: 1 << 20}
}
