package actors

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio"
)

func TestCheckFindsAccountsThatDontAddUp(t *testing.T) {
	b := newSickBus(t)
	var lost uint16
	var page uint64
	var sick *run
	b.msgs(func(_ *msgRecords, n *nodeRecord) { sick = aRun(n.pages) })()
	for _, c := range []struct {
		words       string
		plant, heal func(m *msgRecords, n *nodeRecord)
	}{
		{"the bus is charged", func(m *msgRecords, _ *nodeRecord) { m.bus += 4096 }, func(m *msgRecords, _ *nodeRecord) { m.bus -= 4096 }},
		{"uid", func(m *msgRecords, n *nodeRecord) { charge(m, n, -4096, 0) }, func(m *msgRecords, n *nodeRecord) { charge(m, n, 4096, 0) }},
		{"uid", func(m *msgRecords, n *nodeRecord) { charge(m, n, 0, 1) }, func(m *msgRecords, n *nodeRecord) { charge(m, n, 0, -1) }},
		{"uid 77 is charged", func(m *msgRecords, _ *nodeRecord) { m.uids[77] = segmentUse{bytes: 1} }, func(m *msgRecords, _ *nodeRecord) { delete(m.uids, 77) }},
		{"are held; counted are", func(_ *msgRecords, n *nodeRecord) { n.pages.blocks++ }, func(_ *msgRecords, n *nodeRecord) { n.pages.blocks-- }},
		{"are held; counted are", func(_ *msgRecords, n *nodeRecord) { n.pages.bytes-- }, func(_ *msgRecords, n *nodeRecord) { n.pages.bytes++ }},
		{"is free twice", func(_ *msgRecords, n *nodeRecord) { sick.free = append(sick.free, sick.free[0]) },
			func(_ *msgRecords, n *nodeRecord) { sick.free = sick.free[:len(sick.free)-1] }},
		{"is granted and free", func(_ *msgRecords, n *nodeRecord) { sick.recs[sick.free[0]].since = 1 },
			func(_ *msgRecords, n *nodeRecord) { sick.recs[sick.free[0]].since = 0 }},
		{"neither free nor granted", func(_ *msgRecords, n *nodeRecord) { lost, sick.free = sick.free[0], sick.free[1:] },
			func(_ *msgRecords, n *nodeRecord) { sick.free = append([]uint16{lost}, sick.free...) }},
		{"wrongly listed", func(_ *msgRecords, n *nodeRecord) { sick.inRow = 9 }, func(_ *msgRecords, n *nodeRecord) { sick.inRow = 0 }},
		{"are listed so", func(_ *msgRecords, n *nodeRecord) {
			sick.seg.rows.partial.set(255, []*run{sick})
		},
			func(_ *msgRecords, n *nodeRecord) { sick.seg.rows.partial.set(255, nil) }},
		{"runs, and counts", func(_ *msgRecords, n *nodeRecord) { n.pages.segs[0].used++ }, func(_ *msgRecords, n *nodeRecord) { n.pages.segs[0].used-- }},
		{"to give out", func(_ *msgRecords, n *nodeRecord) { page, _ = n.pages.segs[0].free.Alloc(pageBytes) },
			func(_ *msgRecords, n *nodeRecord) { n.pages.segs[0].free.Free(page, pageBytes) }},
		{"data segments have", func(_ *msgRecords, n *nodeRecord) { n.pages.segSize++ }, func(_ *msgRecords, n *nodeRecord) { n.pages.segSize-- }},
		{"address space are taken", func(_ *msgRecords, n *nodeRecord) { n.pages.places.Take(1<<30, pageBytes) },
			func(_ *msgRecords, n *nodeRecord) { n.pages.places.Free(1<<30, pageBytes) }},
		{"segments are counted", func(_ *msgRecords, n *nodeRecord) { n.number++ }, func(_ *msgRecords, n *nodeRecord) { n.number-- }},
		{"bytes of control segments", func(_ *msgRecords, n *nodeRecord) { n.control += 4096 }, func(_ *msgRecords, n *nodeRecord) { n.control -= 4096 }},
	} {
		b.finds(t, faultAccounts, c.words, b.msgs(c.plant), b.msgs(c.heal))
	}
	uid := uint32(uidOf())
	b.finds(t, faultAccounts, "all uids together", b.center(func(c *center) { c.perUID[uid]++ }), b.center(func(c *center) { c.perUID[uid]-- }))
	b.finds(t, faultAccounts, "is charged 4 names", b.procs(func(p *procRecords) { p.table.byUID[uid] += 2 }), b.procs(func(p *procRecords) { p.table.byUID[uid] -= 2 }))
	b.finds(t, faultAccounts, "for its routes, which cost", b.pubsub(func(_ *pubSub, r *psRoute) { r.pub.cost++ }), b.pubsub(func(_ *pubSub, r *psRoute) { r.pub.cost-- }))
	b.finds(t, faultAccounts, "subscriptions, and has 1", b.pubsub(func(p *pubSub, _ *psRoute) { p.bySub[b.subSess]++ }), b.pubsub(func(p *pubSub, _ *psRoute) { p.bySub[b.subSess]-- }))
	b.finds(t, faultAccounts, "services, and has 1", b.registry(func(g *registry) { g.serving[b.subSess]++ }), b.registry(func(g *registry) { g.serving[b.subSess]-- }))
	b.finds(t, faultAccounts, "ends of routes, and has 2", b.registry(func(g *registry) { g.perNode[b.subSess]++ }), b.registry(func(g *registry) { g.perNode[b.subSess]-- }))
	b.clean()
}

