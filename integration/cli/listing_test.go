package cli

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

type procRow struct {
	Name          string    `json:"name"`
	PID           int       `json:"pid"`
	UID           int       `json:"uid"`
	State         string    `json:"state"`
	Since         time.Time `json:"since"`
	Session       uint64    `json:"session"`
	ProcIndex     int       `json:"proc_index"`
	SegmentBytes  uint64    `json:"segment_bytes"`
	GrantedBlocks uint64    `json:"granted_blocks"`
	GrantedBytes  uint64    `json:"granted_bytes"`
	Routes        int       `json:"routes"`
	Faults        uint64    `json:"faults"`
	Sent          uint64    `json:"sent"`
	Received      uint64    `json:"received"`
	Dropped       uint64    `json:"dropped"`
}

type procsDoc struct {
	Procs []procRow `json:"procs"`
}

type msgRow struct {
	ID           uint64   `json:"id"`
	Class        int      `json:"class"`
	ClassBytes   uint64   `json:"class_bytes"`
	Size         uint64   `json:"size"`
	Owner        string   `json:"owner"`
	OwnerSession uint64   `json:"owner_session"`
	Holders      []string `json:"holders"`
	AgeNs        int64    `json:"age_ns"`
	Topic        string   `json:"topic"`
	SentAgeNs    int64    `json:"sent_age_ns"`
}

type msgsDoc struct {
	Msgs          []msgRow `json:"msgs"`
	GrantedBlocks uint64   `json:"granted_blocks"`
	GrantedBytes  uint64   `json:"granted_bytes"`
	LateFrees     uint64   `json:"late_frees"`
}

type topicRow struct {
	Topic       string   `json:"topic"`
	Kind        string   `json:"kind"`
	TopicID     uint32   `json:"topic_id"`
	Publishers  []string `json:"publishers"`
	Subscribers []string `json:"subscribers"`
	Providers   []string `json:"providers"`
	Rate        float64  `json:"rate"`
	Depth       uint64   `json:"depth"`
	Drops       uint64   `json:"drops"`
	Sent        uint64   `json:"sent"`
}

type topicsDoc struct {
	Topics []topicRow `json:"topics"`
}

// tell has a role do something and waits until it has.
func (p *background) tell(t *testing.T, command string) {
	t.Helper()
	if _, err := fmt.Fprintln(p.stdin, command); err != nil {
		t.Fatal(err)
	}
	p.out.until(t, "done")
}

// scene is a bus with a publisher "pub" on t.x that has sent three messages of 3,000 bytes to the subscriber "sub" (depth
// 32), which has taken two and holds them.
func scene(t *testing.T) (b *bus, pub, sub *background) {
	b = startBus(t)
	sub = b.role("holder", "sub", "t.x")
	sub.out.until(t, "ready")
	pub = b.role("publisher", "pub", "t.x")
	pub.out.until(t, "ready")
	pub.tell(t, "send 3 3000")
	sub.tell(t, "take 2")
	return b, pub, sub
}

