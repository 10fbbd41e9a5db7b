package actors

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/bhome-bus/bhome/node"
	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/wire"
)

func uids(ids ...uint32) *Who { return &Who{UIDs: ids} }

// The first rule that covers the topic and speaks of the action decides.
func TestAccessDecides(t *testing.T) {
	a := Access{Rules: []AccessRule{
		{Name: "door", Topics: []string{"house.door"}, Publish: uids(1), Subscribe: &Who{GIDs: []uint32{7}}},
		{Name: "house", Topics: []string{"house.>", "garden"}, Publish: uids(2), Serve: &Who{}, Inspect: uids(9)},
		{Name: "free", Topics: []string{"house.hall"}, Subscribe: &Who{Everybody: true}},
		{Name: "rest", Topics: []string{">"}, Subscribe: uids(3)},
	}}
	for _, e := range a.validate() {
		t.Error(e)
	}
	for _, c := range []struct {
		id    Identity
		act   action
		topic string
		rule  string // that refuses
	}{
		{Identity{UID: 1}, actPublish, "house.door", ""},
		{Identity{UID: 2}, actPublish, "house.door", "door"},
		{Identity{UID: 0}, actPublish, "house.door", "door"}, // root is nobody special
		{Identity{UID: 2}, actPublish, "house.window", ""},
		{Identity{UID: 1}, actPublish, "garden", "house"},
		{Identity{UID: 1}, actPublish, "elsewhere", ""},
		{Identity{UID: 5, GID: 7}, actSubscribe, "house.door", ""},
		{Identity{UID: 5, GID: 5, Groups: []uint32{6, 7}}, actSubscribe, "house.door", ""},
		{Identity{UID: 7, GID: 5, Groups: []uint32{6}}, actSubscribe, "house.door", "door"},
		{Identity{UID: 5}, actSubscribe, "house.hall", ""},
		{Identity{UID: 5}, actSubscribe, "house.window", "rest"},
		{Identity{UID: 3}, actSubscribe, "house.window", ""},
		{Identity{UID: 3}, actServe, "house.bell", "house"},
		{Identity{UID: 3}, actServe, "bell", ""},
		{Identity{UID: 3}, actRequest, "house.bell", ""},
		{Identity{UID: 3}, actInspect, "garden", "house"},
	} {
		if got := a.refuses(&c.id, c.act, c.topic); got.GetRule() != c.rule {
			t.Errorf("%+v may %v %q: refused by %q, want %q", c.id, c.act, c.topic, got.GetRule(), c.rule)
		}
	}
	for _, c := range []struct {
		uid     uint32
		pattern string
		rule    string
	}{
		{5, ">", ""}, // it gets house.hall
		{5, "house.*", ""},
		{5, "house.door", "door"},
		{5, "house.window", "rest"},
		{5, "garden.>", "rest"},
		{5, "house.hall.>", "rest"},
		{3, "garden.>", ""},
	} {
		if got := a.refusesPattern(&Identity{UID: c.uid}, c.pattern); got.GetRule() != c.rule {
			t.Errorf("%d may subscribe to %q: refused by %q, want %q", c.uid, c.pattern, got.GetRule(), c.rule)
		}
	}
	if g := a.group(actSubscribe, "house.hall"); g != "" {
		t.Errorf("what everybody may read has access group %q", g)
	}
	one, other := a.group(actSubscribe, "x"), a.group(actSubscribe, "house.door")
	if one == "" || other == "" || one == other {
		t.Errorf("access groups %q and %q", one, other)
	}
	a.Rules[3].Subscribe = uids(3, 4)
	if changed := a.group(actSubscribe, "x"); changed == one || len(changed) > maxGroupName {
		t.Errorf("access group %q of another list", changed)
	}
}

// forbidding is a bus on which we, who run the tests, may only do what is allowed on "mine".
func forbidding(c *Config) {
	us, other := uids(uint32(os.Geteuid())), uids(uint32(os.Geteuid())+1)
	c.Access = Access{Inspect: other, Rules: []AccessRule{
		{Name: "mine", Topics: []string{"x.mine"}, Publish: us, Subscribe: us, Serve: us, Request: us},
		{Name: "theirs", Topics: []string{"x.>"}, Publish: other, Subscribe: other, Serve: other, Request: other},
		{Name: "read-only-for-them", Topics: []string{"y"}, Subscribe: other, Serve: other, Request: other},
	}}
}

