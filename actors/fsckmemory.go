package actors

import (
	"fmt"
	"os"
	"strings"

	"github.com/asynkron/protoactor-go/actor"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio"
)

// lookAtRoutes has the sessions look at the halves of their nodes, first the readers', then the writers', and MsgRecords at
// what is out on them.
func (x *check) lookAtRoutes(l *look, v *view) {
	var readers, writers []*auditSessionR
	overdue := map[uint64]bool{} // routes whose reader has said long ago where its half is
	for _, s := range v.sessions {
		reads, writes := false, false
		for _, e := range s.ends {
			if e.end.role == bhomev1.Role_ROLE_READER {
				reads = true
				overdue[e.end.id] = e.half && e.overdue && s.state == stateOnline && !s.detached
			} else {
				writes = true
			}
		}
		if reads {
			readers = append(readers, s)
		}
		if writes {
			writers = append(writers, s)
		}
	}
	pids := func(of []*auditSessionR) (list []*actor.PID) {
		for _, s := range of {
			list = append(list, actor.NewPID(x.in.roles.center.Address, s.pid))
		}
		return list
	}
	heads := map[uint64]shmio.ReaderView{}
	who := func(of []*auditSessionR) func(int) string {
		return func(i int) string { return "the session of " + of[i].id.label() }
	}
	for _, h := range askEach[*auditHeadsR](x, l, pids(readers), func(int) any { return &auditHeads{} }, who(readers)) {
		if h == nil {
			continue
		}
		l.take(h.findings)
		for id, r := range h.heads {
			heads[id] = r
		}
	}
	held := map[uint64][]auditOut{}
	for at := 0; ; at += auditSlice {
		var some []*auditSessionR
		var asks []*auditWords
		for _, s := range writers {
			if q := wordsFrom(s, at, heads, overdue); len(q.routes) > 0 {
				some, asks = append(some, s), append(asks, q)
			}
		}
		if len(some) == 0 {
			break
		}
		for i, w := range askEach[*auditWordsR](x, l, pids(some), func(i int) any { return asks[i] }, who(some)) {
			if w != nil {
				l.take(w.findings)
				held[some[i].id.Session] = append(held[some[i].id.Session], w.out...)
				l.counts["slots"] += w.slots
				l.counts["held"] += uint64(len(w.out))
			}
		}
	}
	x.lookAtBlocks(l, v, held)
}

// wordsFrom is the question about a session's writer halves from the at-th on.
func wordsFrom(s *auditSessionR, at int, heads map[uint64]shmio.ReaderView, overdue map[uint64]bool) *auditWords {
	q := &auditWords{}
	n := 0
	for _, e := range s.ends {
		if e.end.role != bhomev1.Role_ROLE_WRITER || !e.half {
			continue
		}
		if n++; n <= at {
			continue
		}
		if len(q.routes) == auditSlice {
			break
		}
		head, known := heads[e.end.id]
		q.routes = append(q.routes, auditWriter{id: e.end.id, tail: e.tail, reader: head, known: known,
			both: known && e.overdue && overdue[e.end.id] && s.state == stateOnline && !s.detached})
	}
	return q
}

// lookAtBlocks has MsgRecords look at one node after the other: others are served in between.
func (x *check) lookAtBlocks(l *look, v *view, held map[uint64][]auditOut) {
	for session := range v.nodes {
		out := held[session]
		for _, o := range out {
			if s := v.sessions[session]; s != nil && v.admitted[o.peer] == nil && !reportedHalf(v, o.route) {
				l.suspect(faultBlock, "the blocks of "+s.id.Name, "block %#x is out on route %#x to %s, which is gone", o.place, o.route, o.name)
			}
		}
		if s := v.sessions[session]; s == nil || s.state != stateOnline {
			out = nil // it is still being reported what it has
		}
		name := v.nodes[session].name
		r := askEach[*auditBlocksR](x, l, []*actor.PID{x.in.roles.msgs}, func(int) any { return &auditBlocks{session: session, out: out} },
			func(int) string { return "MsgRecords: the pages of " + name })[0]
		if r == nil {
			return
		}
		l.take(r.findings)
		l.counts["blocks"] += r.blocks
	}
}

