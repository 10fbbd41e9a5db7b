package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio"
)

// errRouteOver says that a route's other end is gone.
var errRouteOver = errors.New("the route is over")

// outRoute is our end of a route that we send on.
type outRoute struct {
	n      *Node
	id     uint64
	kind   bhomev1.RouteKind
	peer   *peer
	open   *bhomev1.RouteOpen // as told; for reports
	policy shmio.Policy
	inline int         // bytes that go inline at most
	group  *blockGroup // whose blocks go over it
	half   half
	w      *shmio.Writer
	bell   *shmio.Bell   // wakes the reader; nil until joined
	gate   chan struct{} // held by the one that waits for room
	timer  *time.Timer   // of the gate's holder

	mu     sync.Mutex // w's pushes and returns
	lookAt int        // how many blocks may be out before returns are looked for
	over   bool       // nothing more can be pushed
	overAt time.Time
	overOn *link // whose news it was
	lost   bool  // the reader's half can't be had
	freed  bool
	topics map[uint32]string // under n.mu

	rungFor uint64 // the last of the writer's wishes for space that was rung for; under peer.mu

	calls *places       // of request routes: one for each request that is unanswered; the provider takes no more
	ended chan struct{} // nothing more can be pushed

	pending *sendQueue
}

// replyKey names the route for replies of an access group to a client's process.
type replyKey struct {
	session uint64 // the client's
	access  string
}

func (o *outRoute) replyKey() replyKey { return replyKey{o.peer.session, o.group.access} }

// onRouteOpen makes our end of a route.
func (n *Node) onRouteOpen(lk *link, m *bhomev1.RouteOpen) error {
	spec := shmio.RouteSpec{ID: m.GetRoute(), Slots: m.GetSlots(), Depth: m.GetDepth(), Out: m.GetOut(),
		Policy: shmio.Policy(m.GetPolicy()), Quota: m.GetQuota()}
	err := spec.Validate()
	if err == nil {
		switch m.GetRole() {
		case bhomev1.Role_ROLE_WRITER:
			err = n.openOut(lk, m, spec)
		case bhomev1.Role_ROLE_READER:
			err = n.openIn(lk, m, spec)
		default:
			err = fmt.Errorf("%w: role %v", ErrRemote, m.GetRole())
		}
	}
	if err != nil {
		return errors.Join(fmt.Errorf("open route %#x: %w", m.GetRoute(), err),
			lk.sendSocket(bhomev1.MsgType_MSG_TYPE_ROUTE_CLOSE, &bhomev1.RouteClose{Route: m.GetRoute(), Reason: err.Error()}))
	}
	return nil
}

// cutHalf allocates our half of a route, telling the center of a new control segment first.
func (n *Node) cutHalf(lk *link, size uint64, access string) (half, error) {
	h, added, err := n.mem.allocHalf(size, lk.session, access)
	if err == nil && added != nil {
		if err = lk.announce(added); errors.Is(err, ErrDisconnected) {
			err = nil // it is in the report to the next center
		}
	}
	return h, err
}

// tellHalf answers RouteOpen: where our half is, and a bell if the other end needs one that it hasn't got.
func (n *Node) tellHalf(lk *link, route uint64, role bhomev1.Role, h half, bell *shmio.FD) error {
	msg := &bhomev1.RouteHalf{Route: route, Role: role, Half: h.proto(), HasBell: bell != nil}
	if bell == nil {
		return lk.sendSocket(bhomev1.MsgType_MSG_TYPE_ROUTE_HALF, msg)
	}
	return lk.sendSocket(bhomev1.MsgType_MSG_TYPE_ROUTE_HALF, msg, bell)
}

