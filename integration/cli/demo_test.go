package cli

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// goSource is the tree that the demo streams; a test takes a part of it where the whole is not the point.
func goSource(t *testing.T, part string) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "src", part)
}

type demoDoc struct {
	Files                       int
	Published, Delivered, Bytes uint64
	Leaked, Corrupted           *uint64
	Killed                      int
	Faults                      []string
	Requests                    uint64
	MsgsPerSec                  float64          `json:"msgs_per_sec"`
	Percentiles                 map[string]int64 `json:"percentiles_ns"`
}

// leftovers are the demo's temporary folders.
func leftovers(t *testing.T) int {
	t.Helper()
	m, err := filepath.Glob(filepath.Join(os.TempDir(), "bhome-demo-*"))
	if err != nil {
		t.Fatal(err)
	}
	return len(m)
}

// TestDemo is the whole of it, on the whole of the Go source tree.
func TestDemo(t *testing.T) {
	if testing.Short() {
		t.Skip("takes up to 30 s")
	}
	t.Setenv("TMPDIR", t.TempDir()) // others run demos, too
	before := leftovers(t)
	start := time.Now()
	r := ctl(t, "", "demo")
	if took := time.Since(start); r.code != 0 || took > 30*time.Second {
		t.Fatalf("status %d after %v\n%s%s", r.code, took, r.stdout, r.stderr)
	}
	for _, want := range []string{"files:", "bytes:", "messages/s:", "latency:", "leaked:           0", "corrupt:          0",
		"NAME ", "HOLDERS*", "PUBLISHERS", "demo.files", "demo.wordcount", "SIGKILL"} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("no %q in\n%s", want, r.stdout)
		}
	}
	if strings.Contains(r.stdout, "\nFAULT ") {
		t.Error(r.stdout)
	}
	if n := leftovers(t); n > before {
		t.Errorf("%d folders are left", n-before)
	}
}

func TestDemoCounts(t *testing.T) {
	r := ctl(t, "", "demo", "--tree", goSource(t, "net"), "--json", "--passes", "3")
	var d demoDoc
	if err := json.Unmarshal([]byte(r.stdout), &d); err != nil || r.code != 0 {
		t.Fatalf("status %d, %v: %s%s", r.code, err, r.stdout, r.stderr)
	}
	n := uint64(d.Files)
	// Two whole publishers and a killed one; a whole subscriber and a late one.
	if d.Published < 6*n || d.Delivered < d.Published || d.Delivered > 2*d.Published || d.Killed != 2 || d.Requests == 0 {
		t.Errorf("%+v", d)
	}
	if d.Leaked == nil || *d.Leaked != 0 || d.Corrupted == nil || *d.Corrupted != 0 || len(d.Faults) != 0 || d.MsgsPerSec <= 0 {
		t.Errorf("%+v", d)
	}
}

func TestDemoNoticesInjectedFaults(t *testing.T) {
	tree := goSource(t, "net")
	for fault, want := range map[string]string{"corrupt": "is corrupt: SHA-256", "leak": "leaked: block"} {
		r := ctl(t, "", "demo", "--tree", tree, "--inject", fault, "--quiet")
		if r.code != 1 || !strings.Contains(r.stdout, want) || !strings.Contains(r.stderr, "demo:") {
			t.Errorf("%s: status %d; want status 1 and %q\n%s%s", fault, r.code, want, r.stdout, r.stderr)
		}
	}
}

func TestDemoWithoutDaemonNamesBothPlaces(t *testing.T) {
	dir := t.TempDir()
	bin := filepath.Join(dir, "bhctl")
	b, err := os.ReadFile(filepath.Join(binDir(), "bhctl"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(bin, b, 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "demo", "--tree", goSource(t, "net"))
	cmd.Env = append(os.Environ(), "PATH=/nowhere")
	if r := finish(t, cmd); r.code != 1 || !strings.Contains(r.stderr, filepath.Join(dir, "bhomed")) || !strings.Contains(r.stderr, "/nowhere") {
		t.Errorf("status %d, %s", r.code, r.stderr)
	}
}
