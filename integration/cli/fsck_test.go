package cli

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

type fsckDoc struct {
	Faults []struct {
		Kind  string `json:"kind"`
		Where string `json:"where"`
		What  string `json:"what"`
		Do    string `json:"do"`
	} `json:"faults"`
	Looks   int               `json:"looks"`
	Checked map[string]uint64 `json:"checked"`
}

// fsck checks the bus, which must be clean.
func (b *bus) fsck(when string) fsckDoc {
	b.t.Helper()
	r := b.ctl("", "fsck", "--json")
	if r.code != 0 {
		b.t.Fatalf("%s: status %d\n%s\n%s", when, r.code, strings.ReplaceAll(r.stdout, "},{", "},\n{"), r.stderr)
	}
	doc := decode[fsckDoc](b.t, r.stdout)
	if doc.Faults == nil || len(doc.Faults) != 0 || doc.Looks < 1 {
		b.t.Fatalf("%s: %s", when, r.stdout)
	}
	return doc
}

// TestFsckOfACleanBus: what it looks at is there, and what it says can be read.
func TestFsckOfACleanBus(t *testing.T) {
	b, pub, sub := scene(t)
	doc := b.fsck("a bus at rest")
	for what, least := range map[string]uint64{"sessions": 3, "routes": 1, "blocks": 3, "held": 3, "descriptors": 10, "mappings": 5} {
		if doc.Checked[what] < least {
			t.Errorf("%d %s were looked at, there are %d at least", doc.Checked[what], what, least)
		}
	}
	if out := b.ok("", "fsck"); !strings.HasPrefix(out, "clean: checked ") || strings.Count(out, "\n") != 1 {
		t.Errorf("%s", out)
	}
	for _, p := range []*background{sub, pub} {
		_ = p.cmd.Process.Kill()
		_ = p.end(t)
	}
	b.fsck("after both have died")
}

// TestFsckUnderLoad: whatever goes on, nodes and bhomed killed included, is not mistaken for a fault.
func TestFsckUnderLoad(t *testing.T) {
	b := startBus(t)
	count := 0
	busy := func() *background {
		count++
		p := b.role("busy", fmt.Sprintf("busy%d", count), "load")
		p.out.until(t, "ready")
		return p
	}
	procs := []*background{busy(), busy(), busy()}
	b.fsck("under load")
	for round := range 4 {
		at := round % len(procs)
		_ = procs[at].cmd.Process.Kill()
		b.fsck("after a kill")
		_ = procs[at].end(t)
		procs[at] = busy()
		b.fsck("after another has come")
		if round != 1 {
			continue
		}
		if err := b.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		<-b.ended
		c := &bus{t: t, socket: b.socket}
		c.start([]string{"--socket", b.socket}, nil)
		c.log.until(t, "ready")
		b = c
		for range 3 {
			b.fsck("after bhomed was killed")
		}
	}
	for _, p := range procs {
		_ = p.cmd.Process.Kill()
		_ = p.end(t)
	}
	if doc := b.fsck("after all have died"); doc.Checked["routes"] != 0 || doc.Checked["sessions"] != 1 {
		t.Errorf("%v are left", doc.Checked)
	}
}

// TestFsckNamesWhoLies: what a process spoils in its own memory is found and told, with its name and what to do.
func TestFsckNamesWhoLies(t *testing.T) {
	b, pub, _ := scene(t)
	pub.tell(t, "spoil")
	r := b.ctl("", "fsck", "--json")
	doc := decode[fsckDoc](t, r.stdout)
	if r.code != 5 || len(doc.Faults) != 1 || doc.Looks < 2 || !strings.Contains(r.stderr, "the bus has 1 fault") {
		t.Fatalf("status %d, %s%s; want status 5 and 1 fault", r.code, r.stdout, r.stderr)
	}
	f := doc.Faults[0]
	if f.Kind != "word" || f.Where != "the routes from pub" || !strings.Contains(f.What, "dropTo") || !strings.Contains(f.What, "to sub") || !strings.Contains(f.Do, "restart that process") {
		t.Errorf("%+v", f)
	}
	r = b.ctl("", "fsck")
	if r.code != 5 || !strings.HasPrefix(r.stdout, "FAULT word: route 0x") || !strings.Contains(r.stdout, "\n  where: the routes from pub\n  do:    ") || !strings.Contains(r.stdout, "\n1 fault; checked ") {
		t.Errorf("status %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	_ = pub.cmd.Process.Kill()
	_ = pub.end(t)
	b.fsck("after the liar has died")
}

func TestFsckWithoutDaemon(t *testing.T) {
	r := finish(t, exec.Command(filepath.Join(binDir(), "bhctl"), "--socket", filepath.Join(t.TempDir(), "none"), "fsck", "--json"))
	if r.code != 3 || r.stdout != "" {
		t.Errorf("status %d, %s", r.code, r.stdout)
	}
}
