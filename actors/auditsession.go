package actors

import (
	"fmt"
	"time"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio"
	"github.com/bhome-bus/bhome/wire"
)

// longAnswered is how long after a node was told of a route it must have been heard of for its half to be overdue: it runs,
// and has had the time.
const longAnswered = 5 * time.Second

// audit tells what this session knows of its node.
func (s *session) audit(q *auditSession, self string) *auditSessionR {
	r := &auditSessionR{findings: findings{where: "the link of " + s.name()}, id: s.id, pid: self, state: s.state, inspect: s.inspect, detached: s.detach || s.severed}
	r.id.Name = s.name()
	if s.state == stateGone {
		return r
	}
	for end, x := range s.routes {
		e := auditEnd{end: end, peer: x.open.GetPeerSession(), name: x.open.GetPeerProc(), spec: routeSpec(x.open), half: x.half != nil,
			closing: x.closing, overdue: s.heard-x.since > int64(longAnswered)}
		if end.role == bhomev1.Role_ROLE_WRITER {
			if v, err := shmio.ScanOut(s.halfMemory(x, e.spec.WriterSize()), nil); err == nil {
				e.tail = v.Tail
			}
		}
		r.ends = append(r.ends, e)
	}
	for place := range s.data {
		r.data = append(r.data, place)
	}
	for _, n := range s.control {
		r.controls++
		r.control += n.seg.Size()
	}
	if s.state >= stateWelcomed {
		s.auditLink(&r.findings)
	}
	if q.holdings {
		s.auditHoldings(r)
	}
	return r
}

// auditLink looks at the link's six queues, of which both ends are here.
func (s *session) auditLink(f *findings) {
	for i := range wire.SocketCount + upQueues {
		spec, name := shmio.LinkSpec(i), fmt.Sprintf("down queue %d", i)
		wm, err := s.link.Memory(halfOffset(i), spec.WriterSize())
		hello := s.adm.hello.GetDown()
		at := i
		up := i >= wire.SocketCount
		if up {
			at = i - wire.SocketCount
			spec, name, hello = shmio.LinkSpec(upQueue(at)), fmt.Sprintf("up queue %d", at), s.adm.hello.GetUp()
			wm, err = s.adm.seg0.Memory(hello[at].GetOffset(), spec.WriterSize())
		}
		var rm []byte
		if err == nil && up {
			rm, err = s.link.Memory(halfOffset(i), spec.ReaderSize())
		} else if err == nil {
			rm, err = s.adm.seg0.Memory(hello[at].GetOffset(), spec.ReaderSize())
		}
		if err != nil {
			f.suspect(faultHalf, f.where, "%s: %v", name, err)
			continue
		}
		before, err := shmio.ScanOut(wm, nil)
		var reader shmio.ReaderView
		if err == nil {
			reader, err = shmio.ScanReader(rm)
		}
		var v shmio.WriterView
		if err == nil {
			v, err = shmio.ScanOut(wm, nil)
		}
		if err == nil && (v.ID != spec.ID || reader.ID != spec.ID || v.Slots != spec.Slots) {
			err = fmt.Errorf("the halves say that they are of route %#x and %#x", v.ID, reader.ID)
		}
		if err != nil {
			f.suspect(faultHalf, f.where, "%s: %v", name, err)
			continue
		}
		if err := shmio.CheckCursors(before.Tail, reader, v); err != nil {
			f.suspect(faultWord, f.where, "%s: %v", name, err)
			continue
		}
		if at, err := shmio.CheckSlots(wm, v, reader.Head, s.linkWord(up)); err != nil {
			f.suspect(faultWord, f.where, "%s, at %d: %v", name, at, err)
		}
	}
}

// linkWord checks a word of the link: a command that goes in its direction, or a frame's block.
func (s *session) linkWord(up bool) func(w wire.Word) error {
	return func(w wire.Word) (err error) {
		if !w.IsCommand() {
			_, _, err = w.Message()
			return err
		}
		switch cmd := w.Cmd(); {
		case up && cmd == wire.CmdNodeInit:
			_, err = wire.DecodeNodeInit(w)
		case up && (cmd == wire.CmdAllocRequest0 || cmd == wire.CmdAllocBatch):
			_, err = wire.DecodeAllocRequest(w)
		case up && cmd == wire.CmdFree:
			_, err = wire.DecodeFree(w)
		case !up && cmd == wire.CmdNodeInitReply:
			_, err = wire.DecodeNodeInitReply(w)
		case !up && cmd == wire.CmdAllocReply0:
			_, err = wire.DecodeAllocReply(w)
		case !up && cmd == wire.CmdControl:
			_, err = wire.DecodeControl(w)
		default:
			err = fmt.Errorf("%w: command %v", wire.ErrBadWord, cmd)
		}
		return err
	}
}

