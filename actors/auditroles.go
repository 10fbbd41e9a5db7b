package actors

import (
	"fmt"
)

// audit counts admissions, and lists the sessions.
func (c *center) audit() *auditCenterR {
	r := &auditCenterR{findings: findings{where: "Center"}, knocking: c.knocking}
	perUID, total := map[uint32]int{}, 0
	for session, a := range c.sessions {
		if session != a.id.Session {
			r.add(faultRecords, "the session kept under %#x is %#x", session, a.id.Session)
		}
		perUID[a.id.UID]++
		r.sessions = append(r.sessions, auditAdmitted{id: a.id, pid: a.pid.Id, online: a.online})
	}
	for uid, n := range c.perUID {
		total += n
		if n < perUID[uid] {
			r.add(faultAccounts, "uid %d is charged %d sessions, and has %d", uid, n, perUID[uid])
		}
	}
	if want := len(c.sessions) + c.knocking; total != want {
		r.add(faultAccounts, "all uids together are charged %d sessions; there are %d", total, want)
	}
	return r
}

// audit looks at the table of names, and lists who is remembered.
func (p *procRecords) audit() *auditRoleR {
	r := &auditRoleR{findings: findings{where: "ProcRecords"}}
	t := p.table
	if len(t.index) != len(t.procs) {
		r.add(faultName, "%d names have an index, of %d there are", len(t.index), len(t.procs))
	}
	byUID := map[uint32]int{}
	for i := range t.procs {
		x := &t.procs[i]
		byUID[x.uid]++
		if at, ok := t.index[x.name]; !ok || at != i {
			r.add(faultName, "the name %q is at index %d, and is looked for at %d", x.name, i, at)
		}
		if x.session != 0 {
			r.sessions = append(r.sessions, sessionRef{session: x.session, what: fmt.Sprintf("the name %q", x.name)})
		}
		if o := x.owner; o != nil {
			r.sessions = append(r.sessions, sessionRef{session: o.session, what: fmt.Sprintf("the owner of the name %q", x.name)})
			r.owners = append(r.owners, nameOwner{x.name, i, o.session})
		}
	}
	for uid, n := range t.byUID {
		if n != byUID[uid] {
			r.add(faultAccounts, "uid %d is charged %d names, and has taken %d", uid, n, byUID[uid])
		}
	}
	for session, names := range p.names {
		r.sessions = append(r.sessions, sessionRef{session: session, what: fmt.Sprintf("the names %q", names)})
	}
	return r
}

// remember lists what the operations in progress wait for.
func (r *auditRoleR) remember(ops map[uint64]*routeOp) {
	for _, op := range ops {
		for session := range op.waits {
			if session != nobody {
				r.sessions = append(r.sessions, sessionRef{session: session, what: "an operation that waits for it"})
			}
		}
	}
}

func (r *auditRoleR) reported(p *reports) {
	r.halves = make(map[uint64]bool, len(p.halves))
	for id, h := range p.halves {
		r.halves[id] = true
		for _, end := range []*reportedRoute{h.writer, h.reader} {
			if end != nil {
				r.sessions = append(r.sessions, sessionRef{end.id.Session, end.id.pidOf.Id, fmt.Sprintf("its report of route %#x", id)})
			}
		}
	}
	for session := range p.restored {
		r.sessions = append(r.sessions, sessionRef{session: session, what: "that it has reported all"})
	}
}

// audit looks at subscriptions, publishers and their routes. Topics are told by their ids: their names may be hidden from
// who asks.
func (p *pubSub) audit() *auditRoleR {
	r := &auditRoleR{findings: findings{where: "PubSub"}}
	bySub := map[uint64]int{}
	links := 0
	subscriber := func(key subKey, s *subscription) {
		r.sessions = append(r.sessions, sessionRef{key.session, s.party.pid.Id, fmt.Sprintf("subscription %d", key.number)})
		links += len(s.routes)
		for from, x := range s.routes {
			if p.routes[x.id] != x || x.sub != s || from != (fromKey{x.pub.party.id.Session, x.group}) {
				r.add(faultRecords, "subscription %d of %s has route %#x, which is not known as its", key.number, s.party.id.Name, x.id)
			}
		}
	}
	for key, s := range p.adopted {
		subscriber(key, s)
	}
	for key, s := range p.subs {
		subscriber(key, s)
		bySub[key.session]++
	}
	for session, n := range p.bySub {
		if n != bySub[session] {
			r.add(faultAccounts, "session %#x is charged %d subscriptions, and has %d", session, n, bySub[session])
		}
	}
	topics := 0
	for session, pub := range p.pubs {
		r.sessions = append(r.sessions, sessionRef{session, pub.party.pid.Id, fmt.Sprintf("a publisher of %d topics", len(pub.topics))})
		cost := uint64(0)
		for key, x := range pub.routes {
			cost += x.cost
			if p.routes[x.id] != x || x.pub != pub || key != (toKey{x.sub.key, x.group}) {
				r.add(faultRecords, "publisher %s has route %#x, which is not known as its", pub.party.id.Name, x.id)
			}
		}
		if cost != pub.cost {
			r.add(faultAccounts, "publisher %s is charged %d bytes for its routes, which cost %d", pub.party.id.Name, pub.cost, cost)
		}
		topics += len(pub.topics)
		for topic := range pub.topics {
			if _, ok := p.byTopic[topic][session]; !ok {
				r.add(faultRecords, "%s publishes topic %#x, and isn't found by it", pub.party.id.Name, p.ids.ids[topic])
			}
		}
	}
	for topic, sessions := range p.byTopic {
		topics -= len(sessions)
		for session := range sessions {
			r.sessions = append(r.sessions, sessionRef{session: session, what: fmt.Sprintf("a publisher of topic %#x", p.ids.ids[topic])})
		}
	}
	if topics != 0 {
		r.add(faultRecords, "publishers have %d topics more than are found by topic", topics)
	}
	for id, x := range p.routes {
		r.routes = append(r.routes, auditRoute{id, x.pub.party.id.Session, x.sub.key.session})
		if x.pub.routes[toKey{x.sub.key, x.group}] != x || x.sub.routes[fromKey{x.pub.party.id.Session, x.group}] != x {
			r.add(faultRecords, "route %#x from %s to %s is not known to both of them", id, x.pub.party.id.Name, x.sub.party.id.Name)
		}
	}
	if links != len(p.routes) {
		r.add(faultRecords, "subscriptions have %d routes, of %d there are", links, len(p.routes))
	}
	for session := range p.resuming {
		r.sessions = append(r.sessions, sessionRef{session: session, what: "that it resumes"})
	}
	r.remember(p.router.ops)
	r.reported(&p.reports)
	return r
}

