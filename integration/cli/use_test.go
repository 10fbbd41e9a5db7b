package cli

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// subscribe starts bhctl sub and waits until everything published from now on arrives.
func (b *bus) subscribe(args ...string) *background {
	b.t.Helper()
	p := b.spawn(append([]string{"sub"}, args...)...)
	p.err.until(b.t, "subscribed")
	return p
}

func TestPubSub(t *testing.T) {
	b := startBus(t)
	for _, tc := range []struct {
		name, stdin string
		pub         []string
		want        string
	}{
		{"arguments", "", []string{"t", "one", "two"}, "one\ntwo"},
		{"lines", "a\n\nb c\nlast", []string{"t"}, "a\n\nb c\nlast"},
		{"whole", "a\nb\n", []string{"t", "--whole"}, "a\nb\n"},
		{"repeated", "", []string{"t", "x", "--repeat", "3"}, "x\nx\nx"},
		{"long", strings.Repeat("y", 300_000), []string{"t"}, strings.Repeat("y", 300_000)},
	} {
		n := fmt.Sprint(strings.Count(tc.want, "\n") + 1)
		if tc.name == "whole" {
			n = "1"
		}
		s := b.subscribe("t", "--count", n)
		b.ok(tc.stdin, append([]string{"pub"}, tc.pub...)...)
		if r := s.end(t); r.code != 0 || r.stdout != tc.want {
			t.Errorf("%s: status %d, %.100q, %s", tc.name, r.code, r.stdout, r.stderr)
		}
	}
}

func TestPubSubFiles(t *testing.T) {
	b := startBus(t)
	name := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(name, []byte("content\x00\xff"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := b.subscribe("img.>", "--count", "2", "--json")
	out := b.ok("", "pub", "img.a", "--file", name, "--file", name, "--json")
	var sum struct{ Sent, Bytes, Subscribers int }
	if err := json.Unmarshal([]byte(out), &sum); err != nil || sum.Sent != 2 || sum.Bytes != 18 || sum.Subscribers != 1 {
		t.Errorf("%s: %+v, %v", out, sum, err)
	}
	r := s.end(t)
	for i, line := range strings.Split(r.stdout, "\n") {
		m := decode[struct {
			Topic     string  `json:"topic"`
			Publisher string  `json:"publisher"`
			Seq       int     `json:"seq"`
			AgeNs     int64   `json:"age_ns"`
			Size      int     `json:"size"`
			Payload   *string `json:"payload"`
			Base64    string  `json:"payload_base64"`
		}](t, line)
		raw, err := base64.StdEncoding.DecodeString(m.Base64)
		if err != nil || string(raw) != "content\x00\xff" || m.Payload != nil || m.Size != 9 || m.Topic != "img.a" || m.Seq != i+1 || !strings.HasPrefix(m.Publisher, "bhctl") {
			t.Errorf("%s: %v", line, err)
		}
	}
}

func TestSubPatternsAndTopics(t *testing.T) {
	b := startBus(t)
	s := b.subscribe("a.*", "--count", "2", "--topics")
	b.ok("", "pub", "b.c", "no")
	b.ok("", "pub", "a.b.c", "no")
	b.ok("", "pub", "a.b", "yes")
	b.ok("", "pub", "a.c", "also")
	if r := s.end(t); r.stdout != "a.b\tyes\na.c\talso" {
		t.Errorf("%q", r.stdout)
	}
}

func TestSubRawAndInterrupt(t *testing.T) {
	b := startBus(t)
	s := b.subscribe("t", "--raw")
	b.ok("", "pub", "t", "ab", "cd\n")
	s.out.until(t, "abcd")
	if r := s.interrupt(t); r.code != 0 {
		t.Errorf("interrupted: status %d, %s", r.code, r.stderr)
	}
}

func TestSubHistory(t *testing.T) {
	b := startBus(t)
	p := b.spawn("pub", "t", "a", "b", "c", "--keep", "2", "--linger", "60s", "--name", "keeper")
	eventually(t, func() string {
		for _, r := range decode[procsDoc](t, b.ok("", "procs", "--json")).Procs {
			if r.Name == "keeper" {
				return ""
			}
		}
		return "keeper isn't there"
	})
	eventually(t, func() string {
		if r := b.ctl("", "sub", "t", "--history", "--count", "2", "--for", "5s", "-q"); r.stdout != "b\nc\n" {
			return fmt.Sprintf("%q", r.stdout)
		}
		return ""
	})
	if r := p.interrupt(t); r.code != 0 {
		t.Errorf("status %d, %s", r.code, r.stderr)
	}
}

func TestBadInput(t *testing.T) {
	b := startBus(t)
	for _, tc := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"pub", "", "x"}, 1, "topic"},
		{[]string{"pub", strings.Repeat("t", 64<<10), "x"}, 1, "topic"},
		{[]string{"pub", "bad\xff", "x"}, 1, "topic"},
		{[]string{"pub", "a.>", "x"}, 1, "topic"},
		{[]string{"sub", "a..b"}, 1, "topic"},
		{[]string{"sub", "t", "--depth", "70000"}, 1, "70000"},
		{[]string{"request", "nobody.there", "x"}, 1, "no provider"},
		{[]string{"pub", "t", "--file", "/nonexistent"}, 1, "no such file"},
	} {
		if r := b.ctl("", tc.args...); r.code != tc.code || !strings.Contains(r.stderr, tc.want) {
			t.Errorf("%.60q: status %d, %.200s; want %d and %q", tc.args, r.code, r.stderr, tc.code, tc.want)
		}
	}
	b.ok("", "procs")
}

