package node

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio"
)

// peer is another process that this node has routes with: what we map of it, read-only, and the bells between us. It is
// forgotten once it is dead and nothing of its memory is held.
type peer struct {
	n       *Node
	session uint64
	pid     int32
	name    string

	space *shmio.Space               // its data segments
	lost  atomic.Pointer[error]      // why a segment of its could not be mapped; pairs with reject and halfMemory
	dead  atomic.Bool                // its process or its session has ended; stored after its last words are visible
	bell  atomic.Pointer[shmio.Bell] // to it, for room on its routes to us; nil until told

	settled bool                // the center has told all that it knew of it when it died; under n.mu
	leaving int                 // our routes to it that are over and not freed; under n.mu
	in      map[uint64]*inRoute // its routes to us, of n.in; under n.mu

	mu        sync.Mutex
	control   map[uint32]*shmio.Segment // its segments with halves, by number
	retired   []retiredSegment
	unmapped  []unmappedSegment // what there was no room for
	bellWatch *shmio.Watch      // from it, for room on ours to it
	oldBells  []*shmio.Watch
	rings     shmio.Rings // of those two
	deaf      bool        // to them: it rang for nothing
	seating   seating     // who waits for a ring of its
	pidWatch  *shmio.Watch
	out       map[uint32]*outRoute // by the low half of the route id: what a bell says
}

// peerOf finds or makes the record of a session; n.mu is held.
func (n *Node) peerOf(session uint64, name string, pid int32) *peer {
	p := n.peers[session]
	if p == nil {
		p = &peer{n: n, session: session, name: name, pid: pid, space: shmio.NewSpace(), control: map[uint32]*shmio.Segment{},
			in: map[uint64]*inRoute{}, out: map[uint32]*outRoute{}}
		n.peers[session] = p
	}
	return p
}

// newBell makes our bell for this peer to ring when it has made room, the first time; nil after that.
func (p *peer) newBell() (write *shmio.FD, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bellWatch != nil {
		return nil, nil
	}
	return p.makeBell()
}

// renewBell makes one more: the other end of the first was lost on the way to the peer, as far as the center knows.
func (p *peer) renewBell() (write *shmio.FD, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.oldBells = append(p.oldBells, p.bellWatch) // the peer keeps the one that it got first
	return p.makeBell()
}

// makeBell is called with p.mu held.
func (p *peer) makeBell() (write *shmio.FD, err error) {
	read, write, err := shmio.NewBell()
	if err != nil {
		return nil, fmt.Errorf("make a bell: %w", err)
	}
	w, err := p.n.reactor.WatchBell(read, p.onBell)
	if err != nil {
		write.Close()
		return nil, fmt.Errorf("watch a bell: %w", err)
	}
	p.bellWatch = w
	return write, nil
}

// onBell runs where the bell is heard: on the reactor's goroutine, or in who sleeps at it. The hint is the peer's word: at worst it makes us look in vain, but not for ever.
func (p *peer) onBell(hint uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.deaf {
		return
	}
	wanted := false // some of our routes has asked to be rung for since it was last
	wake := func(o *outRoute) {
		if e := o.w.SpaceWanted(); e != o.rungFor {
			o.rungFor, wanted = e, true
		}
		o.w.WakeSpace()
	}
	if hint != shmio.AllRoutes {
		if o := p.out[hint]; o != nil {
			wake(o)
		}
	} else {
		for _, o := range p.out {
			wake(o)
		}
	}
	if p.rings.Heard(wanted) {
		return
	}
	p.deaf = true
	p.seating.drop()
	for _, w := range append(p.oldBells, p.bellWatch) {
		_ = w.Close() // there is nothing to lose
	}
	p.n.background(func(context.Context) { p.n.cutRinger(p) })
}

// cutRinger ends what we send to a peer that has rung for nothing: it is heard no more, so nobody may wait for it.
func (n *Node) cutRinger(p *peer) {
	why := fmt.Errorf("%w: its reader has rung our bell %d times for nothing", shmio.ErrCorruptRoute, shmio.MaxEmptyRings)
	n.log.Warn("a peer rings for nothing: what is sent to it ends", "peer", p.name, "pid", p.pid, "error", why)
	for _, o := range n.outRoutes() {
		if o.peer == p {
			n.cut(o.id, why)
		}
	}
}

// Ring wakes the peer. Until its bell is known, it finds out by itself.
func (p *peer) Ring(hint uint32) {
	if b := p.bell.Load(); b != nil { // pairs with setBell
		b.Ring(hint)
	}
}

