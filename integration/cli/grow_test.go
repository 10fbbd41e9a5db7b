package cli

import (
	"encoding/json"
	"testing"
)

// Each curve has its points, and on none is a message lost.
func TestBenchGrow(t *testing.T) {
	b := startBus(t)
	out := b.ok("", "bench", "grow", "--each", "2ms", "--size", "256", "--topics", "10", "--held", "16", "--subs", "2", "--pubs", "2", "--total", "1000", "--json")
	var points []struct {
		Curve  string
		X      int
		P50    int64   `json:"p50_ns"`
		PerSec float64 `json:"msgs_per_sec"`
		Lost   uint64
	}
	if err := json.Unmarshal([]byte(out), &points); err != nil {
		t.Fatal(err, out)
	}
	xs := map[string][]int{}
	for _, p := range points {
		xs[p.Curve] = append(xs[p.Curve], p.X)
		if p.PerSec <= 0 || p.Lost != 0 || p.Curve == "size" && p.P50 <= 0 {
			t.Errorf("%+v", p)
		}
	}
	for curve, want := range map[string][]int{"size": {8, 64, 256}, "topics": {1, 10}, "held": {0, 16}, "subscribers": {1, 2}, "publishers": {1, 2}} {
		if got := xs[curve]; len(got) != len(want) || got[0] != want[0] || got[len(got)-1] != want[len(want)-1] {
			t.Errorf("%s is measured at %v, want %v", curve, got, want)
		}
	}
}
