package cli

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestSoakNoticesInjectedFaults: the soak can fail, says with which seed and how to repeat it, and leaves nothing behind.
func TestSoakNoticesInjectedFaults(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	for fault, want := range map[string]string{"corrupt": "corrupt payload", "double": "came doubled"} {
		r := ctl(t, "", "soak", "--for", "1s", "--seed", "7", "--inject", fault)
		if r.code != 1 || !strings.Contains(r.stdout, want) || !strings.Contains(r.stdout, "again: bhctl soak --for 1s --seed 7") {
			t.Errorf("%s: status %d; want status 1 and %q\n%s%s", fault, r.code, want, r.stdout, r.stderr)
		}
		r = ctl(t, "", "soak", "--for", "1s", "--seed", "7", "--inject", fault, "--json")
		var doc struct {
			Seed   uint64
			Faults []string
		}
		if err := json.Unmarshal([]byte(r.stdout), &doc); err != nil || r.code != 1 || doc.Seed != 7 || len(doc.Faults) != 1 {
			t.Errorf("%s: status %d, %v: %s%s", fault, r.code, err, r.stdout, r.stderr)
		}
	}
	if r := ctl(t, "", "soak", "--inject", "nonsense"); r.code != 2 {
		t.Errorf("status %d, want 2", r.code)
	}
}