// onRoutePeer takes what the center tells of the other end of a route.
func (n *Node) onRoutePeer(m *bhomev1.RoutePeer, in *descriptors) error {
	n.mu.Lock()
	p := n.peers[m.GetPeerSession()]
	r, o := n.in[m.GetRoute()], n.out[m.GetRoute()]
	n.mu.Unlock()
	if p == nil {
		return nil // the route ended meanwhile, and with it the peer; the descriptors are closed by the caller
	}
	p.mapLate()
	var err error
	for _, ref := range m.GetSegments() {
		fd, e := in.take()
		if e != nil {
			return e
		}
		if e := p.addSegment(ref, fd); e != nil { // without it the route may still work: join finds out
			err = e
		}
	}
	var bell *shmio.FD // a reader's is its route's; a writer's is for all our routes from it
	if m.GetHasBell() {
		fd, err := in.take()
		if err != nil {
			return err
		}
		if m.GetRole() == bhomev1.Role_ROLE_WRITER {
			bell = fd
			defer bell.Close()
		} else if err := p.setBell(fd); err != nil { // then it finds out by itself that there is room
			n.log.Warn("a peer's bell can't be used", "peer", p.name, "pid", p.pid, "error", err)
		}
	}
	if m.GetHasPidfd() {
		fd, err := in.take()
		if err != nil {
			return err
		}
		if err := p.watchDeath(fd); err != nil {
			return err
		}
	}
	var unjoined error
	switch {
	case m.GetRole() == bhomev1.Role_ROLE_READER && r != nil && r.peer == p:
		unjoined = r.join(m.GetHalf())
	case m.GetRole() == bhomev1.Role_ROLE_WRITER && o != nil && o.peer == p:
		unjoined = o.join(m.GetHalf(), bell)
	}
	if unjoined != nil { // what the peer gave can't be used: that ends the route, and tells the center why
		if o != nil && m.GetRole() == bhomev1.Role_ROLE_WRITER {
			o.mu.Lock()
			o.lost = true
			o.mu.Unlock()
		}
		n.background(func(context.Context) { n.cut(m.GetRoute(), unjoined) })
		return unjoined
	}
	return err
}

func (p *peer) setBell(fd *shmio.FD) error {
	b, err := shmio.OpenBell(fd)
	if err != nil {
		return fmt.Errorf("the bell of %q: %w", p.name, err)
	}
	if !p.bell.CompareAndSwap(nil, b) { // pairs with Ring
		b.Close()
	}
	return nil
}

func (p *peer) watchDeath(fd *shmio.FD) error {
	w, err := p.n.reactor.WatchPID(fd, func() { p.n.background(func(context.Context) { p.n.peerDied(p) }) })
	if err != nil {
		return fmt.Errorf("watch process %d (%q): %w", p.pid, p.name, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pidWatch != nil {
		go w.Close() // never in the reactor's way
		return nil
	}
	p.pidWatch = w
	return nil
}

// halfMemory is the peer's end of a route, in one of its segments.
func (p *peer) halfMemory(h *bhomev1.Half, size uint64) ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	seg := p.control[h.GetSegment()]
	if lost := p.lost.Load(); seg == nil && lost != nil { // pairs with addSegment
		return nil, *lost
	}
	if seg == nil {
		return nil, fmt.Errorf("%w: segment %d of %q is not known", ErrRemote, h.GetSegment(), p.name)
	}
	if h.GetOffset()%halfAlign != 0 {
		return nil, fmt.Errorf("%w: %q has a half at offset %d of segment %d, which is misaligned", ErrRemote, p.name, h.GetOffset(), h.GetSegment())
	}
	mem, err := seg.Memory(h.GetOffset(), size)
	if err != nil {
		return nil, fmt.Errorf("a half of %q in segment %d: %w", p.name, h.GetSegment(), err)
	}
	return mem, nil
}

// heldOf counts, by peer, the blocks that are taken and not returned; n.mu is held. A block counts from before its place in
// the queue is given up, so whoever sees none, of a segment that can't be found any more, may unmap it.
func (n *Node) heldOf() map[*peer]int {
	held := map[*peer]int{}
	for _, r := range n.in {
		if k := r.r.HeldCount(); k > 0 {
			held[r.peer] += k
		}
	}
	return held
}

// unmapRetired unmaps what can be; false if something has to wait.
func (n *Node) unmapRetired() (done bool) {
	done = true
	n.mu.Lock()
	peers := make([]*peer, 0, len(n.peers))
	held := n.heldOf()
	for _, p := range n.peers {
		peers = append(peers, p)
	}
	n.mu.Unlock()
	lk := n.link.Load()
	for _, p := range peers {
		p.mu.Lock()
		if len(p.retired) == 0 || held[p] != 0 {
			done = done && len(p.retired) == 0
			p.mu.Unlock()
			continue
		}
		retired := p.retired
		p.retired = nil
		p.mu.Unlock()
		for _, r := range retired {
			r.seg.Close()
			if lk != nil {
				_ = lk.sayUnmapped(p.session, r.ref) // a new center learns it from nobody having it mapped
			}
		}
	}
	return done
}