func TestProcsColumns(t *testing.T) {
	before := time.Now()
	b, pub, sub := scene(t)
	var doc procsDoc
	eventually(t, func() string {
		doc = decode[procsDoc](t, b.ok("", "procs", "--json"))
		for _, p := range doc.Procs {
			if p.Name == "sub" && p.Received != 2 || p.Name == "pub" && p.Sent != 3 {
				return fmt.Sprintf("%s has sent %d and received %d; pub has sent 3, sub has received 2", p.Name, p.Sent, p.Received)
			}
		}
		return ""
	})
	sessions := map[uint64]bool{}
	for _, want := range []struct {
		name                    string
		pid                     int
		blocks                  bool
		sent, received, dropped uint64
	}{{"pub", pub.cmd.Process.Pid, true, 3, 0, 0}, {"sub", sub.cmd.Process.Pid, false, 0, 2, 0}} {
		i := slices.IndexFunc(doc.Procs, func(p procRow) bool { return p.Name == want.name })
		if i < 0 {
			t.Errorf("%s isn't listed", want.name)
			continue
		}
		p := doc.Procs[i]
		if p.PID != want.pid || p.UID != os.Getuid() || p.State != "online" {
			t.Errorf("%s: pid %d uid %d %s; want pid %d uid %d online", p.Name, p.PID, p.UID, p.State, want.pid, os.Getuid())
		}
		if p.Since.Before(before.Add(-time.Second)) || p.Since.After(time.Now()) {
			t.Errorf("%s: since %v, it began after %v", p.Name, p.Since, before)
		}
		if p.Session == 0 || sessions[p.Session] || p.ProcIndex < 0 {
			t.Errorf("%s: session %x, index %d", p.Name, p.Session, p.ProcIndex)
		}
		sessions[p.Session] = true
		if p.SegmentBytes == 0 || p.SegmentBytes%4096 != 0 {
			t.Errorf("%s: %d bytes of segments", p.Name, p.SegmentBytes)
		}
		if (p.GrantedBlocks >= 3 && p.GrantedBytes >= 9000) != want.blocks {
			t.Errorf("%s: %d blocks, %d bytes granted", p.Name, p.GrantedBlocks, p.GrantedBytes)
		}
		if p.Routes != 1 || p.Faults != 0 {
			t.Errorf("%s: %d routes, %d faults; want 1 and 0", p.Name, p.Routes, p.Faults)
		}
		if p.Sent != want.sent || p.Received != want.received || p.Dropped != want.dropped {
			t.Errorf("%s: sent %d received %d dropped %d; want %d %d %d", p.Name, p.Sent, p.Received, p.Dropped, want.sent, want.received, want.dropped)
		}
	}
	table := b.ok("", "procs", "--sort", "-pid")
	for _, want := range []string{"NAME", "PID", "UID", "STATE", "SINCE", "SENT*", "pub", fmt.Sprint(pub.cmd.Process.Pid), "online"} {
		if !strings.Contains(table, want) {
			t.Errorf("the table lacks %q:\n%s", want, table)
		}
	}
	if strings.Contains(table, "\x1b") {
		t.Error("colours without a terminal")
	}
	names := strings.Fields(b.ok("", "procs", "-q"))
	if !slices.Contains(names, "pub") || !slices.Contains(names, "sub") || !slices.IsSorted(names) {
		t.Errorf("-q: %v", names)
	}
}

func TestProcsShowsDeathAtOnce(t *testing.T) {
	b, pub, _ := scene(t)
	_ = pub.cmd.Process.Signal(syscall.SIGKILL)
	_ = pub.end(t)
	dead := time.Now()
	eventually(t, func() string {
		if names := strings.Fields(b.ok("", "procs", "-q")); slices.Contains(names, "pub") {
			return "pub is still listed"
		}
		return ""
	})
	if took := time.Since(dead); took > 2*time.Second { // asking costs a process each time
		t.Errorf("listed for %v after its death", took)
	}
}

func TestMsgsColumns(t *testing.T) {
	b, _, sub := scene(t)
	procs := decode[procsDoc](t, b.ok("", "procs", "--json"))
	var session uint64
	for _, p := range procs.Procs {
		if p.Name == "pub" {
			session = p.Session
		}
	}
	doc := decode[msgsDoc](t, b.ok("", "msgs", "--json"))
	out := 0
	ids := map[uint64]bool{}
	var bytes uint64
	for _, m := range doc.Msgs {
		bytes += m.ClassBytes
		if m.Owner != "pub" {
			continue
		}
		if ids[m.ID] {
			t.Errorf("block %x is listed twice", m.ID)
		}
		ids[m.ID] = true
		if len(m.Holders) == 0 { // in the magazine
			continue
		}
		out++
		if m.Size != 3000 || m.ClassBytes < 3000 || m.OwnerSession != session || !slices.Equal(m.Holders, []string{"sub"}) || m.Topic != "t.x" {
			t.Errorf("got %+v; want 3000 bytes of pub (session %x) on t.x with sub", m, session)
		}
		if m.AgeNs <= 0 || m.AgeNs > int64(wait) || m.SentAgeNs < 0 || m.SentAgeNs > m.AgeNs+int64(20*time.Millisecond) {
			t.Errorf("granted %v ago, sent %v ago", time.Duration(m.AgeNs), time.Duration(m.SentAgeNs))
		}
	}
	if out != 3 {
		t.Errorf("%d blocks are out, really 3", out)
	}
	if doc.GrantedBlocks != uint64(len(doc.Msgs)) || doc.GrantedBytes < bytes {
		t.Errorf("%d blocks, %d bytes granted; listed are %d, %d", doc.GrantedBlocks, doc.GrantedBytes, len(doc.Msgs), bytes)
	}
	table := b.ok("", "msgs")
	for _, want := range []string{"HOLDERS*", "TOPIC*", "OWNER", "t.x", "3000", "granted"} {
		if !strings.Contains(table, want) {
			t.Errorf("the table lacks %q:\n%s", want, table)
		}
	}
	sub.tell(t, "take 1")
	sub.tell(t, "release")
	eventually(t, func() string {
		for _, m := range decode[msgsDoc](t, b.ok("", "msgs", "--json")).Msgs {
			if len(m.Holders) > 0 {
				return fmt.Sprintf("block %x is with %v although it was given back", m.ID, m.Holders)
			}
		}
		return ""
	})
}