func TestCheckFindsBlocksWithoutGrantOrHolder(t *testing.T) {
	b := newSickBus(t)
	var place uint32
	b.writer(func(s *session, r *sessionRoute) {
		for _, x := range s.scan(&scanRoutes{tables: true}).routes {
			if x.id == b.route {
				place = x.out[0].place
			}
		}
	})()
	var was grantRec
	b.finds(t, faultBlock, "which isn't granted",
		b.msgs(func(_ *msgRecords, n *nodeRecord) {
			r, k := n.pages.find(place)
			was = r.recs[k]
			r.recs[k] = grantRec{}
		}),
		b.msgs(func(_ *msgRecords, n *nodeRecord) { r, k := n.pages.find(place); r.recs[k] = was }))
	var class uint64
	b.finds(t, faultBlock, "where no block begins",
		b.msgs(func(_ *msgRecords, n *nodeRecord) {
			r, _ := n.pages.find(place)
			class = r.block
			r.block += 16
			r.at += 16
		}),
		b.msgs(func(_ *msgRecords, n *nodeRecord) {
			for _, r := range n.pages.segs[0].pages {
				if r != nil && r.block == class+16 {
					r.block, r.at = class, r.at-16
					return
				}
			}
		}))
	var open *bhomev1.RouteOpen
	lie := b.writer(func(_ *session, r *sessionRoute) {
		open = r.open
		r.open = cloneOpen(open)
		r.open.PeerSession, r.open.PeerProc = 4711, "ghost"
	})
	heal := b.writer(func(_ *session, r *sessionRoute) { r.open = open })
	b.finds(t, faultBlock, "to ghost, which is gone", lie, heal)
	b.finds(t, faultRoute, "believes to session 0x1267", lie, heal)
	b.clean()
}

