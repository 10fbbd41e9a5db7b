package actors

import (
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/wire"
)

// A loan that a budget refuses is in the log with the limit and who asked, and a program that goes on asking doesn't fill
// it.
func TestRefusedLoansAreLogged(t *testing.T) {
	b := newTestBus(t, func(c *Config) { c.Limits.NodeBytes = 2 << 20; c.Limits.MaxMessage = 8 << 20 })
	r := b.onlineRaw("greedy")
	const times = 200
	for i := range times {
		req := wire.AllocRequest{ID: uint32(100 + i), Proc: r.index, Class: uint8(wire.CalcAllocIndex(4 << 20))}
		r.push(0, must(req.Encode()))
		if reply := must(wire.DecodeAllocReply(r.word(0))); reply.Place != 0 {
			t.Fatal("a loan beyond the limit is granted")
		}
		var why bhomev1.CommonReply
		r.reply(0, fmt.Sprintf("alloc:%d", req.ID), bhomev1.MsgType_MSG_TYPE_COMMON_REPLY, &why)
		if why.GetErrmsg().GetLimit() != "node" {
			t.Fatalf("refused with %v, want the limit's name", why.GetErrmsg())
		}
	}
	who := []string{"refused by a limit", "name=greedy", fmt.Sprintf("pid=%d ", os.Getpid()), fmt.Sprintf("uid=%d ", os.Getuid()), "limit=node", "max=2097152"}
	b.log.wait(t, who...)
	if n := b.log.count(who...); n > 20 {
		t.Errorf("%d refusals make %d lines", times, n)
	}
	if n := b.log.count("refused by a limit", "name=", "pid=0 "); n != 0 {
		t.Errorf("%d lines without the process", n)
	}
}

// Whatever a limit refuses to a caller is in the log with its name.
func TestEachRefusalByALimitIsLogged(t *testing.T) {
	b := newTestBus(t, func(c *Config) {
		c.Limits.SubscriptionsPerNode, c.Limits.TopicsPerNode = 1, 1
		c.Limits.RoutesPerUID = 1 // a request takes two
		c.Limits.RouteBytes = 1 << 20
	})
	r, server := b.onlineRaw("raw"), b.onlineRaw("server")
	sub := &bhomev1.Subscribe{Subscription: 1, Pattern: "a", Depth: 1, Hold: 1}
	refused := func(limit string, err *bhomev1.ErrorMsg) {
		t.Helper()
		if err.GetLimit() != limit {
			t.Fatalf("%v, want the limit %q", err, limit)
		}
		b.log.wait(t, "refused by a limit", "limit="+limit, "name=raw", fmt.Sprintf("pid=%d ", os.Getpid()), "uid=")
	}
	big := &bhomev1.Subscribe{Subscription: 1, Pattern: "a", Depth: 1, Hold: 1, Quota: 2 << 20}
	refused("route", r.common(1, bhomev1.MsgType_MSG_TYPE_SUBSCRIBE, big))
	if err := r.common(1, bhomev1.MsgType_MSG_TYPE_SUBSCRIBE, sub); err != nil {
		t.Fatal(err)
	}
	sub.Subscription = 2
	refused("subscriptions_per_node", r.common(1, bhomev1.MsgType_MSG_TYPE_SUBSCRIBE, sub))
	if m := r.advertise("x"); m.GetErrmsg() != nil {
		t.Fatal(m)
	}
	refused("topics_per_node", r.advertise("y").GetErrmsg())
	if err := server.common(1, bhomev1.MsgType_MSG_TYPE_REGISTER_RPC, &bhomev1.RegisterRPC{Service: 100, Topic: "s", Depth: 1, Hold: 1}); err != nil {
		t.Fatal(err)
	}
	// Of a service whose only provider can't be reached the client hears why, each time.
	for i := range 2 {
		id := fmt.Sprint("cs", i)
		r.frame(1, &bhomev1.Head{Type: uint32(bhomev1.MsgType_MSG_TYPE_CONNECT_SERVICE), MsgId: id}, &bhomev1.ConnectService{Topic: "s"})
		var cs bhomev1.ConnectServiceReply
		r.reply(0, id, bhomev1.MsgType_MSG_TYPE_CONNECT_SERVICE_REPLY, &cs)
		refused("routes_per_uid", cs.GetErrmsg())
	}
	b.clean()
}

