package node

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/bhome-bus/bhome/shmio"
)

// Bounds of what waits for room on a route without anybody waiting with it (the seed's SendQ).
const (
	maxPending    = 8192 // replies to all that a client may have unanswered at one service
	pendingExpiry = 60 * time.Second
	flushAtClose  = 3 * time.Second
)

// sendQueue holds messages that may neither be dropped nor hold up their sender: replies, cancellations, asynchronous
// requests. They go in order; each expires, and its callback hears how it ended. Safe for concurrent use.
type sendQueue struct {
	o       *outRoute
	mu      sync.Mutex
	items   []pendingItem
	running bool
	failed  error
}

type pendingItem struct {
	m       message
	expires time.Time
	done    func(error) // nil, or why it wasn't sent; may be nil
}

func newSendQueue(o *outRoute) *sendQueue { return &sendQueue{o: o} }

// send pushes m now, or keeps it until there is room. The queue takes over the caller's reference to a block, and copies
// an inline payload if it must wait. done is called once, from any goroutine.
func (q *sendQueue) send(m message, done func(error)) {
	q.mu.Lock()
	if q.failed == nil && !q.running {
		if out, err := q.o.push(&m, false); err != nil || out != shmio.Full {
			q.mu.Unlock()
			m.release()
			call(done, err)
			return
		}
	}
	err := q.failed
	if err == nil && len(q.items) >= maxPending {
		err = fmt.Errorf("%w: %d messages wait for %q already", ErrFull, len(q.items), q.o.peer.name)
	}
	if err != nil {
		q.mu.Unlock()
		q.o.countDrop()
		m.release()
		call(done, err)
		return
	}
	if m.b == nil {
		m.payload = append([]byte(nil), m.payload...)
	}
	q.items = append(q.items, pendingItem{m: m, expires: time.Now().Add(pendingExpiry), done: done})
	if !q.running {
		q.running = true
		q.o.n.background(q.run)
	}
	q.mu.Unlock()
}

func call(done func(error), err error) {
	if done != nil {
		done(err)
	}
}

// run sends what waits, in order, until nothing does.
func (q *sendQueue) run(ctx context.Context) {
	for {
		q.mu.Lock()
		if len(q.items) == 0 || q.failed != nil {
			q.running = false
			q.mu.Unlock()
			return
		}
		it := q.items[0]
		q.items = q.items[1:]
		q.mu.Unlock()
		err := q.o.wait(ctx, &it.m, max(time.Until(it.expires), time.Nanosecond))
		if err != nil {
			q.o.countDrop()
		}
		it.m.release()
		call(it.done, err)
		if ctx.Err() != nil {
			q.fail(ErrClosed)
		}
	}
}

// fail ends all that waits, now and later.
func (q *sendQueue) fail(why error) {
	q.mu.Lock()
	if q.failed == nil {
		q.failed = why
	}
	items := q.items
	q.items = nil
	q.mu.Unlock()
	for _, it := range items {
		it.m.release()
		call(it.done, why)
	}
}

// len counts what waits, the one being tried included.
func (q *sendQueue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.running {
		return len(q.items) + 1
	}
	return 0
}