// onRouteRetell tells our half of a route again, whose other end never heard of it from the center that is gone.
func (n *Node) onRouteRetell(lk *link, m *bhomev1.RouteRetell) error {
	n.mu.Lock()
	r, o := n.in[m.GetRoute()], n.out[m.GetRoute()]
	n.mu.Unlock()
	var h half
	var bell *shmio.FD
	var err error
	switch {
	case m.GetRole() == bhomev1.Role_ROLE_READER && r != nil:
		h = r.half
		bell, err = r.renewBell()
	case m.GetRole() == bhomev1.Role_ROLE_WRITER && o != nil:
		h = o.half
		if m.GetBell() {
			bell, err = o.peer.renewBell()
		}
	default:
		return nil // it is over
	}
	if bell != nil {
		defer bell.Close()
	}
	if err != nil || bell == nil && m.GetRole() == bhomev1.Role_ROLE_READER {
		return err
	}
	return n.tellHalf(lk, m.GetRoute(), m.GetRole(), h, bell)
}

// maxLeaving bounds the routes to a peer that are over and that it doesn't leave: their memory can't be used for another.
const maxLeaving = 1024

func (n *Node) openOut(lk *link, m *bhomev1.RouteOpen, spec shmio.RouteSpec) error {
	h, err := n.cutHalf(lk, spec.WriterSize(), m.GetAccess())
	if err != nil {
		return err
	}
	w, err := shmio.NewWriter(h.mem, spec)
	if err != nil {
		return err
	}
	o := &outRoute{n: n, id: spec.ID, kind: m.GetKind(), open: m, policy: spec.Policy, inline: spec.InlineLimit(), group: n.mag.group(m.GetAccess()), half: h, w: w,
		gate: make(chan struct{}, 1), topics: map[uint32]string{}, calls: newPlaces(maxUnanswered(int(spec.Depth))), ended: make(chan struct{})}
	o.pending = newSendQueue(o)
	w.TakeReturns(n.mag.takeBack)
	n.mu.Lock()
	if n.out[o.id] != nil {
		err = fmt.Errorf("%w: it is open already", ErrRemote)
	} else if o.peer = n.peerOf(m.GetPeerSession(), m.GetPeerProc(), m.GetPeerPid()); o.peer.leaving >= maxLeaving {
		err = fmt.Errorf("%w: its process has not left %d routes that are over", ErrRemote, maxLeaving)
	}
	if err != nil {
		n.mu.Unlock()
		n.freeHalf(h)
		return err
	}
	n.out[o.id] = o
	n.listOut()
	o.peer.mu.Lock()
	o.peer.out[uint32(o.id)] = o
	o.peer.mu.Unlock()
	n.mu.Unlock()
	if o.peer.dead.Load() { // its death was told sooner
		o.end(true)
		return nil
	}
	bell, err := o.peer.newBell()
	if err != nil {
		return err
	}
	if bell != nil {
		defer bell.Close()
	}
	// Before anybody sends on it: what we send before we die is read by who knows where our half is.
	err = n.tellHalf(lk, o.id, bhomev1.Role_ROLE_WRITER, h, bell)
	n.useOut(o, m.GetTopics())
	return err
}

// useOut lets senders use a route, if it hasn't ended meanwhile.
func (n *Node) useOut(o *outRoute, topics []*bhomev1.TopicID) {
	n.mu.Lock()
	if o.hasEnded() { // else end, which takes n.mu after that, takes it out again
		n.mu.Unlock()
		return
	}
	if o.kind == bhomev1.RouteKind_ROUTE_KIND_REPLY {
		n.replyRoutes[o.replyKey()] = o
	}
	n.addTopics(o, topics)
	n.mu.Unlock()
	n.giveHistory(o, topics)
}

// addTopics lets the publishers (or clients) of these topics send on o; n.mu is held.
func (n *Node) addTopics(o *outRoute, topics []*bhomev1.TopicID) {
	for _, t := range topics {
		o.topics[t.GetId()] = t.GetName()
		switch o.kind {
		case bhomev1.RouteKind_ROUTE_KIND_PUBSUB:
			n.topicPub(t.GetName()).addRoute(o, t.GetId())
		case bhomev1.RouteKind_ROUTE_KIND_REQUEST:
			n.serviceClient(t.GetName()).addRoute(o, t.GetId())
		}
	}
}

