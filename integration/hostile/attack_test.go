package hostile

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// What bhomed may take while it is attacked by all at once. It has a thousand connections then, each of up to eight descriptors, and each
// attacker as many lost links as a process may have: 4,400 to 8,013 descriptors were seen, by how long it took.
const (
	mostThreads = 64
	mostFDs     = 10_000
	mostMemory  = 256 << 20 // private
	ownSegments = 4         // descriptors that the honest pair's own memory may come to need meanwhile
)

// use is what a process takes.
type use struct {
	threads, fds int
	private      int64
}

func useOf(t *testing.T, pid int) (u use) {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal("bhomed is gone: ", err)
	}
	for line := range strings.Lines(string(status)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		n, _ := strconv.ParseInt(f[1], 10, 64) // 0 for what isn't a number
		switch f[0] {
		case "Threads:":
			u.threads = int(n)
		case "RssAnon:":
			u.private = n << 10
		}
	}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal("bhomed is gone: ", err)
	}
	u.fds = len(fds)
	return u
}

// arena is a bus with an honest publisher, which never stops, and an honest subscriber, which checks each message.
type arena struct {
	t        *testing.T
	d        *daemon
	pub, sub *child
	most     use
}

func newArena(t *testing.T) *arena {
	a := &arena{t: t, d: startDaemon(t)}
	honest := map[string]any{"Socket": a.d.socket, "Size": 1024}
	a.sub = start(t, "hostile-sub", honest)
	a.sub.await("ready", nil)
	a.pub = start(t, "hostile-pub", honest)
	a.pub.await("ready", nil)
	a.pub.send("go", nil)
	return a
}

// good is how many honest messages have come, all of them right.
func (a *arena) good() uint64 {
	a.t.Helper()
	a.sub.send("count", nil)
	var c struct {
		Good uint64 `json:"good"`
	}
	a.sub.await("count", &c)
	return c.Good
}

// goesOn waits until so many honest messages more have come, and looks at what bhomed takes meanwhile.
func (a *arena) goesOn(more uint64) {
	a.t.Helper()
	from := a.good()
	eventually(a.t, func() string {
		u := useOf(a.t, a.d.cmd.Process.Pid)
		a.most = use{max(a.most.threads, u.threads), max(a.most.fds, u.fds), max(a.most.private, u.private)}
		if n := a.good() - from; n < more {
			return fmt.Sprintf("only %d honest messages have come", n)
		}
		return ""
	})
}

func (a *arena) attack(name string) *child {
	a.t.Helper()
	c := start(a.t, "hostile-attack", map[string]any{"Socket": a.d.socket, "Attack": name, "Seed": 1})
	c.name = name
	return c
}

// over ends the honest pair: all that was sent has come, once, in order and unchanged.
func (a *arena) over() {
	a.t.Helper()
	var sent uint64
	a.pub.send("stop", nil)
	a.pub.await("sent", &sent)
	eventually(a.t, func() string {
		if n := a.good(); n != sent {
			return fmt.Sprintf("%d of %d honest messages have come", n, sent)
		}
		return ""
	})
	a.pub.end()
	a.sub.end()
	a.t.Logf("%d honest messages; bhomed took at most %d threads, %d descriptors, %d MiB", sent, a.most.threads, a.most.fds, a.most.private>>20)
	if a.most.threads > mostThreads || a.most.fds > mostFDs || a.most.private > mostMemory {
		a.t.Errorf("bhomed took %+v", a.most)
	}
	a.d.stop(a.t)
}

// attacks is what bhctl can do.
func attacks(t *testing.T) (list []struct {
	Name string `json:"name"`
	Cut  bool   `json:"cut"`
}) {
	t.Helper()
	out, err := exec.Command(filepath.Join(programs, "bhctl"), "bench", "hostile", "--list").Output()
	if err == nil {
		err = json.Unmarshal(out, &list)
	}
	if err != nil || len(list) < 15 {
		t.Fatal(err, string(out))
	}
	return list
}

// Each attack by itself: honest messages keep coming, whoever has to be is cut off and named with its pid, and nothing of it
// stays when it ends.
func TestAttacks(t *testing.T) {
	a := newArena(t)
	a.goesOn(20_000)
	before := useOf(t, a.d.cmd.Process.Pid)
	for _, at := range attacks(t) {
		c := a.attack(at.Name)
		c.await("ready", nil)
		a.goesOn(25_000)
		if at.Cut {
			a.d.log.wait(t, fmt.Sprintf("pid=%d ", c.pid()), "[WARN]")
		}
		a.goesOn(25_000)
		did := 0
		c.send("close", nil)
		c.await("done", &did)
		if did == 0 {
			t.Errorf("%s did nothing", at.Name)
		}
		c.kill()
		eventually(t, func() string {
			if u := useOf(t, a.d.cmd.Process.Pid); u.fds > before.fds+ownSegments {
				return fmt.Sprintf("after %s bhomed has %d descriptors, before %d", at.Name, u.fds, before.fds)
			}
			return ""
		})
	}
	a.over()
}

// All attacks at once, all killed at once.
func TestAllAttacksTogether(t *testing.T) {
	a := newArena(t)
	a.goesOn(20_000)
	before := useOf(t, a.d.cmd.Process.Pid)
	var all []*child
	for _, at := range attacks(t) {
		all = append(all, a.attack(at.Name))
	}
	for _, c := range all {
		c.await("ready", nil)
	}
	a.goesOn(20_000)
	for _, c := range all {
		if err := c.cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
	}
	for _, c := range all {
		c.kill()
	}
	a.goesOn(1000)
	eventually(t, func() string {
		if u := useOf(t, a.d.cmd.Process.Pid); u.fds > before.fds+ownSegments {
			return fmt.Sprintf("bhomed has %d descriptors, before %d", u.fds, before.fds)
		}
		return ""
	})
	a.over()
}
