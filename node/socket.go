package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"

	"google.golang.org/protobuf/proto"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio"
	"github.com/bhome-bus/bhome/wire"
)

// sendSocket sends one frame on the socket; the descriptors stay the caller's.
func (lk *link) sendSocket(typ bhomev1.MsgType, body proto.Message, fds ...*shmio.FD) error {
	raw, err := proto.Marshal(body)
	if err != nil {
		return fmt.Errorf("%v: %w", typ, err)
	}
	f, err := lk.n.frame(uint32(typ), "", 0, 0, raw)
	if err != nil {
		return err
	}
	lk.sendMu.Lock()
	defer lk.sendMu.Unlock()
	if err := lk.conn.Send(f, fds...); err != nil {
		return fmt.Errorf("tell the center (%v): %w: %w", typ, ErrDisconnected, err)
	}
	return nil
}

// readSocket is the goroutine that hears of routes, segments and descriptors. It never waits for anything but the
// socket: a publisher that adopts routes waits for it.
func (lk *link) readSocket() {
	defer close(lk.readDone)
	for {
		b, fds, err := lk.conn.ReceiveMessage(wire.MaxFrame)
		if err != nil {
			if !errors.Is(err, io.EOF) {
				lk.n.log.Debug("the socket is closed", "error", err)
			}
			lk.hangUp(fmt.Errorf("%w: the center closed the socket", ErrDisconnected))
			return
		}
		head, body, err := splitFrame(b)
		if err != nil {
			lk.n.badWord("a frame on the socket", err)
		} else {
			in := descriptors{fds: fds}
			if err := lk.onSocketFrame(bhomev1.MsgType(head.GetType()), body, &in); err != nil {
				lk.n.log.Error("a message of the center can't be followed", "type", bhomev1.MsgType(head.GetType()), "error", err)
			}
			fds = in.fds
			if head.GetSeq() != 0 {
				// An error here is the hang-up that the next Receive reports.
				_ = lk.sendSocket(bhomev1.MsgType_MSG_TYPE_SOCKET_ACK, &bhomev1.SocketAck{Seq: head.GetSeq()})
			}
		}
		for _, fd := range fds { // what nobody took
			fd.Close()
		}
		lk.progress.Fire()
	}
}

// descriptors hands out what came with a frame, in order.
type descriptors struct{ fds []*shmio.FD }

func (d *descriptors) take() (*shmio.FD, error) {
	if len(d.fds) == 0 {
		return nil, fmt.Errorf("%w: a descriptor is missing", ErrRemote)
	}
	fd := d.fds[0]
	d.fds = d.fds[1:]
	return fd, nil
}

func (lk *link) onSocketFrame(typ bhomev1.MsgType, body []byte, in *descriptors) error {
	n := lk.n
	switch typ {
	case bhomev1.MsgType_MSG_TYPE_ROUTE_OPEN:
		return parse(body, func(m *bhomev1.RouteOpen) error {
			err := n.onRouteOpen(lk, m)
			lk.adoptedTo(m.GetGeneration())
			return err
		})
	case bhomev1.MsgType_MSG_TYPE_ROUTE_PEER:
		return parse(body, func(m *bhomev1.RoutePeer) error { return n.onRoutePeer(m, in) })
	case bhomev1.MsgType_MSG_TYPE_ROUTE_RETELL:
		return parse(body, func(m *bhomev1.RouteRetell) error { return n.onRouteRetell(lk, m) })
	case bhomev1.MsgType_MSG_TYPE_ROUTE_CLOSE:
		return parse(body, func(m *bhomev1.RouteClose) error {
			n.onRouteClose(m)
			lk.adoptedTo(m.GetGeneration())
			return nil
		})
	case bhomev1.MsgType_MSG_TYPE_ROUTE_TOPICS:
		return parse(body, func(m *bhomev1.RouteTopics) error {
			n.onRouteTopics(m)
			lk.adoptedTo(m.GetGeneration())
			return nil
		})
	case bhomev1.MsgType_MSG_TYPE_ROUTE_SEGMENTS:
		return parse(body, func(m *bhomev1.RouteSegments) error { return n.onRouteSegments(lk, m, in) })
	case bhomev1.MsgType_MSG_TYPE_PEER_GONE:
		return parse(body, func(m *bhomev1.PeerGone) error { n.onPeerGone(m); return nil })
	case bhomev1.MsgType_MSG_TYPE_SEGMENT_WANTED:
		return parse(body, func(m *bhomev1.SegmentWanted) error { return n.onSegmentWanted(lk, m) })
	case bhomev1.MsgType_MSG_TYPE_SEGMENT_DROP:
		return parse(body, func(m *bhomev1.SegmentDrop) error { return n.onSegmentDrop(lk, m) })
	case bhomev1.MsgType_MSG_TYPE_DISPLACED:
		return parse(body, func(m *bhomev1.Displaced) error {
			n.fail(fmt.Errorf("%w: process %d (uid %d) has taken the name %q", ErrDisplaced, m.GetPid(), m.GetUid(), m.GetName()), StateDisplaced)
			n.background(func(context.Context) { lk.leaveRoutes() })
			return nil
		})
	default:
		return fmt.Errorf("%w: unknown message type %d", ErrRemote, typ)
	}
}

