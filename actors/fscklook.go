package actors

import (
	"errors"
	"fmt"
	"slices"

	"github.com/asynkron/protoactor-go/actor"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
)

// auditSlice is how many routes a session looks at in one message: its other work goes on in between.
const auditSlice = 64

// askEach asks several actors at once; there is an answer for each, the zero value where there was none.
func askEach[T any](x *check, l *look, pids []*actor.PID, msg func(i int) any, who func(i int) string) []T {
	futures := make([]actor.Future, len(pids))
	for i, p := range pids {
		futures[i] = x.in.root.RequestFuture(p, msg(i), x.patience)
	}
	answers := make([]T, len(pids))
	for i, f := range futures {
		r, err := f.Result()
		switch r := r.(type) {
		case T:
			answers[i] = r
		case *auditFailed:
			l.suspect(faultSilent, who(i), "it fails at looking at its records: %s", r.reason)
		case *sessionOver: // the center will know
			l.suspect(faultSession, who(i), hasEnded)
		default:
			if errors.Is(err, actor.ErrDeadLetter) {
				l.suspect(faultSession, who(i), hasEnded)
				continue
			}
			l.silent++
			l.suspect(faultSilent, who(i), "it hasn't answered within %v", x.patience)
		}
	}
	return answers
}

const hasEnded = "the center counts it among the living, and its actor has ended"

// view is what the actors have said at one look.
type view struct {
	center   *auditCenterR
	roles    []*auditRoleR // ProcRecords, PubSub, Registry
	msgs     *auditMsgsR
	sessions map[uint64]*auditSessionR // those that have answered
	admitted map[uint64]*auditAdmitted
	nodes    map[uint64]*auditNode
}

// look asks everybody once and compares.
func (x *check) look() *look {
	l := &look{counts: map[string]uint64{}}
	v := x.ask(l)
	if v == nil {
		return l
	}
	l.counts["sessions"] = uint64(len(v.sessions))
	x.compareSessions(l, v)
	x.compareNames(l, v)
	x.compareSegments(l, v)
	x.compareRoutes(l, v)
	x.lookAtRoutes(l, v)
	x.lookAtHoldings(l, v)
	return l
}

func (x *check) ask(l *look) *view {
	r := x.in.roles
	one := func(i int) any { return &auditRole{} }
	names := []string{"ProcRecords", "PubSub", "Registry"}
	v := &view{sessions: map[uint64]*auditSessionR{}, admitted: map[uint64]*auditAdmitted{}, nodes: map[uint64]*auditNode{}}
	// The record keepers first: whom they know, the center has known before.
	for _, a := range askEach[*auditRoleR](x, l, []*actor.PID{r.procs, r.pubsub, r.registry}, one, func(i int) string { return names[i] }) {
		if a != nil {
			l.take(a.findings)
			v.roles = append(v.roles, a)
		}
	}
	v.msgs = askEach[*auditMsgsR](x, l, []*actor.PID{r.msgs}, func(int) any { return &auditMsgs{} }, func(int) string { return "MsgRecords" })[0]
	v.center = askEach[*auditCenterR](x, l, []*actor.PID{r.center}, func(int) any { return &auditCenter{} }, func(int) string { return "Center" })[0]
	if v.msgs == nil || v.center == nil || len(v.roles) < len(names) {
		return nil
	}
	l.take(v.msgs.findings)
	l.take(v.center.findings)
	for i := range v.msgs.nodes {
		v.nodes[v.msgs.nodes[i].session] = &v.msgs.nodes[i]
	}
	pids := make([]*actor.PID, 0, len(v.center.sessions))
	for i := range v.center.sessions {
		a := &v.center.sessions[i]
		v.admitted[a.id.Session] = a
		pids = append(pids, actor.NewPID(r.center.Address, a.pid))
	}
	who := func(i int) string { return "the session of " + v.center.sessions[i].id.label() }
	for _, s := range askEach[*auditSessionR](x, l, pids, func(int) any { return &auditSession{holdings: true} }, who) {
		if s != nil {
			l.take(s.findings)
			v.sessions[s.id.Session] = s
		}
	}
	return v
}

