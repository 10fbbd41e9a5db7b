package node

import (
	"context"
	"fmt"

	"github.com/bhome-bus/bhome/shmio"
	"github.com/bhome-bus/bhome/wire"
)

// How many messages of a batch ahead their blocks are asked for, before they are written and read.
const (
	writeAhead = 2
	readAhead  = 8
)

// batchChunk is how many messages share a look at the routes, a stamp and a commit.
const batchChunk = 64

// PublishBatch copies payloads and publishes them, in order; the queues' cursors move once for up to 64 of them, and the
// receivers are woken once. Errors are Publish's, and say how many messages went before: to all subscribers; of the rest
// some may have gone to some.
//
// Messages of up to 9 KiB that are too long to go inline may share a block of up to 71 KiB. It comes back when the last of
// them is released: who keeps one keeps all, and its quota is charged with all. They don't where a subscriber's queue drops
// the oldest, has a quota under 71 KiB × (Hold + 16), or is shorter than four times the batch, nor with Keep.
func (p *Publisher) PublishBatch(ctx context.Context, payloads [][]byte) error {
	for at := 0; at < len(payloads); {
		n, err := p.publishChunk(ctx, payloads[at:min(len(payloads), at+batchChunk)])
		at += n
		if err != nil {
			return fmt.Errorf("message %d of %d: %w", at, len(payloads), err)
		}
	}
	return nil
}

// batch is the messages of a chunk.
type batch struct {
	payloads [][]byte
	first    wire.Inline      // the head of the first, if it goes inline; the others have the numbers that follow
	blocks   []shmio.Outgoing // of lent, with a reference for each route: those that don't go inline, each in its place; nil: all go inline
	*lent
	group  *blockGroup // the blocks'
	shares bool        // messages may share a block
	one    message     // what message made last
}

// lent is the blocks of a batch's messages; a topic has one for all its batches.
type lent struct {
	each [batchChunk]shmio.Outgoing // zero: the message goes inline. Those that share a block have Word alone, and the first Held
	runs [batchChunk]run
}

// run is the messages that share a block with one: all their words say more.
type run struct {
	from  uint8 // the first
	count uint8 // 0: the message shares none
}

func (b *batch) len() int { return len(b.payloads) }

// alone tells whether message i shares no block.
func (b *batch) alone(i int) bool { return b.blocks == nil || b.runs[i].count == 0 }

// inline tells whether message i goes inline.
func (b *batch) inline(i int) bool { return b.blocks == nil || b.blocks[i].Word == 0 }

// head is message i's, which goes inline.
func (b *batch) head(i int) wire.Inline {
	in := b.first
	in.Seq += uint32(i)
	return in
}

// message is message i, and those behind it that share its block, until the next call. It holds the reference to a block of the route that
// it is for.
func (b *batch) message(i int) *message {
	switch {
	case b.inline(i):
		b.one = message{payload: b.payloads[i], in: b.head(i)}
	case b.alone(i):
		b.one = message{b: b.blocks[i].Held.(*block), held: 1}
	default:
		r := b.runs[i]
		b.one = message{b: b.blocks[r.from].Held.(*block), run: b.blocks[i : r.from+r.count], held: 1}
	}
	return &b.one
}

// unref gives back a route's references to what it doesn't get from message i on.
func (b *batch) unref(i int) {
	for ; i < len(b.blocks); i++ {
		b.message(i).release()
	}
}