// advertise asks for a topic and says what came of it.
func (r *rawNode) advertise(topic string) *bhomev1.AdvertiseReply {
	r.t.Helper()
	r.sent++
	id := fmt.Sprint("a", r.sent)
	r.frame(1, &bhomev1.Head{Type: uint32(bhomev1.MsgType_MSG_TYPE_ADVERTISE), MsgId: id}, &bhomev1.Advertise{Topic: topic})
	var m bhomev1.AdvertiseReply
	r.reply(0, id, bhomev1.MsgType_MSG_TYPE_ADVERTISE_REPLY, &m)
	return &m
}

// A node that asks over a bare socket is refused with the rule's name, however often it asks, and the log stays short.
func TestRawNodesAreRefused(t *testing.T) {
	b := newTestBus(t, forbidding)
	r := b.onlineRaw("raw")
	refused := func(rule string, err *bhomev1.ErrorMsg) {
		t.Helper()
		if err.GetCode() != bhomev1.ErrorCode_ERROR_CODE_NOT_ALLOWED || err.GetRule() != rule {
			t.Fatalf("%v, want a refusal by %q", err, rule)
		}
	}
	refused("theirs", r.advertise("x.a").GetErrmsg())
	for i, pattern := range []string{"x.a", "x.*.b", "x.a.>", "x.a.", "y"} {
		rule := "theirs"
		if pattern == "y" {
			rule = "read-only-for-them"
		}
		refused(rule, r.common(1, bhomev1.MsgType_MSG_TYPE_SUBSCRIBE, &bhomev1.Subscribe{Subscription: uint64(i) + 1, Pattern: pattern, Depth: 1, Hold: 1}))
	}
	refused("theirs", r.common(1, bhomev1.MsgType_MSG_TYPE_REGISTER_RPC, &bhomev1.RegisterRPC{Service: 100, Topic: "x.a", Depth: 1, Hold: 1}))
	r.frame(1, &bhomev1.Head{Type: uint32(bhomev1.MsgType_MSG_TYPE_CONNECT_SERVICE), MsgId: "cs"}, &bhomev1.ConnectService{Topic: "x.a"})
	var cs bhomev1.ConnectServiceReply
	r.reply(0, "cs", bhomev1.MsgType_MSG_TYPE_CONNECT_SERVICE_REPLY, &cs)
	refused("theirs", cs.GetErrmsg())
	r.frame(0, &bhomev1.Head{Type: uint32(bhomev1.MsgType_MSG_TYPE_QUERY_TOPIC), MsgId: "qt"}, &bhomev1.QueryTopic{Topic: "x.a"})
	var qt bhomev1.QueryTopicReply
	r.reply(0, "qt", bhomev1.MsgType_MSG_TYPE_QUERY_TOPIC_REPLY, &qt)
	refused("theirs", qt.GetErrmsg())
	for _, typ := range []bhomev1.MsgType{bhomev1.MsgType_MSG_TYPE_QUERY_PROCS, bhomev1.MsgType_MSG_TYPE_QUERY_MSGS, bhomev1.MsgType_MSG_TYPE_QUERY_TOPICS, bhomev1.MsgType_MSG_TYPE_QUERY_CENTER, bhomev1.MsgType_MSG_TYPE_QUERY_FAULTS} {
		refused(ruleInspect, r.common(0, typ, nil))
	}
	if m := r.advertise("x.mine"); m.GetErrmsg() != nil || m.GetAccess() == "" {
		t.Fatalf("its own topic: %v", m)
	}
	if m := r.advertise("y"); m.GetErrmsg() != nil || m.GetAccess() == "" {
		t.Fatalf("a topic that only others may read: %v", m)
	}
	if m := r.advertise("z"); m.GetErrmsg() != nil || m.GetAccess() != "" {
		t.Fatalf("a topic of no rule: %v", m)
	}
	for range 500 {
		refused("theirs", r.advertise("x.flood").GetErrmsg())
	}
	if n := b.log.count("refused by an access rule"); n < 5 || n > 3*refusalsPerUID { // pubsub, registry and center count apart
		t.Errorf("%d lines in the log", n)
	}
	r.alive()
}

// Who isn't on the list doesn't attach, and is told over its socket before it has said anything.
func TestAttachList(t *testing.T) {
	b := newTestBus(t, func(c *Config) { c.Access.Attach = uids(uint32(os.Geteuid()) + 1) })
	r, h := rawHello(t, "raw")
	r.dial(b.socket)
	r.send(bhomev1.MsgType_MSG_TYPE_HELLO, h, r.seg0.FD(), r.data.FD(), r.bell())
	if m := r.refusal(); m.GetCode() != bhomev1.ErrorCode_ERROR_CODE_NOT_ALLOWED || m.GetRule() != ruleAttach {
		t.Error(m)
	}
	_, err := node.Attach(b.ctx, node.Config{Name: "n", Socket: b.socket})
	var refused *node.NotAllowedError
	if !errors.Is(err, node.ErrNotAllowed) || !errors.As(err, &refused) || refused.Rule != ruleAttach {
		t.Error(err)
	}
}