// auditHeads reads the reader halves of the node.
func (s *session) auditHeads() *auditHeadsR {
	r := &auditHeadsR{heads: map[uint64]shmio.ReaderView{}}
	where := "the routes to " + s.name()
	for end, x := range s.routes {
		if end.role != bhomev1.Role_ROLE_READER || x.half == nil || s.state != stateOnline || x.closing {
			continue
		}
		mem := s.halfMemory(x, routeSpec(x.open).ReaderSize())
		if mem == nil {
			r.suspect(faultHalf, where, "route %#x from %s: the reader half is said to be in segment %d, which isn't there", end.id, x.open.GetPeerProc(), x.half.GetSegment())
			continue
		}
		v, err := shmio.ScanReader(mem)
		switch {
		case err != nil:
			r.suspect(faultHalf, where, "route %#x from %s: the reader half: %v", end.id, x.open.GetPeerProc(), err)
		case v.ID != end.id:
			r.suspect(faultHalf, where, "route %#x from %s: the reader half is of route %#x", end.id, x.open.GetPeerProc(), v.ID)
		default:
			r.heads[end.id] = v
		}
	}
	return r
}

// auditWords looks at some of the writer halves of the node: what they say of themselves, the words that wait in them, and
// what is out.
func (s *session) auditWords(q *auditWords) *auditWordsR {
	r := &auditWordsR{}
	where := "the routes from " + s.name()
	if s.state != stateOnline {
		return r
	}
	for _, a := range q.routes {
		x := s.routes[routeEnd{a.id, bhomev1.Role_ROLE_WRITER}]
		if x == nil || x.half == nil || x.closing {
			continue
		}
		to, spec := x.open.GetPeerProc(), routeSpec(x.open)
		mem := s.halfMemory(x, spec.WriterSize())
		if mem == nil {
			r.suspect(faultHalf, where, "route %#x to %s: the writer half is said to be in segment %d, which isn't there", a.id, to, x.half.GetSegment())
			continue
		}
		v, err := shmio.ScanOut(mem, func(seq uint64, w wire.Word) {
			place, _, err := w.Message()
			if err == nil {
				var b shmio.Block
				err = s.space.Block(w, &b)
			}
			if err != nil {
				r.suspect(faultWord, where, "route %#x to %s: what is out under sequence number %d: %v", a.id, to, seq, err)
				return
			}
			r.out = append(r.out, auditOut{route: a.id, seq: seq, place: place, peer: x.open.GetPeerSession(), name: to})
		})
		if err == nil && v.ID != a.id {
			err = fmt.Errorf("it is of route %#x", v.ID)
		}
		if err == nil && (v.Slots != spec.Slots || v.Depth != spec.Depth || v.Out != spec.Out || v.Policy != spec.Policy) {
			err = fmt.Errorf("it has %d slots, depth %d, out %d, policy %v; told were %d, %d, %d, %v",
				v.Slots, v.Depth, v.Out, v.Policy, spec.Slots, spec.Depth, spec.Out, spec.Policy)
		}
		if err != nil {
			r.suspect(faultHalf, where, "route %#x to %s: the writer half: %v", a.id, to, err)
			continue
		}
		if a.both && !v.Joined {
			r.suspect(faultHalf, where, "route %#x to %s: the writer has never taken note of the reader's half", a.id, to)
		}
		if !a.known {
			continue
		}
		if err := shmio.CheckCursors(a.tail, a.reader, v); err != nil {
			r.suspect(faultWord, where, "route %#x to %s: %v", a.id, to, err)
			continue
		}
		r.slots += v.Tail - a.reader.Head
		at, err := shmio.CheckSlots(mem, v, a.reader.Head, func(w wire.Word) error {
			var b shmio.Block
			return s.space.Block(w, &b)
		})
		if err != nil {
			r.suspect(faultWord, where, "route %#x to %s, at %d: %v", a.id, to, at, err)
		}
	}
	return r
}

// auditHoldings tells what the session has open and mapped.
func (s *session) auditHoldings(r *auditSessionR) {
	put := func(h auditHeld, id shmio.Inode, err error) {
		if err == nil { // what is closed already is no more held
			h.inode = id
			r.held = append(r.held, h)
		}
	}
	segment := func(what string, n *nodeSegment, place *segmentPlace) {
		id, err := n.fd.Inode()
		if err != nil {
			r.add(faultDescriptor, "%s: %v", what, err)
		}
		put(auditHeld{what: what, fds: 1, maps: 1, place: place}, id, err)
	}
	for number, n := range s.control {
		segment(fmt.Sprintf("control segment %d", number), n, nil)
	}
	for place, n := range s.data {
		segment(fmt.Sprintf("data segment %d", n.ref.GetNumber()), n, &place)
	}
	for _, n := range s.dropped {
		segment(fmt.Sprintf("the dropped data segment %d", n.ref.GetNumber()), n, nil)
	}
	if s.link != nil && s.link.FD() != nil {
		id, err := s.link.FD().Inode()
		put(auditHeld{what: "the link segment", fds: 1, maps: 1}, id, err)
	}
	id, err := s.adm.bell.Inode()
	put(auditHeld{what: "the node's bell", fds: 1}, id, err)
	if s.hears != nil {
		id, err = s.hears.Inode()
		put(auditHeld{what: "our bell", fds: 1}, id, err)
	}
	if s.conn != nil {
		id, err = s.conn.c.Inode()
		put(auditHeld{what: "the socket", fds: 1}, id, err)
		r.transit = int(s.conn.transit.Load()) // pairs with send and the sender
	}
	for _, e := range s.early {
		r.transit += len(e.m.segments) + 2
	}
}
