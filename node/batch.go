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

// batch is the messages of a chunk: blocks and copies that are made already, or payloads that go inline.
type batch struct {
	ms       []message
	payloads [][]byte    // if there are no ms,
	first    wire.Inline // and the head of the first; the others have the numbers that follow
	one      message     // what message made last
}

func (b *batch) len() int { return max(len(b.ms), len(b.payloads)) }

// head is message i's, which goes inline.
func (b *batch) head(i int) wire.Inline {
	in := b.first
	in.Seq += uint32(i)
	return in
}

// message is message i, until the next call.
func (b *batch) message(i int) *message {
	if b.ms != nil {
		return &b.ms[i]
	}
	b.one.payload, b.one.in = b.payloads[i], b.head(i)
	return &b.one
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
	if longest <= wire.MaxInline && p.allInline(longest) {
		var m message
		tp.number(&m, now)
		tp.seq += uint64(len(payloads) - 1)
		return tp.pushToAll(ctx, routes, &batch{payloads: payloads, first: m.in})
	}
	if tp.chunk == nil {
		tp.chunk = new([batchChunk]message)
	}
	ms := tp.chunk[:0]
	takers := tp.takers(routes)
	head := tp.header(now)
	var lent error
	for len(ms) < len(payloads) && lent == nil {
		ms, lent = p.appendMessages(ctx, ms, payloads[len(ms):], takers, &head)
	}
	done, err := tp.pushToAll(ctx, routes, &batch{ms: ms})
	for i := range ms {
		ms[i].sent(tp, takers, len(routes))
	}
	clear(ms) // the payloads are the caller's
	if err != nil {
		return done, err
	}
	if lent != nil {
		return done, fmt.Errorf("send on %q: %w", tp.topic, lent) // what came before it went
	}
	return done, nil
}

// appendMessages makes messages, in the room of ms, of the first of payloads, at least one: all that need a block of the same class, of which
// the magazine has some. They get their numbers, and references for so many takers.
func (p *Publisher) appendMessages(ctx context.Context, ms []message, payloads [][]byte, takers int, head *wire.Header) ([]message, error) {
	tp := p.topicPub
	next := ms[:len(ms)+1]
	first := &next[len(ms)]
	if size := len(payloads[0]); size <= wire.MaxInline && p.allInline(size) {
		*first = message{payload: payloads[0]}
		tp.number(first, head.Stamp)
		return next, nil
	}
	class, err := tp.n.classOf(len(payloads[0]))
	if err != nil {
		return ms, err
	}
	most := int(wire.GetAllocSize(int(class)))
	least := max(int(wire.GetAllocSize(int(class)-1)), wire.MaxInline) // shorter ones have a class of their own
	same := 1
	for same < len(payloads) && len(payloads[same]) <= most && len(payloads[same]) > least {
		same++
	}
	var bs [batchChunk]*block
	n := tp.group().popAll(class, bs[:same])
	if n == 0 {
		if err := tp.blockOf(ctx, payloads[0], first); err != nil {
			return ms, err
		}
		first.reserve(takers)
		tp.numberBlock(first.b, head)
		return next, nil
	}
	tp.n.stats.loans.Add(uint64(n))
	next = ms[:len(ms)+n]
	for i, b := range bs[:n] {
		if i+writeAhead < n {
			shmio.WillWrite(bs[i+writeAhead].mem[:wire.HeaderSize+len(payloads[i+writeAhead])])
		}
		next[len(ms)+i].fill(b, payloads[i], takers)
		tp.numberBlock(b, head)
	}
	return next, nil
}