// audit looks at services, clients and their routes.
func (g *registry) audit() *auditRoleR {
	r := &auditRoleR{findings: findings{where: "Registry"}}
	serving, ends := map[uint64]int{}, map[uint64]int{}
	for key, p := range g.providers {
		serving[key.session]++
		r.sessions = append(r.sessions, sessionRef{key.session, p.party.pid.Id, fmt.Sprintf("service %d", key.number)})
		if s := g.services[p.msg.GetTopic()]; s == nil || s.providers[key] != p {
			r.add(faultRecords, "%s provides topic %#x, and isn't found by it", p.party.id.Name, g.ids.ids[p.msg.GetTopic()])
		}
		for client, x := range p.routes {
			if g.routes[x.id] != x || x.prov != p || x.w.id.Session != client {
				r.add(faultRecords, "provider %s of topic %#x has route %#x, which is not known as its", p.party.id.Name, g.ids.ids[p.msg.GetTopic()], x.id)
			}
		}
	}
	for session, n := range g.serving {
		if n != serving[session] {
			r.add(faultAccounts, "session %#x is charged %d services, and has %d", session, n, serving[session])
		}
	}
	for session, topics := range g.clients {
		for topic, cl := range topics {
			r.sessions = append(r.sessions, sessionRef{session, cl.party.pid.Id, fmt.Sprintf("a client of topic %#x", g.ids.ids[topic])})
			if s := g.services[topic]; s == nil || s.clients[session] != cl {
				r.add(faultRecords, "%s is a client of topic %#x, and isn't found by it", cl.party.id.Name, g.ids.ids[topic])
			}
		}
	}
	for topic, s := range g.services {
		for key := range s.providers {
			r.sessions = append(r.sessions, sessionRef{session: key.session, what: fmt.Sprintf("a provider of topic %#x", g.ids.ids[topic])})
		}
		for session := range s.clients {
			r.sessions = append(r.sessions, sessionRef{session: session, what: fmt.Sprintf("who asks for topic %#x", g.ids.ids[topic])})
		}
		if len(s.providers)+len(s.clients) == 0 {
			r.add(faultRecords, "service topic %#x has neither providers nor clients", g.ids.ids[topic])
		}
	}
	for id, x := range g.routes {
		r.routes = append(r.routes, auditRoute{id, x.w.id.Session, x.r.id.Session})
		ends[x.w.id.Session]++
		ends[x.r.id.Session]++
		if x.prov != nil && x.prov.routes[x.w.id.Session] != x {
			r.add(faultRecords, "request route %#x from %s is not known to its provider %s", id, x.w.id.Name, x.r.id.Name)
		}
	}
	for session, n := range g.perNode {
		r.sessions = append(r.sessions, sessionRef{session: session, what: fmt.Sprintf("%d ends of routes", n)})
		if n != ends[session] {
			r.add(faultAccounts, "session %#x is charged %d ends of routes, and has %d", session, n, ends[session])
		}
	}
	for pair, x := range g.replies {
		if g.routes[x.id] != x || x.pair != pair {
			r.add(faultRecords, "reply route %#x from %s to %s is not known", x.id, x.w.id.Name, x.r.id.Name)
		}
	}
	for key, routes := range g.kept {
		for id, x := range routes {
			if g.routes[id] != x {
				r.add(faultRecords, "route %#x is kept for service %d of session %#x, and is not known", id, key.number, key.session)
			}
		}
		r.sessions = append(r.sessions, sessionRef{session: key.session, what: "routes kept for it"})
	}
	for session := range g.offline {
		r.sessions = append(r.sessions, sessionRef{session: session, what: "that it is unresponsive"})
	}
	for session := range g.returns.resuming {
		r.sessions = append(r.sessions, sessionRef{session: session, what: "that it resumes"})
	}
	r.remember(g.router.ops)
	r.reported(&g.reports)
	return r
}
