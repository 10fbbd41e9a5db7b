package node

import (
	"context"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio"
)

// endClosedPeers ends what there is with processes that go on but have closed their nodes: they say so in their segments.
// It is for when there is no center, or a new one that has never heard of them.
func (n *Node) endClosedPeers() {
	n.mu.Lock()
	var closed []*peer
	for _, p := range n.peers {
		if p.closed() {
			closed = append(closed, p)
		}
	}
	n.mu.Unlock()
	for _, p := range closed {
		n.peerDied(p)
	}
}

func (p *peer) closed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.control {
		if s.State() == shmio.StateClosed { // who holds messages doesn't say it
			return true
		}
	}
	return false
}

// peerDied ends everything with a peer whose process, or session, is over. What it sent before is still delivered.
func (n *Node) peerDied(p *peer) {
	if !p.dead.CompareAndSwap(false, true) {
		return
	}
	n.mu.Lock()
	var in []*inRoute
	var out []*outRoute
	for _, r := range p.in {
		in = append(in, r)
	}
	for _, o := range n.out {
		if o.peer == p {
			out = append(out, o)
		}
	}
	n.mu.Unlock()
	for _, o := range out {
		o.end(true)
	}
	for _, r := range in {
		r.end(true)
	}
	n.providerGone(p)
	if lk := n.link.Load(); lk != nil { // pairs with askAboutTheDead
		lk.askAbout(p)
	}
}

// askAbout asks the center to say when it has told all of a peer that is dead. What it told before its end may be on the
// socket yet: routes that it sent on, and where their halves are.
func (lk *link) askAbout(p *peer) {
	lk.n.background(func(context.Context) {
		// If the socket is gone the next center is asked.
		_ = lk.sendSocket(bhomev1.MsgType_MSG_TYPE_PEER_GONE, &bhomev1.PeerGone{Session: p.session})
	})
}

// askAboutUnwatched asks the center, which has just said that a peer is gone whose pidfd never came, to tell of its end.
func (n *Node) askAboutUnwatched(p *peer) {
	lk := n.link.Load()
	if lk != nil && p.unwatched() {
		lk.askAbout(p)
	}
}

func (p *peer) unwatched() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pidWatch == nil
}

// askAboutTheDead asks a new center of those of whom the one before has not said it. It may not know yet who lives: of those
// that may, it isn't asked.
func (lk *link) askAboutTheDead() {
	n := lk.n
	var dead []*peer
	n.mu.Lock()
	for _, p := range n.peers {
		if !p.settled && p.dead.Load() {
			dead = append(dead, p)
		}
	}
	n.mu.Unlock()
	for _, p := range dead {
		lk.askAbout(p)
	}
}

// onPeerGone hears that all has been told of a peer that is gone.
func (n *Node) onPeerGone(m *bhomev1.PeerGone) {
	n.mu.Lock()
	p := n.peers[m.GetSession()]
	n.mu.Unlock()
	if p == nil {
		return
	}
	n.peerDied(p)
	n.mu.Lock()
	p.settled = true
	var in []*inRoute
	for _, r := range p.in {
		in = append(in, r)
	}
	n.mu.Unlock()
	for _, r := range in {
		r.endTold(true)
	}
	n.forgetPeer(p)
}

// forgetPeer unmaps a dead peer once no route and no message refers to it, and none will.
func (n *Node) forgetPeer(p *peer) {
	n.mu.Lock()
	if !p.settled || n.peers[p.session] != p || len(p.in) > 0 {
		n.mu.Unlock()
		return
	}
	for _, o := range n.out {
		if o.peer == p {
			n.mu.Unlock()
			return
		}
	}
	delete(n.peers, p.session)
	n.mu.Unlock()
	p.close()
}

func (p *peer) close() {
	p.forgetUnmapped(nil)
	p.mu.Lock()
	p.seating.drop()
	bell, watches := p.bell.Swap(nil), append(p.oldBells, p.bellWatch, p.pidWatch)
	p.bellWatch, p.pidWatch, p.oldBells = nil, nil, nil
	control := p.control
	p.control = nil
	p.mu.Unlock()
	if bell != nil {
		bell.Close()
	}
	for _, w := range watches {
		if w != nil {
			w.Close()
		}
	}
	for _, s := range control {
		s.Close()
	}
	for _, r := range p.retired {
		r.seg.Close()
	}
	for _, s := range p.space.Segments() {
		p.space.Remove(s.Base(), s.Generation())
		s.Close()
	}
}
