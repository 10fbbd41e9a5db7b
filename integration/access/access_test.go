package access

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
)

// config is the rules of these tests; who stands for who may subscribe to the plant's topics.
func config(who string) string {
	return fmt.Sprintf(`
[access]
attach = ["root", "%d", "%d", "@%d"]
inspect = ["%d"]

[[access.rule]]
name = "plant"
topics = ["plant.>"]
publish = ["%d"]
subscribe = [%s]

[[access.rule]]
name = "secrets"
topics = ["secret", "secrets.*"]
serve = ["%d"]
request = ["@%d"]
inspect = []
`, alice, eve, staff, alice, alice, who, alice, staff)
}

var staffOnly = fmt.Sprintf(`"@%d"`, staff)

// newMark is bytes that are nowhere else, as agents are told them.
func newMark() string {
	b := make([]byte, 16)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

const (
	inline = "100"   // bytes of a message that goes in the ring
	block  = "20000" // of one that takes a block
)

// three are alice, who publishes and serves, bob, who is in the staff's group, and eve, whom rules keep out.
func three(b *bus) (a, s, e *agent) {
	a, s, e = b.agent("alice", alice), b.agent("bob", bob, 12, staff, 13), b.agent("eve", eve)
	for _, x := range []*agent{a, s, e} {
		x.must("ok", "attach", x.name)
	}
	return a, s, e
}

// Each thing that a rule forbids is refused with its name, and in the log; what it allows works.
func TestWhoMayDoWhat(t *testing.T) {
	b := newBus(t, config(staffOnly))
	b.agent("mallory", mallory).refused("access.attach", "attach", "mallory")
	a, s, e := three(b)
	check := func() {
		t.Helper()
		e.refused("plant", "publish", "plant.a")
		s.refused("plant", "publish", "plant.b.c")
		for _, pattern := range []string{"plant.a", "plant.>", "plant.*", "plant.a."} {
			e.refused("plant", "subscribe", pattern)
			a.refused("plant", "subscribe", pattern)
		}
		e.refused("secrets", "serve", "secret")
		e.refused("secrets", "request", "secrets.b", inline, newMark())
		a.refused("secrets", "request", "secret", inline, newMark())
		s.refused("access.inspect", "list")
		e.refused("access.inspect", "list")
	}
	check()
	a.must("ok", "publish", "plant.a")
	a.must("ok", "serve", "secret", newMark())
	a.must("ok", "publish", "open")
	s.must("ok", "subscribe", "plant.>")
	a.must("ok", "send", "plant.a", inline, newMark())
	s.must("plant.a/100", "receive", "plant.>", "1")
	s.must("answered 100", "request", "secret", inline, newMark())
	a.must("open plant.a", "list") // the service is hidden
	for _, want := range []string{"rule=plant", "rule=secrets", "rule=access.inspect", "rule=access.attach"} {
		if !strings.Contains(b.logged(), want) {
			t.Errorf("nothing in the log of %s", want)
		}
	}
	b.restart(config(staffOnly))
	for _, x := range []*agent{a, s, e} {
		x.must("ok", "online")
	}
	check()
	b.agent("mallory", mallory).refused("access.attach", "attach", "mallory")
	a.must("ok", "send", "plant.a", inline, newMark())
	s.must("plant.a/100", "receive", "plant.>", "1")
	s.must("answered 20000", "request", "secret", block, newMark())
}

// A process gets nothing of what a rule keeps from it: no message through a wildcard, kept ones neither, and no descriptor
// or mapping of the memory where messages, requests or replies lie, before and after a restart of the daemon. It has open
// routes with the same processes.
func TestWhatIsNowhereToBeFound(t *testing.T) {
	b := newBus(t, config(staffOnly))
	a, s, e := three(b)
	for _, topic := range []string{"plant.a", "plant.b", "open"} {
		a.must("ok", "publish", topic)
	}
	a.must("ok", "publish", "plant.kept", "4")
	replies := newMark()
	a.must("ok", "serve", "secret", replies)
	a.must("ok", "serve", "open", newMark())
	e.must("ok", "serve", "eves", newMark())
	check := func() {
		t.Helper()
		e.must("answered 20000", "request", "open", block, newMark())
		a.must("answered 20000", "request", "eves", block, newMark())
		s.must("answered 20000", "request", "eves", block, newMark())
		all := []string{}
		for _, size := range []string{inline, block} {
			kept, first, second, asked, open := newMark(), newMark(), newMark(), newMark(), newMark()
			all = append(all, kept, first, second, asked)
			a.must("ok", "send", "plant.kept", size, kept)
			a.must("ok", "send", "plant.a", size, first)
			a.must("ok", "send", "plant.b", size, second)
			a.must("ok", "send", "open", size, open)
			s.must("answered "+size, "request", "secret", size, asked)
			e.must("open/"+size, "receive", ">", "1")
			s.must(fmt.Sprintf("open/%s plant.a/%s plant.b/%s plant.kept/%s", size, size, size, size), "receive", ">", "4")
			for _, m := range []string{kept, first, second} {
				if got := s.ask("find", m); !strings.HasPrefix(got, "in ") {
					t.Fatalf("bob doesn't find what he has received: %s", got)
				}
			}
			if got := e.ask("find", open); !strings.HasPrefix(got, "in ") {
				t.Fatalf("eve doesn't find what she has received: %s", got)
			}
			if got := a.ask("find", asked); !strings.HasPrefix(got, "in ") && size == block {
				t.Fatalf("alice doesn't find what she was asked: %s", got)
			}
		}
		if got := s.ask("find", replies); !strings.HasPrefix(got, "in ") {
			t.Fatalf("bob doesn't find what he was answered: %s", got)
		}
		for _, m := range append(all, replies) {
			e.must("nowhere", "find", m)
		}
		e.must("ok", "nothing", ">")
		e.must("denied", "peek", fmt.Sprint(b.cmd.Process.Pid))
		e.must("denied", "peek", fmt.Sprint(a.cmd.Process.Pid))
	}
	s.must("ok", "subscribe", ">")
	e.must("ok", "subscribe", ">")
	check()
	b.restart(config(staffOnly))
	for _, x := range []*agent{a, s, e} {
		x.must("ok", "online")
	}
	check()

	// A subscriber that comes late gets of the kept messages what it may have.
	late, lateEve := b.agent("latebob", bob, staff), b.agent("lateeve", eve)
	late.must("ok", "attach", "latebob")
	lateEve.must("ok", "attach", "lateeve")
	late.must("ok", "subscribe", "*.kept")
	lateEve.must("ok", "subscribe", "*.kept")
	late.must("plant.kept/100 plant.kept/100 plant.kept/20000 plant.kept/20000", "receive", "*.kept", "4")
	lateEve.must("ok", "nothing", "*.kept")
	lateEve.must("nowhere", "find", replies)

	// A loan of an open topic's memory that is sent on another doesn't take the message there.
	m := newMark()
	a.must("ok", "loan", "open", block, m)
	if got := a.ask("find", m); !strings.HasPrefix(got, "in ") {
		t.Fatalf("alice doesn't find her own: %s", got)
	}
	a.must("ok", "sendloan", "open", "plant.kept")
	s.must("plant.kept/20000", "receive", ">", "1")
	latest := b.agent("latestbob", bob, staff)
	latest.must("ok", "attach", "latestbob")
	latest.must("ok", "subscribe", "*.kept")
	latest.must("plant.kept/100 plant.kept/20000 plant.kept/20000 plant.kept/20000", "receive", "*.kept", "4")
	if got := s.ask("find", m); !strings.HasPrefix(got, "in ") {
		t.Fatalf("bob doesn't find what he has received: %s", got)
	}
	secret := newMark()
	a.must("ok", "loan", "plant.a", block, secret)
	e.must("nowhere", "find", secret)
	a.must("ok", "sendloan", "plant.a", "open")
	e.must("open/20000", "receive", ">", "1")
	s.must("open/20000", "receive", ">", "1")
}

// A daemon that comes with other rules ends what they forbid, and opens what they allow; who may no more finds nothing of
// what is published from then on, though what it had mapped it keeps.
func TestOtherRules(t *testing.T) {
	b := newBus(t, config(staffOnly))
	a, s, e := three(b)
	a.must("ok", "publish", "plant.a")
	a.must("ok", "publish", "plant.kept", "4")
	s.must("ok", "subscribe", "plant.>")
	s.must("ok", "subscribe", "*.a")
	e.must("ok", "subscribe", "*.a")
	before := newMark()
	a.must("ok", "send", "plant.kept", block, before)
	a.must("ok", "send", "plant.a", block, before)
	s.must("plant.a/20000 plant.kept/20000", "receive", "plant.>", "2")
	s.must("plant.a/20000", "receive", "*.a", "1")

	b.restart(config(fmt.Sprintf(`"%d"`, eve)))
	for _, x := range []*agent{a, s, e} {
		x.must("ok", "online")
	}
	a.must("ok", "subscribers", "plant.a", "1")
	s.refused("plant", "receive", "plant.>", "1") // the subscription is over
	after := newMark()
	for _, size := range []string{inline, block} {
		a.must("ok", "send", "plant.a", size, after)
		e.must("plant.a/"+size, "receive", "*.a", "1")
	}
	if got := e.ask("find", after); !strings.HasPrefix(got, "in ") {
		t.Fatalf("eve doesn't find what she has received: %s", got)
	}
	s.must("nowhere", "find", after)
	e.must("nowhere", "find", before)
	s.must("ok", "nothing", "*.a")
	s.must("ok", "release")

	// Nobody may publish: alice is told at her next message, and goes on with all else.
	b.restart(strings.Replace(config(staffOnly), fmt.Sprintf("publish = [\"%d\"]", alice), "publish = []", 1))
	for _, x := range []*agent{a, s, e} {
		x.must("ok", "online")
	}
	a.refused("plant", "send", "plant.a", inline, after)
	a.must("ok", "publish", "open")
	s.must("ok", "subscribe", "open")
	a.must("ok", "send", "open", inline, newMark())
	s.must("open/100", "receive", "open", "1")
}