func TestNameInUse(t *testing.T) {
	b := startBus(t)
	s := b.subscribe("t", "--name", "mine")
	r := b.ctl("", "sub", "t", "--name", "mine")
	if r.code != 1 || !strings.Contains(r.stderr, fmt.Sprint(s.cmd.Process.Pid)) || !strings.Contains(r.stderr, "mine") {
		t.Errorf("status %d, %s; want the pid %d", r.code, r.stderr, s.cmd.Process.Pid)
	}
}

func TestRequestServe(t *testing.T) {
	b := startBus(t)
	s := b.spawn("serve", "text.upper", "--exec", `case $BHOME_CLIENT in bhctl*) tr a-z A-Z;; esac`, "--workers", "2")
	s.err.until(t, "serves")
	if out := b.ok("", "request", "text.upper", "hello"); out != "HELLO\n" {
		t.Errorf("argument: %q", out)
	}
	if out := b.ok("from stdin", "request", "text.upper", "--raw"); out != "FROM STDIN" {
		t.Errorf("stdin: %q", out)
	}
	if out := b.ok("a\nb\nc\n", "request", "text.upper", "--lines"); out != "A\nB\nC\n" {
		t.Errorf("lines: %q", out)
	}
	out := b.ok("", "request", "text.upper", "x", "--json")
	var reply struct {
		Topic, Payload string
		Took           int64 `json:"took_ns"`
		Size           int
	}
	if err := json.Unmarshal([]byte(out), &reply); err != nil || reply.Topic != "text.upper" || reply.Payload != "X" || reply.Took <= 0 || reply.Size != 1 {
		t.Errorf("%s, %v", out, err)
	}
	if r := s.interrupt(t); r.code != 0 {
		t.Errorf("interrupted: status %d, %s", r.code, r.stderr)
	}
	if r := b.ctl("", "request", "text.upper", "x"); r.code != 1 || !strings.Contains(r.stderr, "no provider") {
		t.Errorf("after its end: status %d, %s", r.code, r.stderr)
	}
}