func parse[M any, P interface {
	*M
	proto.Message
}](body []byte, f func(P) error) error {
	var m M
	if err := proto.Unmarshal(body, P(&m)); err != nil {
		return fmt.Errorf("%w: %w", ErrRemote, err)
	}
	return f(&m)
}

func (lk *link) adoptedTo(generation uint64) {
	if generation != 0 {
		lk.adopted.Store(generation)
	}
}

// onSegmentWanted makes the data segment that the center needs to grant what was asked for.
func (n *Node) onSegmentWanted(lk *link, m *bhomev1.SegmentWanted) error {
	seg, err := n.mem.addData(m.GetSize(), m.GetBase(), m.GetGeneration(), lk.session, m.GetAccess())
	if err != nil {
		return errors.Join(err, lk.sendSocket(bhomev1.MsgType_MSG_TYPE_SEGMENT_ADD, &bhomev1.SegmentAdd{
			Segment: &bhomev1.SegmentRef{Kind: uint32(shmio.KindData), Base: m.GetBase(), Generation: m.GetGeneration()},
			Size:    m.GetSize(),
			Errmsg:  noSegment(err),
		}))
	}
	return lk.announce(seg)
}

// noSegment says why a segment could not be made, for whoever asked for a block in it.
func noSegment(err error) *bhomev1.ErrorMsg {
	m := &bhomev1.ErrorMsg{Code: bhomev1.ErrorCode_ERROR_CODE_NO_MEMORY, Message: err.Error(), Limit: "memfd"}
	var room *shmio.HeadroomError
	var mappings *shmio.MappingsError
	switch {
	case errors.As(err, &room):
		m.Limit, m.Whose, m.InUse, m.Max = "cgroup", room.Cgroup, room.InUse, room.Max
	case errors.As(err, &mappings):
		m.Limit, m.Whose, m.InUse, m.Max = "mappings", "the node", mappings.InUse, mappings.Max
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		m.Limit = "descriptors"
	case errors.Is(err, syscall.ENOMEM):
		m.Limit = "address space"
	}
	return m
}

// announce tells the center of a segment of ours.
func (lk *link) announce(seg *shmio.Segment) error {
	ref := segmentRef(seg)
	ref.Access = lk.n.mem.accessOf(seg)
	return lk.sendSocket(bhomev1.MsgType_MSG_TYPE_SEGMENT_ADD, &bhomev1.SegmentAdd{Segment: ref, Size: seg.Size()}, seg.FD())
}

func segmentRef(seg *shmio.Segment) *bhomev1.SegmentRef {
	return &bhomev1.SegmentRef{Number: seg.Number(), Kind: uint32(seg.Kind()), Base: seg.Base(), Generation: seg.Generation()}
}

// onSegmentDrop lets an empty data segment go. It stays if a block of it is still known here: then the center errs.
func (n *Node) onSegmentDrop(lk *link, m *bhomev1.SegmentDrop) error {
	var held int
	n.mag.mu.Lock()
	for _, s := range *n.mem.data.Load() {
		if s.Base() != m.GetBase() || s.Generation() != m.GetGeneration() {
			continue
		}
		for g := range n.mag.grants {
			if p := g.Place(); p >= s.Base() && uint64(p-s.Base())*16 < s.Size() {
				held++
			}
		}
	}
	n.mag.mu.Unlock()
	if held > 0 {
		return fmt.Errorf("%w: the center wants data segment %#x dropped, in which %d blocks are ours", ErrRemote, m.GetBase(), held)
	}
	if !n.mem.dropData(m.GetBase(), m.GetGeneration()) {
		return fmt.Errorf("%w: the center wants data segment %#x dropped, which we don't have", ErrRemote, m.GetBase())
	}
	return lk.sendSocket(bhomev1.MsgType_MSG_TYPE_SEGMENT_DROP, m)
}