// label names a session for people.
func (id Identity) label() string {
	return fmt.Sprintf("%s (pid %d, session %#x)", id.Name, id.PID, id.Session)
}

// compareSessions finds records of sessions that are over, and those that a record keeper lacks.
func (x *check) compareSessions(l *look, v *view) {
	for _, role := range v.roles {
		for _, ref := range role.sessions {
			a := v.admitted[ref.session]
			switch {
			case a == nil:
				l.put(finding{kind: faultSession, where: role.where, key: fmt.Sprintf("stale|%s|%d|%s", role.where, ref.session, ref.what),
					what: fmt.Sprintf("session %#x is over, and it still remembers %s", ref.session, ref.what)})
			case ref.pid != "" && ref.pid != a.pid:
				l.put(finding{kind: faultSession, where: role.where, key: fmt.Sprintf("former|%s|%s|%s", role.where, ref.pid, ref.what),
					what: fmt.Sprintf("%s has attached again, and it still remembers %s of before", a.id.label(), ref.what)})
			}
		}
	}
	for _, n := range v.nodes {
		if a := v.admitted[n.session]; a == nil || a.pid != n.pid {
			l.put(finding{kind: faultSession, where: "MsgRecords", key: fmt.Sprintf("stale|msgs|%s", n.pid),
				what: fmt.Sprintf("the session %#x of %s is over, and its segments and blocks are still charged", n.session, n.name)})
		}
	}
	for session, s := range v.sessions {
		if s.state >= stateWelcomed && s.state < stateGone && v.nodes[session] == nil {
			l.put(finding{kind: faultSession, where: "MsgRecords", key: fmt.Sprintf("lacks|msgs|%d", session), what: s.id.label() + " is attached, and not known: it can be granted nothing"})
		}
		if a := v.admitted[session]; (s.state == stateOnline) != a.online {
			l.put(finding{kind: faultSession, where: "Center", key: fmt.Sprintf("online|%s|%v", s.pid, a.online),
				what: fmt.Sprintf("%s is online by its session's word: %v; by the center's: %v", s.id.label(), s.state == stateOnline, a.online)})
		}
	}
}

// compareNames finds names that two have, and such as their holder hasn't.
func (x *check) compareNames(l *look, v *view) {
	has := map[string]*auditSessionR{}
	owner := map[string]nameOwner{}
	for _, role := range v.roles {
		for _, o := range role.owners {
			owner[o.name] = o
		}
	}
	for _, s := range v.sessions {
		if s.state != stateOnline || s.id.ProcIndex < 0 {
			continue
		}
		if other := has[s.id.Name]; other != nil {
			first, second := min(other.id.Session, s.id.Session), max(other.id.Session, s.id.Session)
			l.put(finding{kind: faultName, where: "Center", key: fmt.Sprintf("twice|%d|%d", first, second),
				what: fmt.Sprintf("sessions %#x and %#x are both online as %q", first, second, s.id.Name)})
		}
		has[s.id.Name] = s
		if o, ok := owner[s.id.Name]; !ok || o.session != s.id.Session || o.index != s.id.ProcIndex {
			l.put(finding{kind: faultName, where: "ProcRecords", key: fmt.Sprintf("owner|%s|%d", s.pid, o.session),
				what: fmt.Sprintf("%s is online under index %d; the name's owner is session %#x, its index %d", s.id.label(), s.id.ProcIndex, o.session, o.index)})
		}
	}
}

