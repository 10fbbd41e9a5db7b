package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/bhome-bus/bhome/cmd/internal/exitcode"
	"github.com/bhome-bus/bhome/cmd/internal/logging"
)

// run calls Main with args and returns the status, the configuration that would have run (nil: none), and the output.
func run(t *testing.T, result error, args ...string) (code int, cfg *Config, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = Main(t.Context(), Env{Args: args, Stdout: &out, Stderr: &errs, Run: func(_ context.Context, c Config, _ Env) error {
		cfg = &c
		return result
	}})
	return code, cfg, out.String(), errs.String()
}

func TestFlagsOverrideFileOverridesDefaults(t *testing.T) {
	file := filepath.Join(t.TempDir(), "b.toml")
	text := "bus = \"lab\"\nsocket_mode = \"0660\"\n[limits]\nnode = \"64MiB\"\nuid = \"128MiB\"\n[log]\nlevel = \"warn\"\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	code, cfg, _, stderr := run(t, nil, "--log-level", "trace", "-c", file, "--limit-node=32MiB", "--kill-unresponsive")
	if code != 0 || cfg == nil {
		t.Fatalf("status %d: %s", code, stderr)
	}
	want := Default()
	want.Bus, want.SocketMode = "lab", 0o660
	want.Limits.Node, want.Limits.UID = 32<<20, 128<<20
	want.Log.Level = logging.Trace
	want.Heartbeat.KillUnresponsive = true
	if !reflect.DeepEqual(*cfg, want) {
		t.Errorf("got  %+v\nwant %+v", *cfg, want)
	}
}

func TestNoFlagsIsTheDefault(t *testing.T) {
	code, cfg, _, stderr := run(t, nil)
	if code != 0 || cfg == nil || !reflect.DeepEqual(*cfg, Default()) {
		t.Errorf("status %d, %+v, %s", code, cfg, stderr)
	}
	if time.Duration(cfg.Heartbeat.Offline) != 15*time.Second || time.Duration(cfg.Heartbeat.Kill) != time.Minute {
		t.Errorf("heartbeat defaults: %+v", cfg.Heartbeat)
	}
}

func TestUsageErrors(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "bad.toml")
	if err := os.WriteFile(bad, []byte("[log]\nlevle = \"info\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"--no-such-flag"}, "unknown flag"},
		{[]string{"extra"}, "unknown command"},
		{[]string{"--log-level", "loud"}, "there are trace, debug"},
		{[]string{"--offline", "15"}, "not a duration"},
		{[]string{"--bus", "a/b"}, "bus: "},
		{[]string{"-c", bad}, bad + `:2: unknown key "log.levle"; did you mean "log.level"?`},
		{[]string{"-c", bad + ".none"}, "no such file"},
		{[]string{"-c", bad, "--check"}, "unknown key"},
	} {
		code, cfg, _, stderr := run(t, nil, tc.args...)
		if code != exitcode.Usage || cfg != nil || !strings.Contains(stderr, tc.want) {
			t.Errorf("%v: status %d, ran %v, %q; want status 2 and %q", tc.args, code, cfg != nil, stderr, tc.want)
		}
	}
}

func TestRunErrorIsReported(t *testing.T) {
	code, _, _, stderr := run(t, errors.New("bus is served by process 7"))
	if code != exitcode.Error || !strings.Contains(stderr, "[FATAL] bhomed: bus is served by process 7") || strings.Contains(stderr, "--help") {
		t.Errorf("status %d, %q", code, stderr)
	}
}

func TestRunErrorIsJSONWithJSONLogs(t *testing.T) {
	_, _, _, stderr := run(t, errors.New("no"), "--log-json", "--log-level=fatal")
	var line map[string]any
	if err := json.Unmarshal([]byte(stderr), &line); err != nil || line["@level"] != "fatal" || line["@message"] != "no" {
		t.Errorf("%v: %s", err, stderr)
	}
}

func TestCheckAndPrintConfig(t *testing.T) {
	if code, cfg, out, _ := run(t, nil, "--check", "-c", example); code != 0 || cfg != nil || !strings.Contains(out, "ok") {
		t.Errorf("--check: status %d, ran %v, %q", code, cfg != nil, out)
	}
	code, cfg, out, stderr := run(t, nil, "--print-config", "--bus", "lab", "--limit-bus", "1GiB")
	if code != 0 || cfg != nil {
		t.Fatalf("--print-config: status %d, ran %v, %s", code, cfg != nil, stderr)
	}
	back := Default()
	if err := Parse("printed", []byte(out), &back); err != nil {
		t.Fatalf("what is printed can't be read: %v\n%s", err, out)
	}
	back.at = nil
	if want := (func() Config { c := Default(); c.Bus, c.Limits.Bus = "lab", 1<<30; return c })(); !reflect.DeepEqual(back, want) {
		t.Errorf("printed and read back: %+v, want %+v", back, want)
	}
}

func TestVersion(t *testing.T) {
	if code, cfg, out, _ := run(t, nil, "--version"); code != 0 || cfg != nil || !strings.Contains(out, "ABI 1.0") {
		t.Errorf("status %d, %q", code, out)
	}
}
