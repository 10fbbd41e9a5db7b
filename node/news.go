package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio"
	"github.com/bhome-bus/bhome/wire"
)

// newsTimeout is how long a route waits for what a message of it needs and a center that is there has to tell. Usually it is
// on the socket already; after a restart of the center processes come back to it one by one. It costs nobody else.
const newsTimeout = 10 * time.Second

// errNotYet says that a message's segment or topic is not known here: the sender heard of it before us.
var errNotYet = errors.New("its segment or topic has not been told")

// errPutBack says that a message comes again when its news are there.
var errPutBack = errors.New("it was put back")

// read is resolve of a message that may have come before the news that it needs: it is put back then (errPutBack) and its
// route waits, and no other does. A center that dies may take the news along: they come with the next one. Any other error is
// resolve's.
//
// The topic is that of what was published; nil: none that was ever told.
func (r *inRoute) read(m *received) (*topicName, error) {
	for {
		err := r.resolve(m)
		if err == nil {
			if r.kind != bhomev1.RouteKind_ROUTE_KIND_PUBSUB {
				return nil, nil
			}
			if t := r.topic(m.rec.Head.Topic()); t != nil {
				t.has(m)
				return t, nil
			}
			if err = r.notYet(&m.rec, wire.ErrBadHeader); !errors.Is(err, errNotYet) {
				return nil, nil // the subscription refuses it
			}
		}
		if !errors.Is(err, errNotYet) {
			return nil, err
		}
		m.unresolve()
		if r.putBack(&m.rec) {
			return nil, errPutBack
		}
		// The last of a route that is over, which nobody polls any more: its sender must not keep us for long.
		ctx, cancel := context.WithTimeout(r.n.ctx, socketTimeout)
		r.awaitNews(ctx, &m.rec)
		cancel()
	}
}

// putBack puts a message back until there are news; false: the route is over, nobody would receive it again.
func (r *inRoute) putBack(rec *shmio.Record) bool {
	r.mu.Lock()
	over := r.done.Load()
	if !over {
		r.r.PutBack(rec)
	}
	r.mu.Unlock()
	if over {
		return false
	}
	own := *rec
	r.n.background(func(ctx context.Context) {
		r.awaitNews(ctx, &own)
		r.r.Resume()
	})
	return true
}

// awaitNews returns when rec can be read, or must not wait any more; nor must what was sent until then.
func (r *inRoute) awaitNews(ctx context.Context, rec *shmio.Record) {
	if r.n.awaitNews(ctx, func() bool { return r.hasNews(rec) }) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	upTo := rec.Seq + 1
	if !r.freed {
		upTo = max(upTo, r.r.Head()+r.r.Unread())
	}
	r.givenUp.Store(upTo)
}

// notYet is the error of a message that needs news, unless they were waited for in vain.
func (r *inRoute) notYet(rec *shmio.Record, err error) error {
	if int64(rec.Seq-r.givenUp.Load()) < 0 {
		return err
	}
	return fmt.Errorf("%w: %w", errNotYet, err)
}

// hasNews tells whether rec can be read now, or never.
func (r *inRoute) hasNews(rec *shmio.Record) bool {
	id := rec.Head.Topic()
	if rec.IsBlock() {
		r.peer.mapLate()
		var blk shmio.Block
		if err := r.peer.space.Block(rec.Word, &blk); err != nil {
			return !isUnknownSegment(err)
		}
		id = blk.Header.Topic
	}
	return r.topic(id) != nil || r.kind != bhomev1.RouteKind_ROUTE_KIND_PUBSUB
}

// awaitNews waits until cond is true: for ever while there is no center, as nobody else can tell. false: the center is
// there and has not told.
func (n *Node) awaitNews(ctx context.Context, cond func() bool) bool {
	from := time.Now()
	for {
		c := n.linked.C()
		lk := n.link.Load()
		if lk == nil {
			if cond() {
				return true
			}
			if n.link.Load() != nil {
				continue
			}
			select {
			case <-c:
			case <-ctx.Done():
				return false
			}
			continue
		}
		p := lk.progress.C()
		if cond() {
			return true
		}
		timeout := time.NewTimer(time.Until(from.Add(n.newsTimeout)))
		select {
		case <-p:
		case <-lk.readDone:
			select { // it is replaced, or dropped
			case <-c:
			case <-ctx.Done():
				timeout.Stop()
				return false
			}
			from = time.Now()
		case <-timeout.C:
			return cond()
		case <-ctx.Done():
			timeout.Stop()
			return false
		}
		timeout.Stop()
	}
}
