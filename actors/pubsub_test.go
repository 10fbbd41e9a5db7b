package actors

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
)

// hub is a pubSub without its actor.
type hub struct {
	*pubSub
	t *testing.T
	c *fakeContext
}

func newHub(t *testing.T, change ...func(*Config)) *hub {
	cfg := testConfig()
	for _, f := range change {
		f(&cfg)
	}
	return &hub{pubSub: newPubSub(cfg), t: t, c: &fakeContext{}}
}

// do has a node send a frame, and returns the frames that answer it, with all acknowledgements given.
func (h *hub) do(session uint64, body proto.Message) []*frameOut {
	h.t.Helper()
	f := fakeNode(session)
	f.body = body
	switch m := body.(type) {
	case *bhomev1.Subscribe:
		h.subscribe(h.c, f, m)
	case *bhomev1.Advertise:
		h.advertise(h.c, f, m)
	case *bhomev1.Unsubscribe:
		h.unsubscribe(h.c, subKey{session, m.GetSubscription()}, true, "unsubscribed")
	default:
		h.t.Fatalf("%T", body)
	}
	return ackAll(h.c, func(a *routeAck) { h.router.onAck(h.c, a) })
}

// must fails the test unless the node got one answer, without an error.
func (h *hub) must(session uint64, body proto.Message) {
	h.t.Helper()
	if got := h.do(session, body); len(got) != 1 || commonErr(got[0]) != nil {
		h.t.Fatalf("%T: answers %v", body, got)
	}
}

func sub(number uint64, pattern string) *bhomev1.Subscribe {
	return &bhomev1.Subscribe{Subscription: number, Pattern: pattern, Depth: 8, Hold: 8, Quota: 4096}
}

// With 10,000 subscriptions an Advertise and a Subscribe look only at what matches.
func TestPubSubVisitsOnlyWhatMatches(t *testing.T) {
	h := newHub(t)
	const many = 10_000
	for i := range many {
		h.must(uint64(10*(i%100+100)), sub(uint64(i), fmt.Sprintf("other.%d.x", i)))
		if i%10 == 0 {
			h.must(uint64(20000+i), &bhomev1.Advertise{Topic: fmt.Sprintf("published.%d", i)})
		}
	}
	// Whoever looked at one of these would fail.
	for k := range h.subs {
		h.subs[k] = nil
	}
	for s := range h.pubs {
		h.pubs[s] = nil
	}
	const k = 7
	for i := range k {
		h.must(uint64(50000+10*i), sub(1, []string{"cam.front", "cam.", "cam.>", "*.front", "cam.*", "cam.front", "cam."}[i]))
	}
	before := h.patterns.entered
	routes := len(h.routes)
	h.must(90000, &bhomev1.Advertise{Topic: "cam.front"})
	if n := h.patterns.entered - before; n > 7 {
		t.Errorf("an Advertise that matches %d of %d subscriptions entered %d nodes", k, many+k, n)
	}
	if n := len(h.routes) - routes; n != k {
		t.Errorf("%d routes, want %d", n, k)
	}
	before = h.topics.entered
	h.must(90010, sub(1, "cam.front"))
	if n := h.topics.entered - before; n > 3 {
		t.Errorf("a Subscribe that matches 1 of %d topics entered %d nodes", many/10+1, n)
	}
	if n := len(h.routes) - routes; n != k+1 {
		t.Errorf("%d routes, want %d", n, k+1)
	}
}

// Subscribe is answered when the writers' sessions have told their nodes, and the subscriber's has told its own.
func TestPubSubAnswersAfterTheAcks(t *testing.T) {
	h := newHub(t)
	h.must(100, &bhomev1.Advertise{Topic: "a.b"})
	h.must(110, &bhomev1.Advertise{Topic: "a.c"})
	f := fakeNode(200)
	h.subscribe(h.c, f, sub(1, "a."))
	var asks, own []sentMsg
	for _, s := range h.c.take() {
		switch m := s.msg.(type) {
		case *openRoute:
			switch {
			case m.ack == nil:
				t.Errorf("%v isn't to be acknowledged", m.open)
			case m.open.GetRole() == bhomev1.Role_ROLE_WRITER:
				asks = append(asks, s)
			default:
				own = append(own, s)
			}
		case *frameOut:
			t.Fatal("answered before the sessions acknowledged")
		}
	}
	if len(asks) != 2 || len(own) != 2 {
		t.Fatalf("%d acknowledgements are asked for of the writers, %d of the subscriber", len(asks), len(own))
	}
	op := asks[0].msg.(*openRoute).op
	for _, s := range own {
		h.router.onAck(h.c, &routeAck{op, sessionOf(s.to)})
	}
	h.router.onAck(h.c, &routeAck{op, sessionOf(asks[0].to)})
	if len(h.c.sent) != 0 {
		t.Fatal("answered before the last acknowledgement")
	}
	h.router.onAck(h.c, &routeAck{op + 1000, sessionOf(asks[1].to)}) // of nothing
	h.gone(h.c, sessionOf(asks[1].to), false)                        // it can't acknowledge any more
	answers := ackAll(h.c, func(*routeAck) {})
	if len(answers) != 1 || commonErr(answers[0]) != nil {
		t.Fatalf("answers %v", answers)
	}
}

