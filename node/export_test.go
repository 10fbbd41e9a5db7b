package node

import (
	"fmt"
	"sync/atomic"
	"time"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio"
)

// SetNewsTimeout is for a node that receives nothing yet.
func SetNewsTimeout(n *Node, d time.Duration) { n.newsTimeout = d }

// ForgetSegments has n not know the data segments of the process called name, until tell is called: as when the center died
// before it could pass them on.
func ForgetSegments(n *Node, name string) (tell func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.peers {
		if p.name != name {
			continue
		}
		segs := p.space.Segments()
		for _, s := range segs {
			p.space.Remove(s.Base(), s.Generation())
		}
		return func() {
			for _, s := range segs {
				if err := p.space.Add(s); err != nil {
					panic(err)
				}
			}
			n.link.Load().progress.Fire()
		}
	}
	panic("no peer " + name)
}

// ForgetTopics has n not know what was published by the process called name, until tell is called.
func ForgetTopics(n *Node, name string) (tell func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, r := range n.in {
		if r.peer.name != name {
			continue
		}
		r.topicsMu.Lock()
		defer r.topicsMu.Unlock()
		topics := r.topics
		r.topics = map[uint32]*topicName{}
		r.last.Store(nil)
		return func() {
			r.topicsMu.Lock()
			r.topics = topics
			r.topicsMu.Unlock()
			n.link.Load().progress.Fire()
		}
	}
	panic("no route from " + name)
}

// Aside is how many messages n has put back until there are news.
func Aside(n *Node) (aside int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, r := range n.in {
		aside += r.r.Aside()
	}
	return aside
}

// ClearSeats does what the housekeeper does with seats at each beat.
func ClearSeats(n *Node, idle time.Duration) { n.clearSeats(idle) }

// HoldSocket keeps n from answering on its socket, and so from reading on after the next frame that wants an answer, until
// release is called: what the center tells waits there.
func HoldSocket(n *Node) (release func()) {
	lk := n.link.Load()
	lk.sendMu.Lock()
	return lk.sendMu.Unlock
}

// PeerDied has n hear of the death of the process called name, as its pidfd tells it. It reports whether n knows it.
func PeerDied(n *Node, name string) bool {
	n.mu.Lock()
	var died *peer
	for _, p := range n.peers {
		if p.name == name {
			died = p
		}
	}
	n.mu.Unlock()
	if died != nil {
		n.peerDied(died)
	}
	return died != nil
}

// CenterDied has n hear of the death of its center's process, as its pidfd tells it.
func CenterDied(n *Node) { n.link.Load().centerDied() }

// Peers is how many processes n has not forgotten.
func Peers(n *Node) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.peers)
}

// routesWith is the ids of n's routes from and to the process called name.
func routesWith(n *Node, name string) (ids []uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for id, o := range n.out { // first, so that a request route ends before the one for its replies
		if o.peer.name == name {
			ids = append(ids, id)
		}
	}
	for id, r := range n.in {
		if r.peer.name == name {
			ids = append(ids, id)
		}
	}
	return ids
}

// CallersWait is how many of n's requests have no answer.
func CallersWait(n *Node) int {
	n.replies.mu.Lock()
	defer n.replies.mu.Unlock()
	return n.replies.calls.n
}

// RouteCloseHeard has n hear from the center that its routes from and to the process called name are over, ahead of the center.
func RouteCloseHeard(n *Node, name string) {
	for _, id := range routesWith(n, name) {
		n.onRouteClose(&bhomev1.RouteClose{Route: id, PeerAlive: true})
	}
}

// Abandon has n want nothing more of the routes from the process called name, ahead of the center.
func Abandon(n *Node, name string) {
	n.mu.Lock()
	var in []*inRoute
	for _, r := range n.in {
		if r.peer.name == name {
			in = append(in, r)
		}
	}
	n.mu.Unlock()
	for _, r := range in {
		r.abandon()
	}
}

// BlocksOut is how many blocks n has out on its routes.
func BlocksOut(n *Node) (out int) {
	for _, o := range n.outRoutes() {
		o.mu.Lock()
		if !o.freed {
			out += o.w.Out()
		}
		o.mu.Unlock()
	}
	return out
}

// GiveUp has n end its routes to and from the process called name of its own accord, as when an end can't be made or mapped.
func GiveUp(n *Node, name string, why error) {
	for _, id := range routesWith(n, name) {
		n.cut(id, why)
	}
}

// Leaving is how many of n's routes to the process called name are over and not freed.
func Leaving(n *Node, name string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.peers {
		if p.name == name {
			return p.leaving
		}
	}
	return 0
}