func (n *Node) onRouteTopics(m *bhomev1.RouteTopics) {
	n.mu.Lock()
	o, r := n.out[m.GetRoute()], n.in[m.GetRoute()]
	if o != nil {
		n.addTopics(o, m.GetAdded())
		for _, id := range m.GetRemoved() {
			if tp := n.pubs[o.topics[id]]; tp != nil {
				tp.removeRoute(o)
			}
			delete(o.topics, id)
		}
	}
	n.mu.Unlock()
	if o != nil {
		n.giveHistory(o, m.GetAdded())
	}
	if r != nil {
		r.addTopics(m.GetAdded())
	}
}

// join maps the reader's half; bell wakes the reader, and is the route's own.
func (o *outRoute) join(h *bhomev1.Half, bell *shmio.FD) error {
	mem, err := o.peer.halfMemory(h, o.w.Spec().ReaderSize())
	if err == nil && bell == nil {
		err = fmt.Errorf("%w: the reader gave no bell", ErrRemote)
	}
	if err != nil {
		return fmt.Errorf("route %#x to %q: %w", o.id, o.peer.name, err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.freed || o.w.Joined() {
		return nil
	}
	b, err := shmio.OpenBell(bell)
	if err != nil {
		return fmt.Errorf("route %#x to %q: %w", o.id, o.peer.name, err)
	}
	if err := o.w.Join(mem, b); err != nil {
		b.Close()
		return fmt.Errorf("route %#x to %q: %w", o.id, o.peer.name, err)
	}
	o.bell = b
	o.n.changed.Fire()
	return nil
}

// joined reports whether the reader's end is known.
func (o *outRoute) joined() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return !o.freed && o.w.Joined()
}

// closeBell gives the reader's bell up; o.mu is held.
func (o *outRoute) closeBell() {
	if o.bell != nil {
		o.bell.Close()
	}
}

// countDrop counts a message that this route did not get.
func (o *outRoute) countDrop() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.freed {
		o.w.CountDrop()
	}
}

// end stops sending. If the peer is gone all that is out comes back at once; else it does as it is returned.
func (o *outRoute) end(peerGone bool) {
	o.mu.Lock()
	o.over = true
	if o.freed {
		o.mu.Unlock()
		return
	}
	if peerGone {
		o.w.ReclaimAll()
	}
	o.w.End()
	first := false
	select {
	case <-o.ended:
	default:
		close(o.ended)
		o.overAt, o.overOn, first = time.Now(), o.n.link.Load(), true
	}
	o.mu.Unlock()
	o.pending.fail(errRouteOver)
	n := o.n
	n.mu.Lock()
	if first {
		o.peer.leaving++
	}
	for _, name := range o.topics {
		if tp := n.pubs[name]; tp != nil {
			tp.removeRoute(o)
		}
		if sc := n.clients[name]; sc != nil {
			sc.removeRoute(o)
		}
	}
	if n.replyRoutes[o.replyKey()] == o {
		delete(n.replyRoutes, o.replyKey())
	}
	n.mu.Unlock()
	if peerGone {
		o.free()
	} else { // the housekeeper looks until all is read and returned, and the reader has left
		n.poke()
	}
}

// hasEnded reports whether nothing more can be pushed.
func (o *outRoute) hasEnded() bool {
	select {
	case <-o.ended:
		return true
	default:
		return false
	}
}

// free gives the half back; nothing is out any more.
func (o *outRoute) free() {
	n := o.n
	o.mu.Lock()
	if o.freed {
		o.mu.Unlock()
		return
	}
	o.freed = true
	n.stats.addRoute(o.w)
	o.w.Close()
	o.closeBell()
	o.mu.Unlock()
	n.mu.Lock()
	delete(n.out, o.id)
	o.peer.leaving--
	n.listOut()
	o.peer.mu.Lock()
	if o.peer.out[uint32(o.id)] == o {
		delete(o.peer.out, uint32(o.id))
	}
	o.peer.mu.Unlock()
	n.mu.Unlock()
	n.freeHalf(o.half)
	n.forgetPeer(o.peer)
}