func TestCheckFindsRecordsOfTheGoneAndGapsOfTheLiving(t *testing.T) {
	b := newSickBus(t)
	ghost := &actor.PID{Id: "ghost"}
	b.finds(t, faultSession, "ProcRecords: session 0x1267 is over", b.procs(func(p *procRecords) { p.names[4711] = []string{"ghost"} }), b.procs(func(p *procRecords) { delete(p.names, 4711) }))
	b.finds(t, faultSession, "ghost is over, and its segments", b.msgs(func(m *msgRecords, _ *nodeRecord) {
		m.nodes[4711] = &nodeRecord{session: 4711, name: "ghost", pid: ghost, pages: newNodePages()}
	}),
		b.msgs(func(m *msgRecords, _ *nodeRecord) { delete(m.nodes, 4711) }))
	b.finds(t, faultSession, "PubSub: session 0x1267 is over, and it still remembers that it resumes", b.pubsub(func(p *pubSub, _ *psRoute) { p.resuming.begin(4711) }), b.pubsub(func(p *pubSub, _ *psRoute) { delete(p.resuming, 4711) }))
	b.finds(t, faultSession, "Registry: session 0x1267 is over", b.registry(func(g *registry) { g.offline[4711] = true }), b.registry(func(g *registry) { delete(g.offline, 4711) }))
	b.finds(t, faultSession, "an operation that waits for it", b.pubsub(func(p *pubSub, _ *psRoute) { p.router.ops[1<<40] = &routeOp{waits: map[uint64]int{4711: 1}} }),
		b.pubsub(func(p *pubSub, _ *psRoute) { delete(p.router.ops, 1<<40) }))
	var was *nodeRecord
	b.finds(t, faultSession, "is attached, and not known", b.msgs(func(m *msgRecords, n *nodeRecord) { was = n; delete(m.nodes, b.pubSess) }), b.msgs(func(m *msgRecords, _ *nodeRecord) { m.nodes[b.pubSess] = was }))
	b.finds(t, faultSession, "is online by its session's word", b.center(func(c *center) { c.sessions[b.subSess].online = false }), b.center(func(c *center) { c.sessions[b.subSess].online = true }))
	b.finds(t, faultSession, "its actor has ended", b.center(func(c *center) {
		c.sessions[4711] = &admitted{pid: actor.NewPID(c.roles.center.Address, "nobody"), id: Identity{Session: 4711, Name: "ghost"}}
	}), b.center(func(c *center) { delete(c.sessions, 4711) }))
	var pid *actor.PID
	b.finds(t, faultSession, "has attached again, and it still remembers subscription", b.pubsub(func(_ *pubSub, r *psRoute) { pid = r.sub.party.pid; r.sub.party.pid = ghost }),
		b.pubsub(func(_ *pubSub, r *psRoute) { r.sub.party.pid = pid }))
	// Names.
	b.finds(t, faultName, "are both online as \"pub\"", b.reader(func(s *session, _ *sessionRoute) { s.id.Name = "pub" }), b.reader(func(s *session, _ *sessionRoute) { s.id.Name = "sub" }))
	var owner *holder
	b.finds(t, faultName, "the name's owner is session 0x0", b.procs(func(p *procRecords) { x := &p.table.procs[p.table.index["sub"]]; owner, x.owner = x.owner, nil }),
		b.procs(func(p *procRecords) { p.table.procs[p.table.index["sub"]].owner = owner }))
	b.finds(t, faultName, "is looked for at", b.procs(func(p *procRecords) { p.table.index["sub"] += 7 }), b.procs(func(p *procRecords) { p.table.index["sub"] -= 7 }))
	b.finds(t, faultName, "names have an index", b.procs(func(p *procRecords) { p.table.index["ghost"] = 0 }), b.procs(func(p *procRecords) { delete(p.table.index, "ghost") }))
	b.clean()
}