func TestServeErrorsCountsAndWaiting(t *testing.T) {
	b := startBus(t)
	s := b.spawn("serve", "bad", "--exec", "echo broken >&2; exit 7", "--count", "1")
	if r := b.ctl("", "request", "bad", "x", "--wait-service"); r.code != 1 || !strings.Contains(r.stderr, "broken") || !strings.Contains(r.stderr, "status 7") {
		t.Errorf("status %d, %s", r.code, r.stderr)
	}
	if r := s.end(t); r.code != 0 {
		t.Errorf("serve --count 1: status %d, %s", r.code, r.stderr)
	}
	e := b.spawn("serve", "echo", "--echo", "--count", "2")
	e.err.until(t, "serves")
	big := strings.Repeat("z", 200_000)
	if out := b.ok(big, "request", "echo"); out != big+"\n" {
		t.Errorf("%d bytes came back of %d", len(out)-1, len(big))
	}
	b.ok("", "request", "echo", "x")
	if r := e.end(t); r.code != 0 {
		t.Errorf("serve --count 2: status %d, %s", r.code, r.stderr)
	}
	slow := b.spawn("serve", "slow", "--exec", "sleep 60")
	slow.err.until(t, "serves")
	start := time.Now()
	if r := b.ctl("", "request", "slow", "x", "--timeout", "200ms"); r.code != 1 || time.Since(start) > 10*time.Second {
		t.Errorf("a slow service: status %d after %v, %s", r.code, time.Since(start), r.stderr)
	}
}

// TestShellsDontFillTheTable: names of a pool are used again, so that calls from a shell can't exhaust the table of names.
func TestShellsDontFillTheTable(t *testing.T) {
	b := startBus(t, "--procs", "4")
	for i := range 20 {
		if r := b.ctl("", "pub", "t", "x"); r.code != 0 {
			t.Fatalf("call %d: status %d, %s", i, r.code, r.stderr)
		}
	}
}

func TestBench(t *testing.T) {
	b := startBus(t)
	type benchDoc struct {
		MsgsPerSec     float64          `json:"msgs_per_sec"`
		Percentiles    map[string]int64 `json:"percentiles_ns"`
		Sent, Received uint64
		Lost           *uint64
		Disordered     uint64
	}
	for _, tc := range []struct {
		args           []string
		sent, received uint64
	}{
		{[]string{"pubsub", "--count", "20000"}, 20000, 20000},
		{[]string{"pubsub", "--count", "300", "--size", "64KiB", "--pubs", "2", "--subs", "2", "--wait", "park"}, 600, 1200},
		{[]string{"request", "--count", "500", "--wait", "park"}, 500, 500},
		{[]string{"request", "--count", "300", "--size", "100KiB", "--pubs", "2", "--concurrency", "2"}, 300, 300},
		{[]string{"pubsub", "--count", "1000", "--private"}, 1000, 1000},
	} {
		out := b.ok("", append(append([]string{"bench"}, tc.args...), "--json")...)
		var doc benchDoc
		if err := json.Unmarshal([]byte(out), &doc); err != nil {
			t.Fatal(err)
		}
		if doc.MsgsPerSec <= 0 || doc.Sent != tc.sent || doc.Received != tc.received || doc.Lost == nil || *doc.Lost != 0 || doc.Disordered != 0 {
			t.Errorf("%v: %s", tc.args, out)
		}
		last := int64(0)
		for _, p := range []string{"p50", "p90", "p99", "p99.9", "max"} {
			v, ok := doc.Percentiles[p]
			if !ok || v < last || v <= 0 {
				t.Errorf("%v: %s is %d after %d", tc.args, p, v, last)
			}
			last = v
		}
	}
	eventually(t, func() string {
		if names := b.ok("", "procs", "-q"); strings.Contains(names, "bench") {
			return "left behind: " + names
		}
		return ""
	})
}

func TestBenchTellsLoss(t *testing.T) {
	b := startBus(t)
	r := b.ctl("", "bench", "pubsub", "--count", "200000", "--depth", "1", "--on-full", "drop-newest", "--wait", "park", "--json")
	var doc struct{ Sent, Received, Lost uint64 }
	if err := json.Unmarshal([]byte(r.stdout), &doc); err != nil {
		t.Fatalf("%v: %s%s", err, r.stdout, r.stderr)
	}
	if doc.Lost == 0 || doc.Lost+doc.Received != doc.Sent || r.code != 4 || !strings.Contains(r.stderr, "lost") {
		t.Errorf("status %d, %+v, %s; want status 4 and the loss told", r.code, doc, r.stderr)
	}
}
