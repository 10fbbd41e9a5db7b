package node

import (
	"context"

	"github.com/bhome-bus/bhome/shmio"
	"github.com/bhome-bus/bhome/wire"
)

// A block that several messages of a batch share takes so many bytes; each message an eighth of it at most.
const (
	leastShared = 4 << 10
	mostShared  = 72 << 10
)

// sharedQuota is how many of the largest blocks a route's quota must have room for, besides one for each message that its reader may hold: who
// keeps one message of each block is charged with all of them, and must still come to its Hold.
const sharedQuota = 16

// askAgain is how long after the center refused a block to share it isn't asked for another, in ns.
const askAgain = 100e6

// sharedDepth is how many times the messages of a batch a queue must have room for: where only a few of them fit at a time, each few come back
// by themselves, and nothing is won.
const sharedDepth = 4

// canShare tells whether n messages may share a block on all routes: not where the oldest is dropped alone, nor where a quota is too
// small, or a queue too short.
func canShare(routes []*outRoute, n int) bool {
	for _, o := range routes {
		spec := o.w.Spec()
		hold := uint64(spec.Out) - min(uint64(spec.Out), uint64(spec.Depth))
		if spec.Policy == shmio.DropOldest || spec.Quota != 0 && spec.Quota < (hold+sharedQuota)*mostShared || int(spec.Depth) < sharedDepth*n {
			return false
		}
	}
	return true
}

// inShared is what a message of so many bytes takes of a block with others.
func inShared(size int) int { return wire.HeaderSize + (size+wire.HeaderSize-1)&^(wire.HeaderSize-1) }

// addShared adds the first of payloads that are longer than limit to b, all in one block; false: they are too few or too long for that, or
// there is no block.
func (tp *topicPub) addShared(ctx context.Context, b *batch, payloads [][]byte, limit int, refs int32, now uint64, image *wire.HeaderImage) bool {
	n, bytes, longest := 0, 0, 0
	most := int(min(mostShared, tp.n.maxMessage.Load())) // nor is a block larger than a message may be
	for _, payload := range payloads {
		size := len(payload)
		next := bytes + inShared(size)
		if size <= limit || size > mostShared/8 || next > most {
			break
		}
		bytes = next
		longest = max(longest, size)
		n++
	}
	if bytes < max(leastShared, 8*longest) {
		return false
	}
	bl := tp.sharedBlock(ctx, b.group, uint8(wire.CalcAllocIndex(int64(bytes-wire.HeaderSize))))
	if bl == nil {
		tp.shareFrom = now + askAgain
		return false
	}
	tp.fillShared(b, bl, payloads[:n], refs, image)
	return true
}

// sharedBlock takes a block of the class, or without a center one that is larger; nil: there is none to be had, and who asks for smaller ones
// is told if there are none either.
func (tp *topicPub) sharedBlock(ctx context.Context, g *blockGroup, class uint8) *block {
	var one [1]*block
	if g.popAll(class, one[:]) > 0 {
		return one[0]
	}
	tp.n.reclaimRoutes()
	if g.popAll(class, one[:]) > 0 {
		return one[0]
	}
	if tp.n.link.Load() != nil {
		one[0], _ = tp.n.mag.ask(ctx, g, class, wire.SocketNode)
		return one[0]
	}
	for c := class + 1; wire.GetAllocSize(int(c)) <= 2*mostShared; c++ {
		if g.known(int(c)) != nil && g.popAll(c, one[:]) > 0 {
			return one[0]
		}
	}
	return nil
}

// fillShared adds payloads to b, all in bl.
func (tp *topicPub) fillShared(b *batch, bl *block, payloads [][]byte, refs int32, image *wire.HeaderImage) {
	from, end := len(b.blocks), 0
	mem, words := bl.mem, b.words[from:]
	for i, payload := range payloads {
		at := end
		end += inShared(len(payload))
		if end < len(mem) {
			shmio.WillWrite(mem[end:]) // the next
		}
		copy(mem[at+wire.HeaderSize:], payload)
		word := bl.word.Behind(at).WithMore()
		words[i] = word
		image.Put(mem[at:], uint32(len(payload)), uint64(word.Alone())>>4, tp.seq+uint64(i)+1)
	}
	n := len(payloads)
	tp.seq += uint64(n)
	tp.n.stats.loans.Add(1)
	bl.own(refs * int32(n))
	bl.size = end - wire.HeaderSize
	b.blocks = b.blocks[:from+n]
	b.blocks[from].Held, b.runs[from] = bl, uint8(n)
}