func TestPubSubRefusals(t *testing.T) {
	h := newHub(t, func(c *Config) {
		c.Limits.SubscriptionsPerNode, c.Limits.TopicsPerNode, c.Limits.Topics, c.Limits.RoutesPerNode = 2, 2, 4, 3
		c.Limits.NodeBytes, c.Limits.Reserve = 1<<20, 1<<16
	})
	refused := func(session uint64, body proto.Message, code bhomev1.ErrorCode, limit string) {
		t.Helper()
		got := h.do(session, body)
		if len(got) != 1 || commonErr(got[0]).GetCode() != code || commonErr(got[0]).GetLimit() != limit {
			t.Errorf("%v: answers %v, want %v of limit %q", body, got, code, limit)
		}
	}
	invalid := bhomev1.ErrorCode_ERROR_CODE_INVALID_INPUT
	for _, topic := range []string{"", "a..b", "a.*", "\xff", strings.Repeat("x", 65536)} {
		refused(100, &bhomev1.Advertise{Topic: topic}, invalid, "")
		if topic != "a.*" {
			refused(100, sub(1, topic), invalid, "")
		}
	}
	for _, m := range []*bhomev1.Subscribe{
		{Pattern: "a", Depth: 0, Hold: 1}, {Pattern: "a", Depth: 1, Hold: 0}, {Pattern: "a", Depth: 65537, Hold: 1}, {Pattern: "a", Depth: 1, Hold: 65537},
		{Pattern: "a", Depth: 1, Hold: 1, OnFull: 3}, {Pattern: "a", Depth: 1, Hold: 1, OnFull: -1}, {Pattern: "a", Depth: 1, Hold: 1, ExpiryNs: -1},
	} {
		refused(100, m, invalid, "")
	}
	h.must(100, sub(1, "a"))
	refused(100, sub(1, "b"), invalid, "")
	h.must(100, sub(2, "b"))
	refused(100, sub(3, "c"), bhomev1.ErrorCode_ERROR_CODE_TOO_MANY, "subscriptions_per_node")
	h.do(100, &bhomev1.Unsubscribe{Subscription: 2})
	h.must(100, sub(3, "c"))

	h.must(200, &bhomev1.Advertise{Topic: "t1"})
	h.must(200, &bhomev1.Advertise{Topic: "t2"})
	refused(200, &bhomev1.Advertise{Topic: "t3"}, bhomev1.ErrorCode_ERROR_CODE_TOO_MANY, "topics_per_node")
	h.must(210, &bhomev1.Advertise{Topic: "t3"})
	h.must(210, &bhomev1.Advertise{Topic: "t4"})
	refused(220, &bhomev1.Advertise{Topic: "t5"}, bhomev1.ErrorCode_ERROR_CODE_TOO_MANY, "topics")

	big := sub(1, "t1")
	big.Quota = 1 << 20
	refused(300, big, bhomev1.ErrorCode_ERROR_CODE_NO_MEMORY, "route")
	if h.pubs[200].cost != 0 || len(h.routes) != 0 || len(h.subs) != 2 {
		t.Errorf("a refused Subscribe left costs of %d, %d routes, %d subscriptions", h.pubs[200].cost, len(h.routes), len(h.subs))
	}
	for i := range 3 {
		h.must(uint64(400+10*i), sub(1, "t1"))
	}
	refused(500, sub(1, "t1"), bhomev1.ErrorCode_ERROR_CODE_TOO_MANY, "routes_per_node")
	for i := range 3 {
		h.gone(h.c, uint64(400+10*i), false)
	}
	if h.pubs[200].cost != 0 || len(h.routes) != 0 {
		t.Errorf("ended routes left costs of %d, %d routes", h.pubs[200].cost, len(h.routes))
	}
}

func TestTopicIDs(t *testing.T) {
	ids := newTopicIDs(0, 5, func(string) bool { return true })
	a, b := ids.of("a"), ids.of("b")
	if a == 0 || b == 0 || a == b || ids.of("a") != a {
		t.Fatal(a, b, ids.of("a"))
	}
	first := ids.keep("c", 7)
	if again := ids.keep("c", 7); !first || !again || ids.keep("c", 8) || ids.keep("d", 7) || ids.keep("e", 0) || ids.keep("a", 9) {
		t.Error("a reported id: only a free one, by a name without one, is kept")
	}
	other := newTopicIDs(0, 5, nil) // of another center
	if other.of("b") != b || other.of("a") != a {
		t.Error("the ids depend on the order")
	}
	home := other.of("d")
	if !ids.keep("taken", home) {
		t.Fatal("a free id isn't kept")
	}
	d := ids.of("d")
	if d == 0 || d == a || d == b || d == 7 || d == home {
		t.Errorf("id %d; taken: %d %d 7 %d", d, a, b, home)
	}
	if ids.of("e") != 0 || ids.keep("e", 8) {
		t.Error("5 ids, and no sixth")
	}
	if last := newTopicIDs(0, 5, nil); last.at(^uint32(0)) != firstService-1 || last.at(firstService) != 0 {
		t.Error("the numbers don't wrap")
	}
	if ids.of("d") != d {
		t.Error("a known name in a full table")
	}
	if got := newTopicIDs(firstService, 5, nil); got.of("x") <= firstService {
		t.Error("a service's id is not of the services'")
	}
}

func TestRouteIDs(t *testing.T) {
	low := map[uint32]bool{}
	routers := []router{newRouter(0), newRouter(1)}
	routers[0].next, routers[1].next = 1<<31-3, 1<<31-3 // where the low half would be 0 or that of AllRoutes
	for range 1000 {
		for i := range routers {
			id := routers[i].routeID()
			if id>>63 != 0 || uint32(id) == 0 || uint32(id) == ^uint32(0) || low[uint32(id)] {
				t.Fatalf("route id %#x", id)
			}
			low[uint32(id)] = true
		}
	}
}

func TestSlotsFor(t *testing.T) {
	for depth, want := range map[uint32]uint32{1: 16, 2: 32, 3: 64, 64: 1024, 1000: 16384, 4096: 65536, 65536: 65536} {
		if got := slotsFor(depth); got != want {
			t.Errorf("slotsFor(%d) = %d, want %d", depth, got, want)
		}
	}
}
