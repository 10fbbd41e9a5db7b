package node

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio"
)

// inRoute is our end of a route that we receive on.
type inRoute struct {
	n     *Node
	id    uint64
	kind  bhomev1.RouteKind
	peer  *peer
	open  *bhomev1.RouteOpen // as told; for reports
	half  half
	bell  *shmio.FD // what we sleep on; the inbox's once joined
	r     *shmio.Reader
	inbox *shmio.Inbox // of the subscription, service or replies
	sink  sink

	ending  atomic.Bool // nothing more will be sent; pairs with drained
	ended   atomic.Bool // we were told so: no route back comes any more
	gone    atomic.Bool // the sender's process or session is over
	told    atomic.Bool // nothing more will be told of the sender's half; pairs with drained
	done    atomic.Bool
	doneAt  atomic.Int64 // when, ns of shmio.CoarseNow; 0: not yet
	endedAt atomic.Int64 // when we were told that it ends, though the sender lives; 0: not yet

	number  uint64        // counts the routes in the order in which we were told of them
	waits   bool          // for the end of another of the same sender's; under n.mu
	givenUp atomic.Uint64 // messages before this wait for news no more; pairs with notYet

	topicsMu sync.RWMutex
	mu       sync.Mutex
	freed    bool                      // the halves' memory may be gone
	dropped  uint64                    // by the sender, as it said last; once done
	topics   map[uint32]*topicName     // under topicsMu
	last     atomic.Pointer[topicName] // the topic of the message before
	likely   atomic.Int64              // bytes of the last message of a batch, if it was a block; any of late does

	replies    atomic.Pointer[outRoute] // of a request route: the way back, as it was last found; pairs with itself
	settled    atomic.Uint64            // of a reply route: up to where its callers have been told; pairs with drained's load
	unanswered int                      // requests taken; under the service's mu
}

// sink is what a route delivers into.
type sink interface {
	routeAdded(r *inRoute)
	routeOver(r *inRoute)            // all that was sent has been taken
	refused(r *inRoute, m *received) // it came when nobody takes it any more
}

func (n *Node) openIn(lk *link, m *bhomev1.RouteOpen, spec shmio.RouteSpec) error {
	h, err := n.cutHalf(lk, spec.ReaderSize(), "") // it tells of no more than how much is read
	if err != nil {
		return err
	}
	rd, err := shmio.NewReader(h.mem, spec)
	if err != nil {
		return err
	}
	r := &inRoute{n: n, id: spec.ID, kind: m.GetKind(), open: m, half: h, r: rd, topics: map[uint32]*topicName{}}
	r.addTopics(m.GetTopics())
	rd.SetTag(r)
	n.mu.Lock()
	switch {
	case n.in[r.id] != nil:
		err = fmt.Errorf("%w: it is open already", ErrRemote)
	case r.kind == bhomev1.RouteKind_ROUTE_KIND_REPLY:
		r.inbox, r.sink = n.replies.inbox, n.replies
	default:
		s := n.sinks[m.GetSubscription()]
		if s == nil {
			err = fmt.Errorf("%w: subscription %d is not open", ErrClosed, m.GetSubscription())
		} else {
			r.inbox, r.sink = s.queue(), s
		}
	}
	if err != nil {
		n.mu.Unlock()
		n.freeHalf(h)
		return err
	}
	r.peer = n.peerOf(m.GetPeerSession(), m.GetPeerProc(), m.GetPeerPid())
	n.inSeq++
	r.number = n.inSeq
	n.in[r.id], r.peer.in[r.id] = r, r
	n.mu.Unlock()
	r.sink.routeAdded(r)
	read, write, err := shmio.NewBell()
	if err != nil {
		return err
	}
	defer write.Close()
	r.mu.Lock()
	r.bell = read
	r.mu.Unlock()
	return n.tellHalf(lk, r.id, bhomev1.Role_ROLE_READER, h, write)
}

// queuedSink is a sink with an inbox of its own: a subscription or a service.
type queuedSink interface {
	sink
	queue() *shmio.Inbox
	places() *slots   // of what was received
	received() uint64 // messages taken so far
}

