package actors

import (
	"time"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio"
	"github.com/bhome-bus/bhome/wire"
)

// writerHalf is the memory of the node's own half of a route it sends on; nil if it isn't told or not there.
func (s *session) halfMemory(r *sessionRoute, size uint64) []byte {
	if r.half == nil || s.control[r.half.GetSegment()] == nil {
		return nil
	}
	mem, err := s.control[r.half.GetSegment()].seg.Memory(r.half.GetOffset(), size)
	if err != nil {
		return nil
	}
	return mem
}

// longHeld is after how long a block that a reader keeps is worth a warning.
const longHeld = 10 * time.Second

// sample reads the counters of the routes the node sends on, once a second, and looks for what is held long.
func (s *session) sample() {
	now := shmio.CoarseNow()
	for end, r := range s.routes {
		if end.role != bhomev1.Role_ROLE_WRITER {
			continue
		}
		mem := s.halfMemory(r, routeSpec(r.open).WriterSize())
		if mem == nil {
			continue
		}
		v, err := shmio.ScanOut(mem, nil)
		if err != nil {
			continue
		}
		r.rate = float64(v.Sent - r.sentBase)
		r.sentBase = v.Sent
		if v.BytesOut == 0 {
			continue
		}
		// An error was told by the look before.
		_, _ = shmio.ScanOut(mem, func(_ uint64, w wire.Word) { s.warnHeld(r, w, now) })
	}
}

func (s *session) warnHeld(r *sessionRoute, w wire.Word, now uint64) {
	if r.warned {
		return
	}
	var b shmio.Block
	if err := s.space.Block(w, &b); err != nil || b.Header.Stamp > now || time.Duration(now-b.Header.Stamp) < longHeld {
		return
	}
	r.warned = true
	s.log.Warn("a block is held long", "owner", s.name(), "holder", r.open.GetPeerProc(), "topic", r.topics[b.Header.Topic], "size", b.Header.Size,
		"age", time.Duration(now-b.Header.Stamp).Round(time.Second))
}

// describe makes the node's row.
func (s *session) describe() *bhomev1.ProcRow {
	row := &bhomev1.ProcRow{Name: s.name(), Pid: s.id.PID, Uid: s.id.UID, State: s.stateName(), SinceUnixNs: s.since.UnixNano(),
		Session: s.id.Session, ProcIndex: int32(s.id.ProcIndex), Routes: uint32(len(s.routes)), Faults: s.faults}
	if n := s.control[0]; n != nil {
		c := n.seg.Counters()
		row.Sent, row.Received, row.Dropped = c[0], c[1], c[2]
	}
	return row
}

func (s *session) stateName() string {
	switch {
	case s.detach:
		return "detached"
	case s.state == stateOnline && s.offline:
		return "unresponsive"
	case s.state == stateOnline:
		return "online"
	case s.state >= stateClosing:
		return "gone"
	}
	return "attaching"
}

// scanHeads asks for the read cursors of the routes that a node receives on; headsR is the answer.
type (
	scanHeads struct{}
	headsR    struct{ heads map[uint64]uint64 }
)

func (s *session) heads() *headsR {
	h := &headsR{heads: map[uint64]uint64{}}
	for end, r := range s.routes {
		if end.role != bhomev1.Role_ROLE_READER {
			continue
		}
		if mem := s.halfMemory(r, routeSpec(r.open).ReaderSize()); mem != nil {
			if v, err := shmio.ScanReader(mem); err == nil {
				h.heads[end.id] = v.Head
			}
		}
	}
	return h
}

// scan reads the writer halves of the node: counters, what waits unread, and with tables what is out.
func (s *session) scan(q *scanRoutes) *routesScan {
	res := &routesScan{session: s.id.Session}
	for end, r := range s.routes {
		if end.role != bhomev1.Role_ROLE_WRITER {
			continue
		}
		mem := s.halfMemory(r, routeSpec(r.open).WriterSize())
		if mem == nil {
			continue
		}
		row := routeScan{id: end.id, peerName: r.open.GetPeerProc(), rate: r.rate}
		var each func(seq uint64, w wire.Word)
		if q.tables {
			each = func(seq uint64, w wire.Word) {
				if place, _, err := w.Message(); err == nil {
					row.out = append(row.out, outBlock{place, seq})
				}
			}
		}
		v, err := shmio.ScanOut(mem, each)
		if err != nil {
			continue
		}
		row.sent, row.dropped = v.Sent, v.Dropped
		if v.Policy == shmio.DropNewest { // what was dropped never counted as sent
			row.sent += v.Dropped
		}
		head, known := q.heads[end.id]
		if !known {
			head = v.First
		}
		row.unread = shmio.CountUnread(mem, v, head)
		res.routes = append(res.routes, row)
	}
	return res
}