func TestCheckFindsBrokenRoutesAndRecords(t *testing.T) {
	b := newSickBus(t)
	var kept *sessionRoute
	b.finds(t, faultRoute, "has lost this end (the reader)", b.reader(func(s *session, r *sessionRoute) {
		kept = r
		delete(s.routes, routeEnd{b.route, bhomev1.Role_ROLE_READER})
	}),
		b.reader(func(s *session, _ *sessionRoute) { s.routes[routeEnd{b.route, bhomev1.Role_ROLE_READER}] = kept }))
	b.finds(t, faultRoute, "has lost this end (the writer)", b.writer(func(s *session, r *sessionRoute) {
		kept = r
		delete(s.routes, routeEnd{b.route, bhomev1.Role_ROLE_WRITER})
	}),
		b.writer(func(s *session, _ *sessionRoute) { s.routes[routeEnd{b.route, bhomev1.Role_ROLE_WRITER}] = kept }))
	var route *psRoute
	forget := b.pubsub(func(p *pubSub, r *psRoute) { route = r; delete(p.routes, b.route) })
	recall := b.pubsub(func(p *pubSub, _ *psRoute) { p.routes[b.route] = route })
	b.finds(t, faultRoute, "which neither PubSub nor Registry knows", forget, recall)
	b.finds(t, faultRecords, "which is not known as its", forget, recall)
	var end *bhomev1.RouteOpen
	b.finds(t, faultRoute, "were told different things", b.reader(func(_ *session, r *sessionRoute) {
		end = r.open
		r.open = cloneOpen(end)
		r.open.PeerSession = b.pubSess
		r.open.Depth++
	}),
		b.reader(func(_ *session, r *sessionRoute) { r.open = end }))
	b.finds(t, faultRoute, "session 0x1267, is over", b.registry(func(g *registry) {
		g.routes[1] = &svcRoute{id: 1, w: party{id: Identity{Session: 4711}}, r: party{id: Identity{Session: b.subSess}}}
	}), b.registry(func(g *registry) { delete(g.routes, 1) }))
	var half *bhomev1.Half
	var since int64
	b.finds(t, faultHalf, "has never said where its half", b.writer(func(_ *session, r *sessionRoute) { half, since, r.half, r.since = r.half, r.since, nil, 0 }),
		b.writer(func(_ *session, r *sessionRoute) { r.half, r.since = half, since }))
	b.finds(t, faultRecords, "isn't found by it", b.pubsub(func(p *pubSub, _ *psRoute) { delete(p.byTopic["a.b"], b.pubSess) }), b.pubsub(func(p *pubSub, _ *psRoute) { p.byTopic["a.b"][b.pubSess] = struct{}{} }))
	b.finds(t, faultRecords, "is not known to both of them", b.pubsub(func(_ *pubSub, r *psRoute) { route = r; delete(r.sub.routes, fromKey{session: b.pubSess}) }), b.pubsub(func(_ *pubSub, r *psRoute) { r.sub.routes[fromKey{session: b.pubSess}] = r }))
	var svc *service
	b.finds(t, faultRecords, "sub provides topic 0x", b.registry(func(g *registry) { svc = g.services["svc"]; delete(g.services, "svc") }), b.registry(func(g *registry) { g.services["svc"] = svc }))
	b.finds(t, faultRecords, "reply route 0x1", b.registry(func(g *registry) { g.replies[pairKey{provider: 1, client: 2}] = &svcRoute{id: 1} }), b.registry(func(g *registry) { delete(g.replies, pairKey{provider: 1, client: 2}) }))
	place := segmentPlace{1 << 20, 3}
	b.finds(t, faultSegment, "is charged, and not known to its session", b.msgs(func(_ *msgRecords, n *nodeRecord) {
		n.pages.segs = append(n.pages.segs, &dataSegment{base: place.base, generation: 3, free: shmio.NewArena(0, 0, 1)})
	}),
		b.msgs(func(_ *msgRecords, n *nodeRecord) { n.pages.segs = n.pages.segs[:len(n.pages.segs)-1] }))
	b.finds(t, faultSegment, "is mapped, and not charged", b.writer(func(s *session, _ *sessionRoute) {
		for _, n := range s.data {
			s.data[place] = n
			return
		}
	}), b.writer(func(s *session, _ *sessionRoute) { delete(s.data, place) }))
	b.clean()
}

// An actor that doesn't answer is told, and one whose records are beyond looking at; both go on.
func TestCheckFindsWhoDoesNotAnswer(t *testing.T) {
	b := newSickBus(t)
	go1, stuck := make(chan struct{}), make(chan struct{})
	go func() {
		_, _ = b.system.Root.RequestFuture(b.role("registry"), &operation{func(actor.Actor) { close(stuck); <-go1 }}, patience).Result()
	}()
	<-stuck
	r := b.check(func(x *check) { x.patience = 100 * time.Millisecond })
	close(go1)
	if text := faultText(r); !strings.Contains(text, "no answer: Registry: it hasn't answered") {
		t.Errorf("found:\n%s", text)
	}
	b.clean()
	b.finds(t, faultSilent, "PubSub: it fails at looking at its records", b.pubsub(func(p *pubSub, _ *psRoute) { p.subs[subKey{4711, 1}] = nil }),
		b.pubsub(func(p *pubSub, _ *psRoute) { delete(p.subs, subKey{4711, 1}) }))
	b.clean()
}

