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

// publishChunk publishes all payloads, and returns how many of them all routes have had when there is an error.
func (p *Publisher) publishChunk(ctx context.Context, payloads [][]byte) (int, error) {
	routes, err := p.begin(ctx)
	if err != nil {
		return 0, err
	}
	tp := p.topicPub
	defer tp.unlock()
	var room [batchChunk]message
	ms := room[:0]
	now := tp.n.clock.stamp(tp.n)
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
	done := len(ms)
	var full error
	for _, o := range routes {
		n, err := tp.pushAll(ctx, o, ms)
		if err != nil {
			done = min(done, n)
			full = errors.Join(full, err)
		}
	}
	for i := range ms {
		if b := ms[i].b; b != nil {
			if tp.adv.Load().GetKeep() > 0 {
				tp.keep(b)
			}
			b.unref()
		}
	}
	if full != nil {
		return done, fmt.Errorf("send on %q: %w", tp.topic, full)
	}
	return done, lent
}

// pushAll pushes ms to one route, waiting for room as the publisher consents to. Once that is used up the rest gets what
// room there is. An error comes with how many went before it.
func (tp *topicPub) pushAll(ctx context.Context, o *outRoute, ms []message) (before int, full error) {
	for at := 0; at < len(ms); at++ {
		n, err := o.pushBatch(ms[at:])
		at += n
		switch {
		case errors.Is(err, errRouteOver):
			return len(ms), full
		case err != nil:
			return at, err
		case at == len(ms):
		case full != nil:
			o.countDrop()
		default:
			if full = tp.block(ctx, o, &ms[at]); full != nil {
				before = at
			}
		}
	}
	return before, full
}
