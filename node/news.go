package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio"
)

// How long a route waits for what a message of it needs and the center has to tell.
const (
	newsTimeout   = time.Second     // it is on the socket already,
	returnTimeout = 5 * time.Second // but the first such time of a new center: processes come back to it one by one
)

// errNotYet says that a message's segment or topic is not known here: the sender heard of it before us.
var errNotYet = errors.New("its segment or topic has not been told")

// notYet is the error of a message that needs news, unless they were waited for in vain.
func (r *inRoute) notYet(rec *shmio.Record, err error) error {
	if r.givenUp.Load() == rec.Seq+1 {
		return err
	}
	return fmt.Errorf("%w: %w", errNotYet, err)
}

// setAside puts a message back that has come before the news that it needs; its route waits for them, and no other does. A
// center that dies may take them along: then they come with the next. false: err is another.
func (r *inRoute) setAside(rec *shmio.Record, err error) bool {
	if !errors.Is(err, errNotYet) {
		return false
	}
	if !r.inbox.PutBack(r.r, rec) { // nobody receives any more
		if rec.IsBlock() {
			r.giveBack(rec.Seq)
		}
		return true
	}
	own := *rec
	r.n.background(func(ctx context.Context) {
		if !r.n.awaitNews(ctx, func() bool { return r.done.Load() || r.hasNews(&own) }) {
			r.givenUp.Store(own.Seq + 1)
		}
		r.inbox.Resume(r.r)
	})
	return true
}

// hasNews tells whether rec can be read now, or never.
func (r *inRoute) hasNews(rec *shmio.Record) bool {
	id := rec.Inline.Topic
	if rec.IsBlock() {
		var blk shmio.Block
		if err := r.peer.space.Block(rec.Word, &blk); err != nil {
			return !isUnknownSegment(err)
		}
		id = blk.Header.Topic
	}
	_, known := r.topic(id)
	return known || r.kind != bhomev1.RouteKind_ROUTE_KIND_PUBSUB
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
		until := from.Add(newsTimeout)
		if lk.resumed && until.Before(lk.began.Add(returnTimeout)) {
			until = lk.began.Add(returnTimeout)
		}
		p := lk.progress.C()
		if cond() {
			return true
		}
		timeout := time.NewTimer(time.Until(until))
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