// compareSegments finds segments that a session and MsgRecords don't both know.
func (x *check) compareSegments(l *look, v *view) {
	for session, s := range v.sessions {
		n := v.nodes[session]
		if n == nil || s.state < stateWelcomed || s.state >= stateGone {
			continue
		}
		where := "the segments of " + s.id.label()
		for _, p := range s.data {
			if !slices.Contains(n.segments, p) {
				l.suspect(faultSegment, where, "the data segment at %#x (generation %d) is mapped, and not charged", p.base, p.generation)
			}
		}
		for _, p := range n.segments {
			if !slices.Contains(s.data, p) {
				l.suspect(faultSegment, where, "the data segment at %#x (generation %d) is charged, and not known to its session", p.base, p.generation)
			}
		}
		if n.control != s.control {
			l.suspect(faultAccounts, where, "%d bytes of control segments are charged, it has %d", n.control, s.control)
		}
		if want := s.controls + len(n.segments) + n.growing; n.number != want {
			l.suspect(faultAccounts, where, "%d segments are counted, it has %d", n.number, want)
		}
	}
}

// compareRoutes finds routes without their ends, ends without a route, and ends that don't fit each other.
func (x *check) compareRoutes(l *look, v *view) {
	routes, halves := map[uint64]auditRoute{}, map[uint64]bool{}
	for _, role := range v.roles {
		for _, r := range role.routes {
			routes[r.id] = r
		}
		for id := range role.halves {
			halves[id] = true
		}
	}
	l.counts["routes"] = uint64(len(routes))
	ends := map[routeEnd]auditEnd{}
	for session, s := range v.sessions {
		for _, e := range s.ends {
			ends[e.end] = e
			r, known := routes[e.end.id]
			mine := r.writer
			if e.end.role == bhomev1.Role_ROLE_READER {
				mine = r.reader
			}
			where := "the routes of " + s.id.label()
			if !known && !halves[e.end.id] || known && mine != session {
				l.suspect(faultRoute, where, "it is still %s of route %#x with %s, which neither PubSub nor Registry knows", roleName(e.end.role), e.end.id, e.name)
			}
			if s.state == stateOnline && !s.detached && !e.half && e.overdue && !e.closing {
				l.suspect(faultHalf, where, "it runs, and has never said where its half of route %#x with %s is (it is %s)", e.end.id, e.name, roleName(e.end.role))
			}
		}
	}
	for id, r := range routes {
		for _, e := range []struct {
			session, peer uint64
			role          bhomev1.Role
		}{{r.writer, r.reader, bhomev1.Role_ROLE_WRITER}, {r.reader, r.writer, bhomev1.Role_ROLE_READER}} {
			if v.admitted[e.session] == nil {
				l.suspect(faultRoute, "the routes of the center", "route %#x is still there, and its %s, session %#x, is over", id, roleName(e.role), e.session)
				continue
			}
			s := v.sessions[e.session]
			if s == nil || s.state != stateOnline || s.detached {
				continue
			}
			end, ok := ends[routeEnd{id, e.role}]
			if !ok {
				l.suspect(faultRoute, "the routes of "+s.id.label(), "route %#x with session %#x has lost this end (the %s)", id, e.peer, roleName(e.role))
			} else if end.peer != e.peer {
				l.suspect(faultRoute, "the routes of "+s.id.label(), "route %#x leads to session %#x; this end (the %s) believes to session %#x", id, e.peer, roleName(e.role), end.peer)
			}
		}
		w, wok := ends[routeEnd{id, bhomev1.Role_ROLE_WRITER}]
		rd, rok := ends[routeEnd{id, bhomev1.Role_ROLE_READER}]
		if wok && rok && (w.spec.Slots != rd.spec.Slots || w.spec.Depth != rd.spec.Depth || w.spec.Out != rd.spec.Out || w.spec.Policy != rd.spec.Policy) {
			l.suspect(faultRoute, "the routes of the center", "the ends of route %#x were told different things: %+v and %+v", id, w.spec, rd.spec)
		}
	}
}

func roleName(r bhomev1.Role) string {
	if r == bhomev1.Role_ROLE_WRITER {
		return "writer"
	}
	return "reader"
}
