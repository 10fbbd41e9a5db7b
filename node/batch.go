package node

import (
	"context"
	"errors"
	"fmt"

	"github.com/bhome-bus/bhome/wire"
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
}

func (b *batch) len() int { return max(len(b.ms), len(b.payloads)) }

// head is message i's, which goes inline.
func (b *batch) head(i int) wire.Inline {
	in := b.first
	in.Seq += uint32(i)
	return in
}

func (b *batch) message(i int) message {
	if b.ms != nil {
		return b.ms[i]
	}
	return message{payload: b.payloads[i], in: b.head(i)}
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
	var room [batchChunk]message
	ms := room[:0]
	var lent error
	for _, payload := range payloads {
		m := message{payload: payload}
		if len(payload) > wire.MaxInline || !p.allInline(len(payload)) {
			b, err := tp.blockOf(ctx, payload)
			if err != nil {
				lent = fmt.Errorf("send on %q: %w", tp.topic, err)
				break // what came before it goes
			}
			m = message{b: b}
		}
		tp.number(&m, now)
		ms = append(ms, m)
	}
	done, err := tp.pushToAll(ctx, routes, &batch{ms: ms})
	for i := range ms {
		if b := ms[i].b; b != nil {
			if tp.adv.Load().GetKeep() > 0 {
				tp.keep(b)
			}
			b.unref()
		}
	}
	if err != nil {
		return done, err
	}
	return done, lent
}

// pushToAll pushes a batch to all routes, and returns how many messages of it all of them have had when there is an error.
func (tp *topicPub) pushToAll(ctx context.Context, routes []*outRoute, b *batch) (int, error) {
	done := b.len()
	var full error
	for _, o := range routes {
		n, err := tp.pushAll(ctx, o, b)
		if err != nil {
			done = min(done, n)
			full = errors.Join(full, err)
		}
	}
	if full != nil {
		return done, fmt.Errorf("send on %q: %w", tp.topic, full)
	}
	return done, nil
}

// pushAll pushes a batch to one route, waiting for room as the publisher consents to. Once that is used up the rest gets
// what room there is. An error comes with how many went before it.
func (tp *topicPub) pushAll(ctx context.Context, o *outRoute, b *batch) (before int, full error) {
	for at := 0; at < b.len(); at++ {
		n, err := o.pushBatch(b, at)
		at += n
		switch {
		case errors.Is(err, errRouteOver):
			return b.len(), full
		case err != nil:
			return at, err
		case at == b.len():
		case full != nil:
			o.countDrop()
		default:
			m := b.message(at)
			if full = tp.block(ctx, o, &m); full != nil {
				before = at
			}
		}
	}
	return before, full
}