// Whoever may ask gets the same answer, by way of the node library and in the embedding program; many at once share a check.
func TestCheckIsAskedFor(t *testing.T) {
	b := newSickBus(t)
	results := make(chan error, 8)
	for range cap(results) {
		go func() {
			c, err := b.sub.Check(b.ctx)
			if err == nil && (len(c.Faults) != 0 || c.Looks < 1 || c.Checked["sessions"] != 2 || c.Checked["routes"] != 3 || c.Checked["blocks"] == 0 || c.Checked["held"] != 3) {
				err = fmt.Errorf("%v after %d looks, %v", c.Faults, c.Looks, c.Checked)
			}
			results <- err
		}()
	}
	for range cap(results) {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	b.center(func(c *center) {
		for i := range 300 { // more than one frame has room for
			c.perUID[uint32(100000+i)]++
		}
	})()
	c, err := b.sub.Check(b.ctx)
	if err != nil || len(c.Faults) != 1 {
		t.Errorf("%v, %v", c, err)
	}
	b.center(func(c *center) {
		for i := range 300 {
			delete(c.perUID, uint32(100000+i))
		}
	})()
	b.pubsub(func(p *pubSub, _ *psRoute) {
		for i := range uint64(300) {
			p.bySub[1<<40+i] = 1
		}
	})()
	if c, err = b.sub.Check(b.ctx); err != nil || len(c.Faults) != 300 {
		t.Errorf("%d faults, %v; want 300", len(c.Faults), err)
	}
	if r := askCenter[*FaultsReply](b.testBus, &QueryFaults{}); r.Err != nil || len(r.Faults) != 300 || r.Faults[0].GetKind() != faultAccounts {
		t.Errorf("%d faults, %v", len(r.Faults), r.Err)
	}
	b.log.wait(t, "a check has found faults", "count=300")
	b.pubsub(func(p *pubSub, _ *psRoute) {
		for i := range uint64(300) {
			delete(p.bySub, 1<<40+i)
		}
	})()
	b.clean()
}

// A data segment that a node reports where another is already is refused, and isn't charged for ever.
func TestRefusedReportIsNotCharged(t *testing.T) {
	m := newMsgRecords(testConfig())
	seg := func() *shmio.Segment {
		return must(shmio.HeapSegment(shmio.SegmentSpec{Kind: shmio.KindData, Number: 1, Size: 64 << 10}))
	}
	if _, _, err := m.attach(&nodeAttach{id: Identity{Session: 10}, from: &actor.PID{Id: "s"}, name: "liar", control: 4096, data: seg(), resume: &segmentPlace{256, 0}}); err != nil {
		t.Fatal(err)
	}
	add := func(base uint32) {
		m.addSegment(&fakeContext{}, &segmentAdd{session: 10, seg: seg(), kind: shmio.KindData, size: 64 << 10, number: 2, place: segmentPlace{base, 0}, report: true})
	}
	before := m.bus
	add(256)
	if m.bus != before {
		t.Errorf("%d bytes are charged for a segment that was refused", m.bus-before)
	}
	m.cfg.Limits.NodeBytes = before // a center that starts anew with less
	add(1 << 20)
	r := m.audit()
	b := m.auditBlocks(&auditBlocks{session: 10})
	if m.bus != before || len(r.list)+len(b.list) != 0 {
		t.Errorf("%d bytes are charged, before %d; %v %v", m.bus, before, r.list, b.list)
	}
	m.release(10, "test")
	m.background.Wait()
	if m.bus != 0 || len(m.uids) != 0 {
		t.Errorf("%d bytes stay charged, to %v", m.bus, m.uids)
	}
}

// queries passes on to the center, and keeps who asks.
type queries struct {
	actor.Actor
	seen chan Identity
}

// Receive is the actor.
func (q queries) Receive(c actor.Context) {
	if m, ok := c.Message().(*query); ok {
		q.seen <- m.id
	}
	q.Actor.Receive(c)
}

// Every question says whose it is, by the kernel's word: the rules are asked about that process, not about nobody.
func TestQuestionsSayWhose(t *testing.T) {
	seen := make(chan Identity, 8)
	b := newTestBus(t, func(c *Config) {
		c.hooks.wrap = func(a actor.Actor) actor.Actor {
			if _, ok := a.(*center); ok {
				return queries{a, seen}
			}
			return a
		}
	})
	n := b.attach("asker")
	for what, ask := range map[string]func() error{
		"procs":  func() error { _, err := n.Procs(b.ctx); return err },
		"msgs":   func() error { _, _, err := n.Msgs(b.ctx); return err },
		"topics": func() error { _, err := n.Topics(b.ctx); return err },
		"center": func() error { _, err := n.Center(b.ctx); return err },
		"faults": func() error { _, err := n.Check(b.ctx); return err },
	} {
		if err := ask(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if id := <-seen; id.Name != "asker" || int(id.PID) != pidOf(t) || int(id.UID) != uidOf() {
			t.Errorf("%s is asked by %+v", what, id)
		}
	}
}