// sockets is all that came over a raw node's socket so far: the routes it was told of, and whether a descriptor among what
// came has a text in its memory.
func (r *rawNode) sockets(until string, done func(*bhomev1.RouteOpen, *bhomev1.RouteClose) bool, secret []byte) (found int) {
	r.t.Helper()
	for {
		head, body, fds, err := r.receive()
		if err != nil {
			r.t.Fatalf("%s: %v", until, err)
		}
		for _, fd := range fds {
			var st unix.Stat_t
			if unix.Fstat(fd.Int(), &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
				continue
			}
			mem := make([]byte, st.Size)
			if _, err := unix.Pread(fd.Int(), mem, 0); err == nil && bytes.Contains(mem, secret) {
				found++
			}
		}
		var open bhomev1.RouteOpen
		var closed bhomev1.RouteClose
		switch bhomev1.MsgType(head.GetType()) {
		case bhomev1.MsgType_MSG_TYPE_ROUTE_OPEN:
			err = proto.Unmarshal(body, &open)
		case bhomev1.MsgType_MSG_TYPE_ROUTE_CLOSE:
			err = proto.Unmarshal(body, &closed)
		}
		if err != nil {
			r.t.Fatal(err)
		}
		if done(&open, &closed) {
			return found
		}
	}
}

// A raw subscriber to everything gets no route for what only others may read, and with its open routes from the same
// publisher no descriptor of the memory where that lies.
func TestRawSubscriberGetsNoDescriptors(t *testing.T) {
	b := newTestBus(t, forbidding)
	n := b.attach("publisher")
	pubs := map[string]*node.Publisher{}
	for _, topic := range []string{"y", "open.a"} {
		p, err := n.Publisher(b.ctx, topic, node.Keep(4))
		if err != nil {
			t.Fatal(err)
		}
		pubs[topic] = p
	}
	secret, plain := bytes.Repeat([]byte("for others only."), 100), bytes.Repeat([]byte("for everybody..."), 100)
	for range 4 {
		if err := errors.Join(pubs["y"].Publish(b.ctx, secret), pubs["open.a"].Publish(b.ctx, plain)); err != nil {
			t.Fatal(err)
		}
	}
	r := b.onlineRaw("raw")
	if err := r.common(1, bhomev1.MsgType_MSG_TYPE_SUBSCRIBE, &bhomev1.Subscribe{Subscription: 1, Pattern: ">", Depth: 8, Hold: 8, History: true}); err != nil {
		t.Fatal(err)
	}
	var route *bhomev1.RouteOpen
	r.sockets("a route", func(o *bhomev1.RouteOpen, _ *bhomev1.RouteClose) bool { route = o; return o.GetRoute() != 0 }, secret)
	if len(route.GetTopics()) != 1 || route.GetTopics()[0].GetName() != "open.a" || route.GetAccess() != "" {
		t.Errorf("told of %v", route)
	}
	r.send(bhomev1.MsgType_MSG_TYPE_ROUTE_HALF, &bhomev1.RouteHalf{Route: route.GetRoute(), Role: bhomev1.Role_ROLE_READER, HasBell: true,
		Half: &bhomev1.Half{Offset: 128 << 10}}, r.bell())
	got, foundPlain := 0, 0
	for foundPlain == 0 { // RoutePeer brings the publisher's open data segments
		head, _, fds, err := r.receive()
		if err != nil {
			t.Fatal(err)
		}
		for _, fd := range fds {
			var st unix.Stat_t
			if unix.Fstat(fd.Int(), &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
				continue
			}
			mem := make([]byte, st.Size)
			if _, err := unix.Pread(fd.Int(), mem, 0); err != nil {
				t.Fatal(err)
			}
			got++
			if bytes.Contains(mem, secret[:64]) {
				t.Errorf("message type %d brings what only others may read", head.GetType())
			}
			if bytes.Contains(mem, plain[:64]) {
				foundPlain++
			}
		}
	}
	if got < 2 {
		t.Errorf("%d segments", got)
	}
}