// join maps the writer's half; from now on the inbox polls it.
func (r *inRoute) join(h *bhomev1.Half) error {
	mem, err := r.peer.halfMemory(h, r.r.Spec().WriterSize())
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.freed || r.r.PeerKnown() { // it came again, with what it lacked
		return nil
	}
	if err := r.r.Join(mem, r.peer); err != nil {
		return fmt.Errorf("route %#x from %q: %w", r.id, r.peer.name, err)
	}
	if r.peer.dead.Load() {
		r.r.SetPeerDead()
	}
	if r.done.Load() {
		r.n.poke() // nobody wants it any more: the housekeeper gives back what comes
		return nil
	}
	if r.n.mustWait(r) {
		return nil
	}
	return r.begin()
}

// begin lets the inbox receive from r; r.mu is held.
func (r *inRoute) begin() error {
	own := r.bell
	r.bell = nil
	if err := r.inbox.AddWithBell(r.r, r.n.reactor, own); err != nil {
		return fmt.Errorf("route %#x from %q: %w", r.id, r.peer.name, err)
	}
	return nil
}

// mustWait reports whether what was sent on r comes after what waits on a route that is ending, of the same sender to the same
// receiver: a new center has opened another for it. Then beginWaiting begins with r.
func (n *Node) mustWait(r *inRoute) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	r.waits = r.before()
	return r.waits
}

// before reports whether r has such a route before it; n.mu is held.
func (r *inRoute) before() bool {
	for _, x := range r.peer.in {
		if x != r && x.sink == r.sink && x.number < r.number && x.ending.Load() && !x.done.Load() {
			return true
		}
	}
	return false
}

// beginWaiting is called when a route of a sender is done: those that waited for it may begin.
func (n *Node) beginWaiting(p *peer) {
	n.mu.Lock()
	var next []*inRoute
	for _, r := range p.in {
		if r.waits && !r.before() {
			r.waits = false
			next = append(next, r)
		}
	}
	n.mu.Unlock()
	for _, r := range next {
		r.mu.Lock()
		var err error
		if !r.freed && !r.done.Load() && r.bell != nil {
			err = r.begin()
		}
		r.mu.Unlock()
		if err != nil {
			n.background(func(context.Context) { n.cut(r.id, err) })
		}
		r.drained()
	}
}

// renewBell replaces the route's bell, whose other end was lost on the way to the writer; nil: the route is over.
func (r *inRoute) renewBell() (*shmio.FD, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.freed || r.done.Load() {
		return nil, nil
	}
	read, write, err := shmio.NewBell()
	if err != nil {
		return nil, err
	}
	r.n.mu.Lock()
	waits := r.waits
	r.n.mu.Unlock()
	if waits || !r.r.PeerKnown() { // begin gives it to the inbox
		if r.bell != nil {
			r.bell.Close()
		}
		r.bell = read
		return write, nil
	}
	r.inbox.Remove(r.r)
	if err := r.inbox.AddWithBell(r.r, r.n.reactor, read); err != nil {
		write.Close()
		return nil, fmt.Errorf("route %#x from %q: %w", r.id, r.peer.name, err)
	}
	return write, nil
}

// closeBell gives up a bell that no inbox has taken over.
func (r *inRoute) closeBell() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.bell != nil {
		r.bell.Close()
		r.bell = nil
	}
}

// reject is for what came on r and can't be what an honest sender sends: that ends the route. What is in a segment that we
// haven't got may be: then the message alone is lost, unless it is we who couldn't map that segment.
func (r *inRoute) reject(err error) {
	if !isUnknownSegment(err) {
		err = fmt.Errorf("%w: %w", shmio.ErrCorruptRoute, err)
	} else if lost := r.peer.lost.Load(); lost != nil {
		err = *lost
	} else {
		r.n.badWord("a message of "+r.peer.name, err)
		return
	}
	r.spoiled(err)
}

// giveBack ends the use of blocks of one message each.
func (r *inRoute) giveBack(seqs ...uint64) {
	r.r.Return(seqs...)
	r.gaveBack()
}

// giveBackRun ends the use of n messages of a run.
func (r *inRoute) giveBackRun(run *shmio.Run, n int) {
	r.r.ReturnRun(run, n)
	r.gaveBack()
}