func TestTopicsColumns(t *testing.T) {
	b, pub, _ := scene(t)
	serve := b.spawn("serve", "svc.wc", "--wordcount", "--name", "words")
	serve.err.until(t, "serves")
	if out := b.ok("", "request", "svc.wc", "a b c"); out != "3\n" {
		t.Errorf("%q", out)
	}
	find := func(topic string) (r topicRow) {
		for _, r := range decode[topicsDoc](t, b.ok("", "topics", "--json")).Topics {
			if r.Topic == topic {
				return r
			}
		}
		t.Fatalf("%s isn't listed", topic)
		return r
	}
	r := find("t.x")
	if r.Kind != "pubsub" || r.TopicID == 0 || !slices.Equal(r.Publishers, []string{"pub"}) || !slices.Equal(r.Subscribers, []string{"sub"}) || len(r.Providers) != 0 {
		t.Errorf("got %+v", r)
	}
	if r.Depth != 1 || r.Drops != 0 || r.Sent != 3 {
		t.Errorf("depth %d, drops %d, sent %d; want 1, 0, 3", r.Depth, r.Drops, r.Sent)
	}
	if s := find("svc.wc"); s.Kind != "service" || !slices.Equal(s.Providers, []string{"words"}) {
		t.Errorf("got %+v", s)
	}
	// Depth is 32 and one waits: of 41 more, 10 push out an older one.
	pub.tell(t, "send 41 100")
	eventually(t, func() string {
		if r := find("t.x"); r.Depth != 32 || r.Drops != 10 || r.Sent != 44 {
			return fmt.Sprintf("depth %d, drops %d, sent %d; want 32, 10, 44", r.Depth, r.Drops, r.Sent)
		}
		return ""
	})
	table := b.ok("", "topics")
	for _, want := range []string{"TOPIC", "PUBLISHERS", "RATE*", "DROPS", "svc.wc", "words"} {
		if !strings.Contains(table, want) {
			t.Errorf("the table lacks %q:\n%s", want, table)
		}
	}
	if got := strings.Fields(b.ok("", "topics", "-q")); !slices.Equal(got, []string{"svc.wc", "t.x"}) {
		t.Errorf("-q: %v", got)
	}
}

func TestWatch(t *testing.T) {
	b := startBus(t)
	w := b.spawn("procs", "--watch", "--interval", "20ms", "--json")
	w.out.until(t, `"procs"`)
	p := b.spawn("sub", "a", "--name", "newcomer")
	p.err.until(t, "subscribed")
	line := w.out.until(t, "newcomer")
	if doc := decode[procsDoc](t, line); len(doc.Procs) == 0 {
		t.Errorf("got %s", line)
	}
	if r := w.interrupt(t); r.code != 0 {
		t.Errorf("interrupted: status %d, %s", r.code, r.stderr)
	}
}

func TestHostileNamesStayHarmless(t *testing.T) {
	b := startBus(t)
	p := b.spawn("sub", "a", "--name", "evil\x1b[2Jname")
	p.err.until(t, "subscribed")
	if table := b.ok("", "procs"); strings.Contains(table, "\x1b") || !strings.Contains(table, `evil\x1b[2Jname`) {
		t.Errorf("%q", table)
	}
}
