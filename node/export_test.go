package node

import (
	"time"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
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
	for id, r := range n.in {
		if r.peer.name == name {
			ids = append(ids, id)
		}
	}
	for id, o := range n.out {
		if o.peer.name == name {
			ids = append(ids, id)
		}
	}
	return ids
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
