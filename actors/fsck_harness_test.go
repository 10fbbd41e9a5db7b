package actors

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/bhome-bus/bhome/node"
	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
)

// patient is an actor of the center on which a test operates.
type patient struct{ actor.Actor }

type operation struct{ on func(a actor.Actor) }

// Receive is the actor.
func (p patient) Receive(c actor.Context) {
	if m, ok := c.Message().(*operation); ok {
		m.on(p.Actor)
		c.Respond(m)
		return
	}
	p.Actor.Receive(c)
}

// operate changes an actor's records behind its back, on its own goroutine.
func operate[A actor.Actor](b *testBus, pid *actor.PID, f func(a A)) {
	b.t.Helper()
	if _, err := b.system.Root.RequestFuture(pid, &operation{func(a actor.Actor) { f(a.(A)) }}, patience).Result(); err != nil {
		b.t.Fatal(err)
	}
}

func withPatients(c *Config) {
	c.hooks.ownTicks = true
	c.hooks.wrap = func(a actor.Actor) actor.Actor { return patient{a} }
}

// check looks at the bus as the center does, with shorter pauses.
func (b *testBus) check(change ...func(*check)) *FaultsReply {
	b.t.Helper()
	in := &inspector{root: b.system.Root, cfg: b.cfg,
		roles: roles{center: b.pid, procs: b.role("procs"), msgs: b.role("msgs"), registry: b.role("registry"), pubsub: b.role("pubsub")}}
	x := &check{in: in, patience: patience, pauses: []time.Duration{time.Millisecond, 5 * time.Millisecond}, quit: make(chan struct{})}
	for _, f := range change {
		f(x)
	}
	return x.run()
}

// clean waits until a check finds nothing: what was begun may take a moment to settle.
func (b *testBus) clean() {
	b.t.Helper()
	eventually(b.t, func() string { return faultText(b.check()) })
}

func faultText(r *FaultsReply) string {
	var s strings.Builder
	for _, f := range r.Faults {
		fmt.Fprintf(&s, "%s: %s: %s\n", f.GetKind(), f.GetWhere(), f.GetWhat())
	}
	return s.String()
}

// finds plants a fault, which a check must find and name, and takes it out again.
func (b *testBus) finds(t *testing.T, kind, words string, plant, heal func()) {
	t.Helper()
	plant()
	r := b.check()
	heal()
	for _, f := range r.Faults {
		if f.GetKind() == kind && strings.Contains(f.GetWhere()+": "+f.GetWhat(), words) {
			if f.GetDo() == "" {
				t.Errorf("%q doesn't say what to do", f.GetWhat())
			}
			return
		}
	}
	t.Errorf("no %s fault with %q; found:\n%s", kind, words, faultText(r))
}

// sickBus is a bus on which there is one of everything: a publisher with blocks out at a subscriber that holds some and
// hasn't read others, a service and its client.
type sickBus struct {
	*testBus
	pub, sub         *node.Node
	pubPID, subPID   *actor.PID
	route            uint64
	pubSess, subSess uint64
}

func newSickBus(t *testing.T) *sickBus {
	b := &sickBus{testBus: newTestBus(t, withPatients)}
	b.pub, b.sub = b.attach("pub"), b.attach("sub")
	s, err := b.sub.Subscribe(b.ctx, "a.>", node.Depth(16))
	if err != nil {
		t.Fatal(err)
	}
	p, err := b.pub.Publisher(b.ctx, "a.b")
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := p.Publish(b.ctx, make([]byte, 3000)); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Publish(b.ctx, []byte("small")); err != nil {
		t.Fatal(err)
	}
	m, err := s.Receive(b.ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Release() }) // the bus ends with the test
	if _, err := b.sub.Serve(b.ctx, "svc", func(context.Context, *node.Request) ([]byte, error) { return nil, nil }); err != nil {
		t.Fatal(err)
	}
	if _, err := b.pub.Request(b.ctx, "svc", nil); err != nil {
		t.Fatal(err)
	}
	b.clean()
	operate(b.testBus, b.role("pubsub"), func(p *pubSub) {
		for id, r := range p.routes {
			b.route, b.pubSess, b.subSess = id, r.pub.party.id.Session, r.sub.key.session
		}
	})
	b.pubPID, b.subPID = b.sessionPID(b.pubSess), b.sessionPID(b.subSess)
	return b
}

func (b *sickBus) msgs(f func(m *msgRecords, n *nodeRecord)) func() {
	return func() {
		b.t.Helper()
		operate(b.testBus, b.role("msgs"), func(m *msgRecords) { f(m, m.nodes[b.pubSess]) })
	}
}

func (b *sickBus) pubsub(f func(p *pubSub, r *psRoute)) func() {
	return func() {
		b.t.Helper()
		operate(b.testBus, b.role("pubsub"), func(p *pubSub) { f(p, p.routes[b.route]) })
	}
}

func (b *sickBus) registry(f func(g *registry)) func() {
	return func() { b.t.Helper(); operate(b.testBus, b.role("registry"), f) }
}

func (b *sickBus) procs(f func(p *procRecords)) func() {
	return func() { b.t.Helper(); operate(b.testBus, b.role("procs"), f) }
}

func (b *sickBus) center(f func(c *center)) func() {
	return func() { b.t.Helper(); operate(b.testBus, b.pid, f) }
}

// writer is the publisher's session with its end of the route, reader the subscriber's.
func (b *sickBus) writer(f func(s *session, r *sessionRoute)) func() {
	return func() {
		b.t.Helper()
		operate(b.testBus, b.pubPID, func(s *session) { f(s, s.routes[routeEnd{b.route, bhomev1.Role_ROLE_WRITER}]) })
	}
}

func (b *sickBus) reader(f func(s *session, r *sessionRoute)) func() {
	return func() {
		b.t.Helper()
		operate(b.testBus, b.subPID, func(s *session) { f(s, s.routes[routeEnd{b.route, bhomev1.Role_ROLE_READER}]) })
	}
}

// A run of the publisher's in which a block is free, and one is held.
func aRun(n *nodePages) (found *run) {
	for _, d := range n.segs {
		for _, r := range d.pages {
			if r != nil && len(r.free) > 0 && len(r.free) < len(r.recs) {
				found = r
			}
		}
	}
	return found
}

// charge changes what a node's uid is charged.
func charge(m *msgRecords, n *nodeRecord, bytes, segments int) {
	u := m.uids[n.uid]
	m.uids[n.uid] = segmentUse{u.bytes + uint64(bytes), u.number + segments}
}