// Two nodes that report, after a restart, a route that the rules don't allow between them are not believed, whatever access
// group they give it.
func TestForbiddenRoutesAreNotAdopted(t *testing.T) {
	b := newTestBus(t, forbidding)
	const ws, rs = (1<<59/10 + 100) * 10, (1<<59/10 + 200) * 10
	resume := func(session uint64) func(*bhomev1.Hello) {
		return func(h *bhomev1.Hello) { h.Resume, h.Base, h.NextSegment = session, 256, 2 }
	}
	group := b.cfg.Access.group(actSubscribe, "y")
	for i, access := range []string{group, "", "no such group"} {
		w, r := b.attachRaw("w", resume(ws)), b.attachRaw("r", resume(rs))
		open := func(role bhomev1.Role, peer uint64) *bhomev1.ReportedRoute {
			return &bhomev1.ReportedRoute{Joined: true, Half: &bhomev1.Half{Offset: 64 << 10}, Route: &bhomev1.RouteOpen{Route: 1<<40 + uint64(i), Role: role,
				Kind: bhomev1.RouteKind_ROUTE_KIND_PUBSUB, PeerSession: peer, Slots: 16, Depth: 1, Out: 2, Quota: 1 << 20, Subscription: 1, Access: access,
				Topics: []*bhomev1.TopicID{{Id: 77, Name: "y"}}}}
		}
		w.send(bhomev1.MsgType_MSG_TYPE_REPORT, &bhomev1.Report{End: true, Routes: []*bhomev1.ReportedRoute{open(bhomev1.Role_ROLE_WRITER, rs)}})
		r.send(bhomev1.MsgType_MSG_TYPE_REPORT, &bhomev1.Report{End: true, Routes: []*bhomev1.ReportedRoute{open(bhomev1.Role_ROLE_READER, ws)}})
		for _, end := range []*rawNode{w, r} {
			end.sockets("the end of the route", func(_ *bhomev1.RouteOpen, c *bhomev1.RouteClose) bool {
				if c.GetRoute() == 0 {
					return false
				}
				if c.GetReason() != forbidden {
					t.Errorf("the route ends because %q", c.GetReason())
				}
				return true
			}, []byte("none"))
			end.send(bhomev1.MsgType_MSG_TYPE_BYE, nil)
		}
		eventually(t, func() string {
			if n := b.counter("sessions"); n != 0 {
				return fmt.Sprintf("%d sessions are left", n)
			}
			return ""
		})
	}
}

// Requests for blocks of access groups that no rule knows cost the node its own budget; rubbish is refused.
func TestRawAlloc(t *testing.T) {
	b := newTestBus(t, func(c *Config) { c.Limits.SegmentsPerNode = 8 })
	r := b.onlineRaw("raw")
	ask := func(id uint32, m *bhomev1.Alloc) {
		m.Id = id
		r.frame(0, &bhomev1.Head{Type: uint32(bhomev1.MsgType_MSG_TYPE_ALLOC), MsgId: fmt.Sprint("alloc:", id)}, m)
	}
	refused := func(id uint32) (e *bhomev1.ErrorMsg) {
		t.Helper()
		var m bhomev1.CommonReply
		r.reply(0, fmt.Sprint("alloc:", id), bhomev1.MsgType_MSG_TYPE_COMMON_REPLY, &m)
		return m.GetErrmsg()
	}
	for i, m := range []*bhomev1.Alloc{{Class: 256}, {Class: 1 << 20}, {Socket: 4}, {Log2: 9}, {Log2: math.MaxUint32}, {Access: string(bytes.Repeat([]byte("a"), maxGroupName+1))}} {
		ask(uint32(i), m)
		if e := refused(uint32(i)); e.GetCode() != bhomev1.ErrorCode_ERROR_CODE_INVALID_INPUT {
			t.Errorf("%v: %v", m, e)
		}
	}
	for i := range 40 { // each group wants a segment, which this node doesn't make
		ask(uint32(100+i), &bhomev1.Alloc{Class: 34, Access: fmt.Sprint("group", i)})
	}
	for words, reasons := 0, 0; words < 40-6 || reasons < 40-6; { // segment 0 and the first data segment are there
		w, frame := r.next(0)
		if frame == nil {
			words++
			if m, err := wire.DecodeAllocReply(w); err != nil || m.Place != 0 {
				t.Fatalf("%+v, %v", m, err)
			}
			continue
		}
		reasons++
		_, body, err := decodeFrame(frame)
		var m bhomev1.CommonReply
		if err != nil || proto.Unmarshal(body, &m) != nil || m.GetErrmsg().GetLimit() != "segments_per_node" {
			t.Fatalf("%v, %v", &m, err)
		}
	}
	r.alive()
	r.send(bhomev1.MsgType_MSG_TYPE_BYE, nil)
	eventually(t, func() string {
		if n := b.counter("segment_bytes"); n != 0 {
			return fmt.Sprintf("%d bytes are still charged", n)
		}
		return ""
	})
}