// reportedHalf reports whether a route waits for its other end to be reported.
func reportedHalf(v *view, route uint64) bool {
	for _, role := range v.roles {
		if role.halves[route] {
			return true
		}
	}
	return false
}

// owed is what the records imply of one object.
type owed struct {
	what      string
	fds, maps int
}

// lookAtHoldings compares what this process has open and mapped with what the sessions say.
func (x *check) lookAtHoldings(l *look, v *view) {
	records := map[shmio.Inode]*owed{}
	pids := map[int]bool{os.Getpid(): true}
	transit := v.center.knocking * (shmio.MaxDescriptors + 2)
	for session, s := range v.sessions {
		transit += s.transit
		pids[int(s.id.PID)] = true
		for _, h := range s.held {
			o := records[h.inode]
			if o == nil {
				o = &owed{what: h.what + " of " + s.id.label()}
				records[h.inode] = o
			}
			o.fds, o.maps = o.fds+h.fds, o.maps+h.maps
			if n := v.nodes[session]; h.place != nil && n != nil {
				for _, p := range n.segments {
					if p == *h.place {
						o.maps++ // MsgRecords'
					}
				}
			}
		}
	}
	descriptors, err := shmio.Descriptors()
	if err != nil {
		l.suspect(faultDescriptor, "Center", "%v", err)
		return
	}
	mappings, err := shmio.Mappings()
	if err != nil {
		l.suspect(faultMapping, "Center", "%v", err)
		return
	}
	l.counts["descriptors"] = uint64(len(descriptors))
	open := map[shmio.Inode]int{}
	var strays []shmio.Descriptor
	for _, d := range descriptors {
		open[d.Inode]++
		if x.alone && records[d.Inode] == nil && !x.baseline[d.Inode] && !(d.PID > 0 && pids[d.PID]) && ours(d) {
			strays = append(strays, d)
		}
	}
	for id, m := range mappings {
		l.counts["mappings"] += uint64(m.Count)
		o := records[id]
		switch {
		case !x.alone:
		case o == nil && id != x.public:
			l.suspect(faultMapping, "Center", "%s (inode %d) is mapped %d times, and nobody's", m.Name, id.Ino, m.Count)
		case o != nil && m.Count > o.maps:
			l.suspect(faultMapping, "Center", "%s (inode %d) is mapped %d times; its records imply %d", o.what, id.Ino, m.Count, o.maps)
		}
	}
	for id, o := range records {
		if n := mappings[id].Count; n < o.maps {
			l.suspect(faultMapping, "Center", "%s (inode %d) is mapped %d times; its records imply %d", o.what, id.Ino, n, o.maps)
		}
		switch n := open[id]; {
		case n < o.fds:
			l.suspect(faultDescriptor, "Center", "%s (inode %d) is open %d times; its records imply %d", o.what, id.Ino, n, o.fds)
		case x.alone && n > o.fds && transit == 0 && o.maps > 0:
			l.suspect(faultDescriptor, "Center", "%s (inode %d) is open %d times; its records imply %d", o.what, id.Ino, n, o.fds)
		}
	}
	if len(strays) <= transit {
		return // they are on their way
	}
	for _, d := range strays {
		what := fmt.Sprintf("descriptor %d (%s, inode %d) is open, and nobody's", d.Number, d.Target, d.Inode.Ino)
		if d.PID != 0 {
			what = fmt.Sprintf("descriptor %d (a pidfd of process %d) is open, and nobody's", d.Number, d.PID)
		}
		l.suspect(faultDescriptor, "Center", "%s", what)
	}
}

// ours reports whether a descriptor is of a kind that nodes bring: what else is open is the runtime's.
func ours(d shmio.Descriptor) bool {
	return d.PID != 0 || strings.HasPrefix(d.Target, "/memfd:") || strings.HasPrefix(d.Target, "pipe:") || strings.HasPrefix(d.Target, "socket:")
}