// giveBackRecord ends the use of a message in a block.
func (r *inRoute) giveBackRecord(rec *shmio.Record) {
	r.r.ReturnRecord(rec)
	r.gaveBack()
}

// gaveBack sees to it that a route that is over is freed.
func (r *inRoute) gaveBack() {
	if r.ending.Load() && r.r.HeldCount() == 0 {
		r.n.poke()
	}
}

// end hears that nothing more will be sent: what is there is still delivered.
// gone: its process or session is over, so its half means nothing any more. If we don't know that half yet, we may still be
// told of it.
func (r *inRoute) end(gone bool) {
	r.mu.Lock()
	if !gone && !r.ending.Load() {
		r.endedAt.Store(int64(shmio.CoarseNow()))
	}
	r.ending.Store(true)
	r.ended.Store(true)
	if r.freed { // the news is late: the peer's death and the route's end are told by two
		r.mu.Unlock()
		return
	}
	if gone {
		r.gone.Store(true)
		r.r.SetPeerDead()
	}
	r.mu.Unlock()
	r.inbox.Wake(r.r)
	r.drained()
	if r.kind == bhomev1.RouteKind_ROUTE_KIND_REPLY {
		r.n.replies.look() // there may be nobody who receives
	}
	r.n.poke() // its sender may have to say first that it has ended, too
}

// endTold is end when nothing more will be told of the sender's half.
func (r *inRoute) endTold(gone bool) {
	r.told.Store(true)
	r.end(gone)
}

// drained finishes a route that has ended and is empty. Until done the memory of both halves is there; after it, whoever
// looks at them holds mu and finds freed unset.
func (r *inRoute) drained() {
	r.mu.Lock()
	if r.freed {
		r.mu.Unlock()
		return
	}
	// A sender that has let go of its half before we left it never came to know ours: nothing of it can be read any more.
	lost := r.r.WriterClosed()
	empty := r.ending.Load() && !r.done.Load() && r.allSent() && (lost || r.r.Unread() == 0 && r.r.Aside() == 0 &&
		(r.open.GetPolicy() != bhomev1.Policy_POLICY_DROP_OLDEST || r.r.Settled()))
	if r.kind == bhomev1.RouteKind_ROUTE_KIND_REPLY && r.settled.Load() != r.r.Head() {
		empty = false // a reply is on its way to its caller, who comes here once more
	}
	if empty {
		if !lost {
			r.dropped = r.r.Dropped()
		}
		r.inbox.Remove(r.r) // who polls it doesn't hold mu, and once it is done the memory may go
		r.doneAt.Store(int64(shmio.CoarseNow()))
		r.done.Store(true)
	}
	r.mu.Unlock()
	if empty {
		r.sink.routeOver(r)
		r.n.beginWaiting(r.peer)
		r.n.poke() // the housekeeper frees it once nothing is held
	}
}

// allSent reports whether the sender pushes no more, or nobody knows where: what is unread then is all.
func (r *inRoute) allSent() bool {
	switch {
	case !r.r.PeerKnown():
		at := r.endedAt.Load()
		return r.told.Load() || at != 0 && int64(shmio.CoarseNow())-at > int64(unjoinedFor)
	case r.gone.Load():
		return true
	default:
		return r.r.WriterOver()
	}
}

// counts is what waits unread, and what the sender says to have dropped.
func (r *inRoute) counts() (unread, dropped uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.done.Load() || r.r.WriterClosed() {
		return 0, r.dropped
	}
	return r.r.UnreadMessages(), r.r.Dropped()
}

// abandon ends a route whose messages nobody wants any more: the subscription was closed.
func (r *inRoute) abandon() {
	r.ending.Store(true)
	r.mu.Lock()
	first := !r.done.Load()
	if first {
		r.dropped = r.r.Dropped()
		r.inbox.Remove(r.r) // see drained
		r.doneAt.Store(int64(shmio.CoarseNow()))
		r.done.Store(true)
	}
	r.mu.Unlock()
	if first {
		r.refuse()
		r.n.beginWaiting(r.peer)
	}
	r.n.poke()
}