// publishChunk publishes all payloads, and returns how many of them all routes have had when there is an error.
func (p *Publisher) publishChunk(ctx context.Context, payloads [][]byte) (int, error) {
	routes, err := p.begin(ctx)
	if err != nil {
		return 0, err
	}
	tp := p.topicPub
	defer tp.unlock()
	longest := 0
	for _, payload := range payloads {
		longest = max(longest, len(payload))
	}
	now := tp.n.clock.stamp(tp.n, 0)
	b := batch{payloads: payloads, first: tp.inline(tp.seq+1, now)}
	limit := tp.inlineLimit(routes)
	if longest <= limit {
		tp.seq += uint64(len(payloads))
		return tp.pushToAll(ctx, routes, &b)
	}
	takers := max(1, tp.takers(routes))
	b.shares = takers == len(routes) && canShare(routes, len(payloads))
	refused := tp.lend(ctx, &b, limit, int32(takers), now)
	done, err := tp.pushToAll(ctx, routes, &b)
	if takers > len(routes) { // the last reference is the topic's, and no block is shared
		for _, m := range b.blocks {
			if m.Held != nil {
				tp.sentLast(m.Held.(*block))
			}
		}
	}
	clear(b.blocks)
	if err == nil && refused != nil {
		err = fmt.Errorf("send on %q: %w", tp.topic, refused) // what came before it went
	}
	return done, err
}

// lend numbers the messages of b, and copies those that don't go inline into blocks with so many references. An error ends b before the
// message that has no block.
func (tp *topicPub) lend(ctx context.Context, b *batch, limit int, refs int32, now uint64) error {
	if tp.lent == nil {
		tp.lent = new(lent)
	}
	b.lent, b.blocks, b.group = tp.lent, tp.lent.each[:0], tp.group()
	h := tp.header(now)
	image := h.Image()
	for len(b.blocks) < len(b.payloads) {
		if rest := b.payloads[len(b.blocks):]; len(rest[0]) <= limit {
			tp.seq++
			b.runs[len(b.blocks)] = run{}
			b.blocks = append(b.blocks, shmio.Outgoing{})
		} else if err := tp.addBlocks(ctx, b, rest, limit, refs, now, &image); err != nil {
			b.payloads = b.payloads[:len(b.blocks)]
			return err
		}
	}
	return nil
}

// addBlocks adds blocks of the first of payloads, which is longer than limit, to b, and of some behind it: one that they share, or of all that
// need one of the same class, as long as the magazine has some.
func (tp *topicPub) addBlocks(ctx context.Context, b *batch, payloads [][]byte, limit int, refs int32, now uint64, image *wire.HeaderImage) error {
	var sh share
	if b.shares {
		sh = tp.shareOf(payloads, limit)
		if bl := tp.sharedBlock(ctx, b.group, sh, now); bl != nil {
			tp.fillShared(b, bl, sh.payloads, refs, image)
			return nil
		}
	}
	class, err := tp.n.classOf(len(payloads[0]))
	if err != nil {
		return err
	}
	most, least := int(wire.GetAllocSize(int(class))), limit
	if class > 0 {
		least = max(limit, int(wire.GetAllocSize(int(class)-1))) // shorter ones have a class of their own
	}
	same := 1
	for same < len(payloads) && len(payloads[same]) <= most && len(payloads[same]) > least {
		same++
	}
	var bs [batchChunk]*block
	n := b.group.popAll(class, bs[:same])
	if n == 0 {
		bl, err := tp.n.mag.getBy(ctx, b.group, class, wire.SocketNode, func() *block {
			if bl := b.group.pop(class); bl != nil {
				return bl
			}
			return b.group.popShared(sh)
		})
		switch {
		case err != nil:
			return fmt.Errorf("a block for %d bytes on %q: %w", len(payloads[0]), tp.topic, err)
		case bl.class != class: // one to share came back first
			tp.fillShared(b, bl, sh.payloads, refs, image)
			return nil
		}
		bs[0], n = bl, 1
	}
	tp.n.stats.loans.Add(uint64(n))
	for i, bl := range bs[:n] {
		payload := payloads[i]
		if i+writeAhead < n {
			shmio.WillWrite(bs[i+writeAhead].mem[:wire.HeaderSize+len(payloads[i+writeAhead])])
		}
		bl.fill(payload, refs)
		tp.seq++
		image.Put(bl.mem, uint32(len(payload)), blockID(bl), tp.seq)
		b.runs[len(b.blocks)] = run{}
		b.blocks = append(b.blocks, shmio.Outgoing{Held: bl, Word: bl.word, Size: uint64(len(payload))})
	}
	return nil
}
