package cli

import (
	"strings"
	"testing"
)

// The suite compares all contestants at each size, and its crowd loses nothing.
func TestBenchSuite(t *testing.T) {
	b := startBus(t) // the suite starts a bus of its own: this one only shows that they don't meet
	out := b.ok("", "bench", "suite", "--sizes", "64,5000", "--each", "2ms", "--crowd", "3")
	for _, want := range []string{"round trip, 64 B", "one way, 64 B", "round trip, 4 KiB", "bare spin", "bhome spin", "bhome adaptive", "bhome park", "unix",
		"fan-out: 1 publisher × 16 subscribers", "requests, 64 B: 16 clients of one service", " times publishing there and back", "attach: 3 node processes", "idle for", "speed test, depth 64:    1 writers × 2 readers, 1000000 messages", "speed test, depth 256:  100 writers × 2 readers, 1000000 messages", " of what 10 writers make", "received 2000000, lost 0"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	if all, none := strings.Count(out, ", lost "), strings.Count(out, ", lost 0\n"); all != none {
		t.Errorf("%d of %d lost something:\n%s", all-none, all, out)
	}
}