// Settled reports whether n has heard from the center all there is to hear of the process called name.
func Settled(n *Node, name string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.peers {
		if p.name == name {
			return p.settled
		}
	}
	return false
}

// LockRoute keeps others from changing the route from the process called name to n, until unlock is called.
func LockRoute(n *Node, name string) (unlock func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, r := range n.in {
		if r.peer.name == name {
			r.mu.Lock()
			return r.mu.Unlock
		}
	}
	panic("no route from " + name)
}

// ForgetPeers has n forget the dead to whom nothing refers.
func ForgetPeers(n *Node) {
	n.mu.Lock()
	var all []*peer
	for _, p := range n.peers {
		all = append(all, p)
	}
	n.mu.Unlock()
	for _, p := range all {
		n.forgetPeer(p)
	}
}

// OpenAndEnd has n open a route to the process called name that the process hears nothing of, send a message on it, and end it.
func OpenAndEnd(n *Node, name string, id uint64) error {
	open := &bhomev1.RouteOpen{Route: id, Role: bhomev1.Role_ROLE_WRITER, Kind: bhomev1.RouteKind_ROUTE_KIND_PUBSUB, Slots: 16, Depth: 1, Out: 2,
		Quota: 1 << 20}
	n.mu.Lock()
	for _, p := range n.peers {
		if p.name == name {
			open.PeerSession, open.PeerProc, open.PeerPid = p.session, p.name, p.pid
		}
	}
	n.mu.Unlock()
	err := n.onRouteOpen(n.link.Load(), open)
	n.mu.Lock()
	o := n.out[id]
	n.mu.Unlock()
	if o == nil {
		return err
	}
	if out, err := o.push(&message{}, false); out != shmio.Sent || err != nil {
		panic(fmt.Sprint(out, err))
	}
	o.end(false)
	return err
}

// HoldReturns keeps n from taking what the process called name returns, until release is called. Then n counts so many drops
// first, as those of which it learns from what was returned.
func HoldReturns(n *Node, name string) (release func(drops int)) {
	var held []*outRoute
	for _, o := range n.outRoutes() {
		if o.peer.name == name {
			o.mu.Lock()
			held = append(held, o)
		}
	}
	return func(drops int) {
		for _, o := range held {
			for range drops {
				o.w.CountDrop()
			}
			o.mu.Unlock()
		}
	}
}

const MaxLeaving = maxLeaving

// Seats is how many bells senders of n sleep at themselves.
func Seats(n *Node) int { return int(n.seats.Load()) }

// SeatAgain is how many waits have no seat after it had to be given up.
const SeatAgain = seatAgain

// Waiting is how many senders of n wait for room at name, and whether one of them is on a seat.
func Waiting(n *Node, name string) (waiting int, seated bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.peers {
		if p.name == name {
			p.mu.Lock()
			waiting += p.seating.waiting
			seated = seated || p.seating.seat != nil && p.seating.seat.taken
			p.mu.Unlock()
		}
	}
	return waiting, seated
}

// Referenced is how many of n's blocks somebody has: a route, a topic that keeps it, a loan. What readers have returned is taken back first.
func Referenced(n *Node) (some int) {
	n.reclaimRoutes()
	n.mag.mu.Lock()
	defer n.mag.mu.Unlock()
	for _, b := range n.mag.grants {
		b.home.mu.Lock()
		if b.refs != 0 {
			some++
		}
		b.home.mu.Unlock()
	}
	return some
}

// Regroup has the routes of n be of another access group than the blocks of what is sent on them, as when the rules have changed.
func Regroup(n *Node) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, o := range n.out {
		o.mu.Lock()
		o.group = &blockGroup{mag: n.mag}
		o.mu.Unlock()
	}
}

// HoldWords keeps n from sending the center words, and so from asking for blocks, until release is called.
func HoldWords(n *Node) (release func()) {
	q := &n.link.Load().up[upCenter]
	q.mu.Lock()
	return q.mu.Unlock
}

// AskFrom is when p may ask for a block to share again, in ns of the coarse clock; 0: at once.
func AskFrom(p *Publisher) *atomic.Uint64 { return &p.askFrom }

// AsksShared tells whether p waits for a block to share while it sends without one.
func AsksShared(p *Publisher) bool { return p.asksShared.Load() }

// TrimMagazine gives the center back what lies idle, as if it had for long.
func TrimMagazine(n *Node) { n.mag.trim(0) }

// OutBytes is what n's routes are charged with.
func OutBytes(n *Node) (bytes uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, o := range n.out {
		o.mu.Lock()
		bytes += o.w.OutBytes()
		o.mu.Unlock()
	}
	return bytes
}