// Who calls itself by another's name in its Hello is logged and listed under the name that it registers, and until then as
// one who claims a name.
func TestAClaimedNameIsNotTaken(t *testing.T) {
	b := newTestBus(t, func(c *Config) { c.Limits.SessionsPerUID = 3 })
	b.onlineRaw("victim").alive()
	liar := b.onlineRaw("liar", func(h *bhomev1.Hello) { h.Name = "victim" })
	liar.alloc(1, 100)
	for _, row := range askCenter[*MsgsReply](b, &QueryMsgs{}).Msgs {
		if row.GetOwner() != "victim" && row.GetOwner() != "liar" || row.GetOwner() == "victim" && row.GetOwnerSession() == liar.session {
			t.Errorf("a block of session %d is shown as %s's", row.GetOwnerSession(), row.GetOwner())
		}
	}
	early := b.attachRaw("victim")
	early.push(0, wire.Word(0xf)) // a command that there isn't
	b.log.wait(t, "a node's fault", "claims=victim", fmt.Sprintf("pid=%d ", os.Getpid()))
	if n := b.log.count("a node's fault", " name=victim"); n != 0 {
		t.Error("the log calls it by the name that it claims")
	}
	over, h := rawHello(t, strings.Repeat("long", 1000))
	over.dial(b.socket)
	over.send(bhomev1.MsgType_MSG_TYPE_HELLO, h, over.seg0.FD(), over.data.FD(), over.bell())
	if e := over.refusal(); e.GetLimit() != "sessions_per_uid" {
		t.Fatal(e)
	}
	over.close()
	line := b.log.wait(t, "a process is refused", "claims=long", "limit=sessions_per_uid", "in_use=3", "max=3", fmt.Sprintf("pid=%d ", os.Getpid()), "uid=")
	if len(line) > 1000 {
		t.Errorf("a line of %d bytes", len(line))
	}
}

// A node's own text that the center keeps, logs or sends on is short and valid.
func TestToldIsBounded(t *testing.T) {
	long := strings.Repeat("ü", 5000) + "\xff"
	e := toldError(&bhomev1.ErrorMsg{Code: bhomev1.ErrorCode_ERROR_CODE_NO_MEMORY, Message: long, Limit: long, Whose: long, Rule: long})
	for _, s := range []string{told(long), e.GetMessage(), e.GetLimit(), e.GetWhose(), e.GetRule()} {
		if len(s) > maxTold+3 || !utf8.ValidString(s) {
			t.Errorf("%d bytes are told", len(s))
		}
	}
	if e.GetCode() != bhomev1.ErrorCode_ERROR_CODE_NO_MEMORY || toldError(nil) != nil {
		t.Error("an error is told as another")
	}
}

// A flood of one uid hides nothing of another's, and how much isn't logged is told.
func TestRefusalsOfAUID(t *testing.T) {
	book := newLogBook()
	r := newRefusals(slog.New(book))
	loud, quiet := &Identity{Session: 10, PID: 1, UID: 1}, &Identity{Session: 20, PID: 2, UID: 2, Name: "quiet"}
	for i := range 1000 {
		r.warn("something", &Identity{Session: uint64(i), PID: 1, UID: 1}, 1)
	}
	for range 5 {
		r.note(quiet, tooMany("topics", "bus", 1, 1), 2)
		r.note(quiet, errorMsg(bhomev1.ErrorCode_ERROR_CODE_INVALID_INPUT, "nonsense"), 2)
	}
	if n := book.count("something", "pid=1 uid=1"); n != refusalsPerUID {
		t.Errorf("%d lines of a flood, want %d", n, refusalsPerUID)
	}
	if n := book.count("refused by a limit", "name=quiet session=20 pid=2 uid=2 limit=topics"); n != 1 {
		t.Errorf("%d lines of the other, want one", n)
	}
	r.expire(1 + refusalsWhile)
	if book.count("more was refused than is logged", fmt.Sprintf("count=%d", 1000-refusalsPerUID+4)) != 1 {
		t.Errorf("what isn't logged isn't told:\n%s", book)
	}
	r.note(loud, tooMany("topics", "bus", 1, 1), 1+refusalsWhile)
	if book.count("refused by a limit", "pid=1") != 1 {
		t.Error("the next while logs nothing")
	}
}
