package ctl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bhome-bus/bhome/cmd/internal/exitcode"
)

// bhctl runs one command that needs no bus.
func bhctl(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = Main(t.Context(), Env{Args: args, Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs, Executable: os.Args[0]})
	return code, out.String(), errs.String()
}

func TestUsageErrors(t *testing.T) {
	for _, tc := range []struct {
		want string
		args []string
	}{
		{"unknown command", []string{"prosc"}},
		{"unknown flag", []string{"procs", "--jsn"}},
		{"unknown command", []string{"procs", "extra"}},
		{"there are name, pid", []string{"procs", "--sort", "size"}},
		{"exclude each other", []string{"msgs", "--json", "-q"}},
		{"at least 10ms", []string{"topics", "--watch", "--interval", "1ms"}},
		{"requires at least 1 arg", []string{"pub"}},
		{"one of them", []string{"pub", "t", "a", "--file", "b"}},
		{"--repeat", []string{"pub", "t", "a", "--repeat", "0"}},
		{"accepts 1 arg", []string{"sub"}},
		{"exclude each other", []string{"sub", "t", "--raw", "--json"}},
		{"not a policy", []string{"sub", "t", "--on-full", "panic"}},
		{"not a duration", []string{"sub", "t", "--expiry", "5"}},
		{"one of them", []string{"request", "t", "a", "--lines"}},
		{"how to answer", []string{"serve", "t"}},
		{"how to answer", []string{"serve", "t", "--echo", "--wordcount"}},
		{"pubsub, request, suite, grow, deaths, hostile or burst", []string{"bench"}},
		{"at least 16 bytes", []string{"bench", "pubsub", "--size", "8"}},
		{"wait strategy", []string{"bench", "request", "--wait", "sometimes"}},
		{"corrupt and leak", []string{"demo", "--inject", "fire"}},
		{"--bus", []string{"procs", "--bus", "../x"}},
		{"no role", []string{"child", "nobody"}},
		{"not a log level", []string{"procs", "--log-level", "loud"}},
	} {
		code, out, stderr := bhctl(t, tc.args...)
		if code != exitcode.Usage || !strings.Contains(stderr, tc.want) || out != "" {
			t.Errorf("%v: status %d, %q, stdout %q; want status 2 and %q", tc.args, code, stderr, out, tc.want)
		}
	}
}

func TestNoDaemon(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("BHOME_SOCKET", filepath.Join(dir, "a.sock"))
	t.Setenv("XDG_RUNTIME_DIR", dir)
	for _, args := range [][]string{
		{"procs"}, {"msgs", "--json"}, {"topics", "--watch"}, {"pub", "t", "x"}, {"sub", "t"}, {"request", "t", "x"},
		{"serve", "t", "--echo"}, {"bench", "pubsub", "--count", "1"},
	} {
		code, out, stderr := bhctl(t, append(args, "--bus", "nobodys")...)
		if code != exitcode.NoDaemon || out != "" {
			t.Errorf("%v: status %d, stdout %q, want status 3: %s", args, code, out, stderr)
		}
		for _, want := range []string{filepath.Join(dir, "a.sock"), filepath.Join(dir, "bhome", "nobodys.sock"), "/run/bhome/nobodys.sock", "bhomed"} {
			if !strings.Contains(stderr, want) {
				t.Errorf("%v: %q doesn't name %s", args, stderr, want)
			}
		}
	}
}

func TestVersion(t *testing.T) {
	if code, out, _ := bhctl(t, "version"); code != 0 || !strings.Contains(out, "ABI 1.0") {
		t.Errorf("status %d, %q", code, out)
	}
	code, out, _ := bhctl(t, "version", "--json")
	var v struct{ Version, ABI string }
	if err := json.Unmarshal([]byte(out), &v); code != 0 || err != nil || v.Version == "" || v.ABI != "1.0" {
		t.Errorf("status %d, %q, %v", code, out, err)
	}
}

func TestCompletionAndHelp(t *testing.T) {
	if code, out, _ := bhctl(t, "completion", "bash"); code != 0 || !strings.Contains(out, "bhctl") {
		t.Errorf("completion: status %d", code)
	}
	code, out, _ := bhctl(t, "--help")
	if code != 0 || !strings.Contains(out, "3 no daemon") || strings.Contains(out, "child") {
		t.Errorf("help: status %d, %q", code, out)
	}
	for _, c := range []string{"procs", "msgs", "topics", "pub", "sub", "request", "serve", "bench", "demo"} {
		if !strings.Contains(out, "\n  "+c+" ") {
			t.Errorf("help doesn't list %s", c)
		}
	}
	if code, out, _ := bhctl(t, "procs", "--help"); code != 0 || !strings.Contains(out, "segment_bytes") {
		t.Errorf("help of procs: status %d, %q", code, out)
	}
}

func TestEachLine(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "a\nb\n": "a|b|", "a\r\n\nb": "a||b|", "\n": "|", strings.Repeat("x", 1<<17) + "\ny": strings.Repeat("x", 1<<17) + "|y|",
	} {
		got := ""
		if err := eachLine(t.Context(), strings.NewReader(in), func(line []byte) error {
			got += string(line) + "|"
			return nil
		}); err != nil || got != want {
			t.Errorf("%.20q: %.40q, %v", in, got, err)
		}
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close() // the reader's goroutine ends with it
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := w.WriteString("one\n"); err != nil {
		t.Fatal(err)
	}
	if err := eachLine(ctx, r, func([]byte) error { cancel(); return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("a blocked input isn't left when the context ends: %v", err)
	}
	stop := errors.New("stop")
	if err := eachLine(t.Context(), strings.NewReader("a\nb\n"), func([]byte) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
}

func TestRunCommand(t *testing.T) {
	out, err := runCommand(t.Context(), `cat; echo " $BHOME_TOPIC $BHOME_CLIENT"`, "a.b", "me", []byte("in"))
	if err != nil || string(out) != "in a.b me\n" {
		t.Errorf("%q, %v", out, err)
	}
	if _, err := runCommand(t.Context(), "echo no good >&2; exit 3", "t", "c", nil); err == nil || !strings.Contains(err.Error(), "no good") || !strings.Contains(err.Error(), "status 3") {
		t.Errorf("got %v", err)
	}
	// A payload that nobody reads is no error.
	if out, err := runCommand(t.Context(), "echo ok", "t", "c", bytes.Repeat([]byte("x"), 1<<20)); err != nil || string(out) != "ok\n" {
		t.Errorf("%q, %v", out, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	fifo := filepath.Join(t.TempDir(), "pid")
	time.AfterFunc(50*time.Millisecond, cancel)
	start := time.Now()
	if _, err := runCommand(ctx, "sleep 60 & echo $! > "+fifo+"; wait", "t", "c", nil); err == nil || time.Since(start) > 20*time.Second {
		t.Errorf("a cancelled command: %v after %v", err, time.Since(start))
	}
}

func TestPayloadOf(t *testing.T) {
	for in, want := range map[string]string{"": `{"payload":""}`, "ü": `{"payload":"ü"}`, "\xff\x00": `{"payload_base64":"/wA="}`} {
		b, err := json.Marshal(payloadOf([]byte(in)))
		if err != nil || string(b) != want {
			t.Errorf("%q: %s, %v", in, b, err)
		}
	}
}
