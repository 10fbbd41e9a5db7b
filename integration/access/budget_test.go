package access

import (
	"fmt"
	"strings"
	"testing"
)

// overLimit is a command that a limit refuses: the process hears which, whose and how much, and the log says who it was.
func (b *bus) overLimit(a *agent, logged string, limit string, words ...string) {
	b.t.Helper()
	if got := a.ask(words...); !strings.HasPrefix(got, "error: ") || !strings.Contains(got, fmt.Sprintf("limit %q of ", limit)) || !strings.Contains(got, "in use") {
		b.t.Fatalf("%s: %q: %q, want a refusal by the limit %q", a.name, words, got, limit)
	}
	eventually(b.t, func() string {
		for line := range strings.Lines(b.logged()) {
			if strings.Contains(line, "[WARN]") && strings.Contains(line, logged) && strings.Contains(line, "limit="+limit+" ") &&
				strings.Contains(line, fmt.Sprintf("pid=%d uid=%d ", a.cmd.Process.Pid, a.cmd.SysProcAttr.Credential.Uid)) {
				return ""
			}
		}
		return fmt.Sprintf("nothing in the log of the limit %q and process %d (uid %d)", limit, a.cmd.Process.Pid, a.cmd.SysProcAttr.Credential.Uid)
	})
}

// What one user's processes take is counted together, by what the kernel says of them, and is nothing to another user's.
func TestBudgetsOfUsers(t *testing.T) {
	b := newBus(t, `
socket_mode = "0666"
[limits]
bus = "16MiB"
uid = "3.5MiB"
node = "3MiB"
max_message = "2MiB"
sessions_per_uid = 2
names_per_uid = 2
topics_per_uid = 2
subscriptions_per_uid = 2
routes_per_uid = 2
`)
	const refused = "refused by a limit"
	a, second, third := b.agent("alice", alice), b.agent("second", alice), b.agent("third", alice)
	a.must("ok", "attach", "alice")
	second.must("ok", "attach", "second")
	b.overLimit(third, "a process is refused: ", "sessions_per_uid", "attach", "third")
	s := b.agent("bob", bob)
	s.must("ok", "attach", "bob")

	a.must("ok", "publish", "one")
	second.must("ok", "publish", "two")
	b.overLimit(a, refused+": name=alice ", "topics_per_uid", "publish", "three")
	b.overLimit(second, refused+": name=second ", "topics_per_uid", "publish", "three")
	s.must("ok", "publish", "three")

	a.must("ok", "subscribe", "x")
	a.must("ok", "subscribe", "y")
	b.overLimit(second, refused+": name=second ", "subscriptions_per_uid", "subscribe", "z")
	s.must("ok", "subscribe", "one")
	s.must("ok", "subscribe", "two")

	// Of routes for messages each of them has two now. Those for requests are counted apart.
	e := b.agent("eve", eve)
	e.must("ok", "attach", "eve")
	b.overLimit(e, refused+": name=eve ", "routes_per_uid", "subscribe", "one")
	e.must("ok", "serve", "sum", newMark())
	s.must("answered 100", "request", "sum", inline, newMark())
	m := b.agent("mallory", mallory)
	m.must("ok", "attach", "mallory")
	b.overLimit(m, refused+": name=mallory ", "routes_per_uid", "request", "sum", inline, newMark())

	// Memory: of a node, of a user, of nobody else's.
	a.must("ok", "loan", "one", "1000000", newMark())
	b.overLimit(a, refused+": name=alice ", "node", "loan", "one", "1500000", newMark())
	b.overLimit(second, refused+": name=second ", "uid", "loan", "two", "1500000", newMark())
	s.must("ok", "loan", "three", "1500000", newMark())
	a.must("ok", "send", "one", inline, newMark())
	s.must("one/100", "receive", "one", "1")
}
