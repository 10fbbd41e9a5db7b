package node

import (
	"context"
	"errors"
	"fmt"
)

// behind is a route that lacks something of what is being sent, for want of room. All routes are offered all before any is
// waited for: a reader that has room isn't kept waiting for one that hasn't.
type behind struct {
	o    *outRoute
	at   int   // messages of the batch that are done with
	full error // the wait for room that failed; the rest gets what room there is
	went int   // messages before that one
}

// pushToAll pushes a batch to all routes, waiting for room as the publisher consents to, and returns how many messages
// of it all of them have had when there is an error.
func (tp *topicPub) pushToAll(ctx context.Context, routes []*outRoute, b *batch) (int, error) {
	done := b.len()
	var full error
	offer := func(r *behind) (over bool) {
		over = r.offer(b)
		if over && r.full != nil {
			done, full = min(done, r.went), errors.Join(full, r.full)
		}
		return over
	}
	rest := tp.behind[:0]
	for _, o := range routes {
		if r := (behind{o: o}); !offer(&r) {
			rest = append(rest, r)
		}
	}
	if len(rest) > 0 {
		tp.behind = rest // what has grown is kept
		for len(rest) > 0 {
			rest[0].await(ctx, tp, b.message(rest[0].at))
			left := rest[:0]
			for i := range rest {
				if !offer(&rest[i]) {
					left = append(left, rest[i])
				}
			}
			rest = left
		}
		clear(tp.behind)
	}
	if full != nil {
		return done, fmt.Errorf("send on %q: %w", tp.topic, full)
	}
	return done, nil
}

// offer pushes of b what there is room for; true if the route has all that it will ever get of it.
func (r *behind) offer(b *batch) (over bool) {
	for r.at < b.len() {
		n, err := r.o.pushBatch(b, r.at)
		r.at += n
		switch {
		case errors.Is(err, errRouteOver):
			b.unref(r.at)
			return true
		case err != nil && !errors.Is(err, errOtherGroup):
			b.unref(r.at)
			r.fail(err)
			return true
		case r.at == b.len():
		case r.full == nil:
			return false
		default:
			r.o.countDrop()
			b.message(r.at).release()
			r.at++
		}
	}
	return true
}

// await waits for room for m, the next message that the route lacks, and pushes it, and what may go with it.
func (r *behind) await(ctx context.Context, tp *topicPub, m *message) {
	if err := tp.pushWaiting(ctx, r.o, m); err != nil {
		r.fail(err)
	}
	m.release() // if it doesn't get it, or a copy
	r.at += m.done()
}

func (r *behind) fail(err error) {
	if r.full == nil {
		r.full, r.went = err, r.at
	}
}

// pushWaiting pushes m to a route that had no room for it, or may not have it as it is. tp.mu is held.
func (tp *topicPub) pushWaiting(ctx context.Context, o *outRoute, m *message) error {
	err := error(nil)
	if m.b != nil && m.b.group != o.group {
		err = tp.pushCopy(ctx, o, m)
	} else {
		err = tp.block(ctx, o, m)
	}
	if errors.Is(err, errRouteOver) {
		return nil
	}
	return err
}
