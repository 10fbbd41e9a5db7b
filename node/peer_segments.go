package node

import (
	"errors"
	"fmt"
	"syscall"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio"
)

// unmappedSegment is a segment of a peer's that we had no room for: the center tells of it only once, so its descriptor
// is kept until there is room.
type unmappedSegment struct {
	ref *bhomev1.SegmentRef
	fd  *shmio.FD
}

// addSegment maps a segment of the peer, or keeps it for mapLate. It takes over fd.
func (p *peer) addSegment(ref *bhomev1.SegmentRef, fd *shmio.FD) error {
	err := p.mapSegment(ref, fd)
	if err == nil || !errors.Is(err, syscall.ENOMEM) {
		_ = fd.Close() // what is mapped needs none, and what can't be isn't wanted
	} else {
		p.mu.Lock()
		p.unmapped = append(p.unmapped, unmappedSegment{ref, fd})
		p.mu.Unlock()
	}
	if err != nil {
		p.lost.Store(&err)
	}
	return err
}

// mapLate tries again what could not be mapped.
func (p *peer) mapLate() {
	p.mu.Lock()
	again := p.unmapped
	p.unmapped = nil
	p.mu.Unlock()
	if len(again) == 0 {
		return
	}
	if lost := p.lost.Load(); lost != nil && errors.Is(*lost, syscall.ENOMEM) {
		p.lost.Store(nil) // pairs with reject; those that fail again say so
	}
	for _, u := range again {
		_ = p.addSegment(u.ref, u.fd) // it was told when it failed first, and is in lost
	}
}

// mapLate tries again what could not be mapped of any peer, and has those look again who wait for it.
func (n *Node) mapLate() {
	n.mu.Lock()
	var late []*peer
	for _, p := range n.peers {
		if p.lost.Load() != nil { // pairs with addSegment
			late = append(late, p)
		}
	}
	n.mu.Unlock()
	for _, p := range late {
		p.mapLate()
	}
	if lk := n.link.Load(); lk != nil && len(late) > 0 {
		lk.progress.Fire()
	}
}

// limited is err, or the limit that it comes from, for whoever asked.
func limited(err error) error {
	var m *shmio.MappingsError
	if !errors.As(err, &m) {
		return err
	}
	return &LimitError{Limit: "mappings", Whose: "this process", InUse: m.InUse, Max: m.Max, Message: err.Error(), kind: ErrNoMemory}
}

// forgetUnmapped lets go of a segment that its owner has dropped; nil: of all.
func (p *peer) forgetUnmapped(ref *bhomev1.SegmentRef) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var kept []unmappedSegment
	for _, u := range p.unmapped {
		if ref == nil || u.ref.GetBase() == ref.GetBase() && u.ref.GetGeneration() == ref.GetGeneration() && u.ref.GetKind() == uint32(shmio.KindData) {
			_ = u.fd.Close() // nothing depends on how it ends
			continue
		}
		kept = append(kept, u)
	}
	p.unmapped = kept
}

// mapSegment maps a segment of the peer; fd stays the caller's.
func (p *peer) mapSegment(ref *bhomev1.SegmentRef, fd *shmio.FD) error {
	kind := shmio.Kind(ref.GetKind())
	own, err := fd.Share()
	if err != nil {
		return fmt.Errorf("segment %d of %q: %w", ref.GetNumber(), p.name, err)
	}
	seg, err := shmio.OpenSegment(own, shmio.Want{Kinds: []shmio.Kind{kind}, MaxSize: 32 << 30, CloseFD: true})
	if err != nil {
		return fmt.Errorf("segment %d of %q: %w", ref.GetNumber(), p.name, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if kind == shmio.KindData {
		for _, have := range p.space.Segments() {
			if have.Base() == seg.Base() && have.Generation() == seg.Generation() {
				seg.Close() // a center that came after the one that told us can't know that we have it
				return nil
			}
		}
		if err := p.space.Add(seg); err != nil {
			seg.Close()
			return fmt.Errorf("data segment %d of %q: %w", ref.GetNumber(), p.name, err)
		}
		return nil
	}
	if p.control[ref.GetNumber()] != nil {
		seg.Close()
		return nil
	}
	p.control[ref.GetNumber()] = seg
	return nil
}

// onRouteSegments maps new data segments of a peer and unmaps dropped ones.
func (n *Node) onRouteSegments(lk *link, m *bhomev1.RouteSegments, in *descriptors) error {
	n.mu.Lock()
	p := n.peers[m.GetPeerSession()]
	n.mu.Unlock()
	var lost error
	for _, ref := range m.GetAdded() {
		fd, err := in.take()
		if err != nil {
			return err
		}
		if p == nil {
			fd.Close()
			continue
		}
		if err := p.addSegment(ref, fd); err != nil {
			lost = err
		}
	}
	for _, ref := range m.GetDropped() {
		if p != nil {
			p.forgetUnmapped(ref)
			if seg := p.space.Remove(ref.GetBase(), ref.GetGeneration()); seg != nil {
				p.mu.Lock()
				p.retired = append(p.retired, retiredSegment{seg, ref})
				p.mu.Unlock()
				n.poke()
				continue
			}
		}
		if err := lk.sayUnmapped(m.GetPeerSession(), ref); err != nil {
			return err
		}
	}
	return lost
}

// retiredSegment is a data segment that its sender let go. An honest sender does that when nothing of it is held; to be
// safe from the others it stays mapped until we hold nothing of that peer.
type retiredSegment struct {
	seg *shmio.Segment
	ref *bhomev1.SegmentRef
}

func (lk *link) sayUnmapped(session uint64, ref *bhomev1.SegmentRef) error {
	return lk.sendSocket(bhomev1.MsgType_MSG_TYPE_SEGMENT_UNMAPPED, &bhomev1.SegmentUnmapped{PeerSession: session, Segment: ref})
}