// freeHalf returns control memory, telling the center if a whole segment went.
func (n *Node) freeHalf(h half) {
	if number := n.mem.freeHalf(h); number != 0 {
		if lk := n.link.Load(); lk != nil {
			// If the socket is gone the next report won't list it.
			_ = lk.sendSocket(bhomev1.MsgType_MSG_TYPE_SEGMENT_DROP, &bhomev1.SegmentDrop{Number: number})
		}
	}
}

// cut ends a route of our own accord and tells the center.
func (n *Node) cut(route uint64, why error) {
	n.mu.Lock()
	o, r := n.out[route], n.in[route]
	n.mu.Unlock()
	if o != nil {
		// The reader's half is rubbish: what it says of returns can't be believed, so it keeps what is out until it dies.
		o.end(false)
	}
	if r != nil {
		r.giveUp()
		r.endTold(true)
	}
	if lk := n.link.Load(); lk != nil {
		_ = lk.sendSocket(bhomev1.MsgType_MSG_TYPE_ROUTE_CLOSE, &bhomev1.RouteClose{Route: route, Reason: why.Error()})
	}
}

func (n *Node) onRouteClose(m *bhomev1.RouteClose) {
	n.mu.Lock()
	o, r := n.out[m.GetRoute()], n.in[m.GetRoute()]
	n.mu.Unlock()
	if o != nil {
		o.mu.Lock()
		joined := o.w.Joined() // else nobody may ever have read what was asked over it
		o.mu.Unlock()
		o.end(!m.GetPeerAlive())
		if o.kind == bhomev1.RouteKind_ROUTE_KIND_REQUEST && !m.GetPeerAlive() {
			n.providerGone(o.peer)
		}
		if o.kind == bhomev1.RouteKind_ROUTE_KIND_REQUEST && !joined {
			n.replies.fail(func(c *pendingCall) bool { return c.o == o }, o.peer)
		}
	}
	switch {
	case r == nil:
	case m.GetPeerAlive():
		r.end(false)
	default:
		r.endTold(true)
	}
	if m.GetPeerAlive() {
		return
	}
	if o != nil {
		n.askAboutUnwatched(o.peer)
	}
	if r != nil {
		n.askAboutUnwatched(r.peer)
	}
}

// mayFree reports whether the half of a route that is over can be used for something else: its reader has left it. (What it
// says it has returned is believed; if it lies, the bytes that it reads change.) o.mu is held.
func (o *outRoute) mayFree() bool {
	if o.w.Joined() {
		return o.w.Err() == nil && o.w.ReaderLeft()
	}
	if time.Since(o.overAt) < unjoinedFor {
		return false
	}
	// What waits for a reader that is stopped waits until it, or the center, is told of no more.
	return o.lost || o.w.Unread() == 0 && o.w.Out() == 0 || o.n.link.Load() != o.overOn
}

// unjoinedFor is how long an end of a route that is over waits for an other end that it was never told of.
const unjoinedFor = 10 * time.Second

// reclaimRoutes takes back all that readers have returned, on every route, and frees those that are over and empty;
// false if some have to wait.
func (n *Node) reclaimRoutes() (done bool) {
	done = true
	for _, o := range n.outRoutes() {
		o.mu.Lock()
		free := false
		if !o.freed {
			_, err := o.w.Reclaim()
			if err != nil && !o.over {
				_ = o.spoiled(err) // it says so itself
			}
			free = o.over && o.mayFree()
			done = done && (!o.over || free)
		}
		o.mu.Unlock()
		if free {
			o.mu.Lock()
			if !o.freed {
				o.w.ReclaimAll()
			}
			o.mu.Unlock()
			o.free()
		}
	}
	return done
}

// outRoutes is all routes we send on: a list that is copied when it changes.
func (n *Node) outRoutes() []*outRoute { return *n.outList.Load() }

// listOut renews the list; n.mu is held.
func (n *Node) listOut() {
	out := make([]*outRoute, 0, len(n.out))
	for _, o := range n.out {
		out = append(out, o)
	}
	n.outList.Store(&out)
}

// deadlineContext bounds ctx by d; 0 means: not at all.
func deadlineContext(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if d <= 0 {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, d)
}
