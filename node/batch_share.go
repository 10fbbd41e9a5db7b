package node

import (
	"context"

	"github.com/bhome-bus/bhome/shmio"
	"github.com/bhome-bus/bhome/wire"
)

// A block that several messages of a batch share takes so many bytes; the payload of each at most an eighth of what all take.
const (
	leastShared = 4 << 10
	mostShared  = 71<<10 - wire.HeaderSize // what fits in one of mostClass: 64 messages of 1 KiB, for one
	mostClass   = 83
)

// sharedQuota is how many of the largest blocks a route's quota must have room for, besides one for each message that its reader may hold: who
// keeps one message of each block is charged with all of them, and must still come to its Hold.
const sharedQuota = 16

// askAgain is how long after the center gave no block to share it isn't asked for another, in ns.
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

// share is messages that can share a block.
type share struct {
	payloads [][]byte // none: they are too few or too long
	class    uint8    // of the block that is asked for
}

// shareOf is as many of the first of payloads as can share a block.
func (tp *topicPub) shareOf(payloads [][]byte, limit int) share {
	most := int(min(mostShared, tp.n.maxMessage.Load())) // nor is a block larger than a message may be
	n, bytes := fitShared(payloads, limit, most)
	if n == 0 {
		return share{}
	}
	return share{payloads: payloads[:n], class: sharedClass(bytes, most)}
}

// fitShared is how many of the first of payloads share a block, and how many bytes of one they take: as many as can, each of which is longer
// than limit, and no longer than an eighth of that. 0: they are too few or too long.
func fitShared(payloads [][]byte, limit, most int) (n, bytes int) {
	at, longest := 0, 0
	for i, payload := range payloads {
		size := len(payload)
		at += inShared(size)
		longest = max(longest, size)
		if size <= limit || size > mostShared/8 || at > most {
			break
		}
		if at >= max(leastShared, 8*longest) {
			n, bytes = i+1, at
		}
	}
	return n, bytes
}

// sharedClass is that of the block that is asked for where so many bytes are needed: every third, so that batches of any lengths use the
// same blocks, which are 30 % too large at most.
func sharedClass(bytes, most int) uint8 {
	const every = 3
	class := uint8(wire.CalcAllocIndex(int64(bytes - wire.HeaderSize)))
	for c := class; c < class+every; c++ {
		if c%every == mostClass%every && wire.BlockSize(c) <= uint64(most)+wire.HeaderSize {
			return c
		}
	}
	return class
}

// sharedBlock takes a block for sh, if there is one or the center is to be waited for anyway; nil: there is none now.
func (tp *topicPub) sharedBlock(ctx context.Context, g *blockGroup, sh share, now uint64) *block {
	bl := g.popShared(sh)
	lk := tp.n.link.Load()
	if bl != nil || sh.payloads == nil || lk == nil || now < tp.askFrom.Load() || tp.asksShared.Load() {
		return bl
	}
	tp.n.reclaimRoutes()
	if bl = g.popShared(sh); bl != nil {
		return bl
	}
	if !g.idleFor(sh.payloads) {
		return tp.askShared(ctx, lk, g, sh.class) // who asks for smaller ones is told if there are none
	}
	tp.asksShared.Store(true)
	tp.n.background(func(ctx context.Context) {
		if bl := tp.askShared(ctx, lk, g, sh.class); bl != nil {
			tp.n.mag.put(bl)
		}
		tp.asksShared.Store(false)
	})
	return nil
}

// askShared asks the center for a block to share; nil: it isn't to be asked again for a while.
func (tp *topicPub) askShared(ctx context.Context, lk *link, g *blockGroup, class uint8) *block {
	bl, err := tp.n.mag.ask(ctx, lk, g, class, wire.SocketNode)
	if err != nil {
		tp.askFrom.Store(tp.n.clock.stamp(tp.n, 0) + askAgain)
	}
	return bl
}

// fillShared adds payloads to b, all in bl.
func (tp *topicPub) fillShared(b *batch, bl *block, payloads [][]byte, refs int32, image *wire.HeaderImage) {
	from, n, end := len(b.blocks), len(payloads), 0
	b.blocks = b.blocks[:from+n]
	mem, in := bl.mem, run{uint8(from), uint8(n)}
	for i, payload := range payloads {
		at := end
		end += inShared(len(payload))
		if end < len(mem) {
			shmio.WillWrite(mem[end:]) // the next
		}
		copy(mem[at+wire.HeaderSize:], payload)
		word := bl.word.Behind(at).WithMore()
		b.blocks[from+i].Word, b.runs[from+i] = word, in
		image.Put(mem[at:], uint32(len(payload)), uint64(word.Alone())>>4, tp.seq+uint64(i)+1)
	}
	tp.seq += uint64(n)
	tp.n.stats.loans.Add(1)
	bl.own(refs * int32(n))
	bl.size = end - wire.HeaderSize
	b.blocks[from].Held = bl
}
