package cli

import (
	"encoding/json"
	"strings"
	"testing"
)

// The honest pair is measured beside each attack, and between controls.
func TestBenchHostile(t *testing.T) {
	b := startBus(t)
	out := b.ok("", "bench", "hostile", "--each", "50ms", "--attacks", "bell-center,words", "--json")
	var rows []struct {
		Attack  string  `json:"attack"`
		PerSec  float64 `json:"msgs_per_sec"`
		Ratio   float64 `json:"of_undisturbed"`
		Threads int     `json:"center_threads"`
		FDs     int     `json:"center_fds"`
		Did     int     `json:"did"`
		Named   bool    `json:"named"`
	}
	if err := json.Unmarshal([]byte(out), &rows); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range rows {
		names = append(names, r.Attack)
		attacks := r.Attack == "bell-center" || r.Attack == "words"
		if r.PerSec <= 0 || r.Ratio <= 0 || r.Threads < 1 || r.FDs < 10 || attacks && r.Did == 0 || !attacks && r.Named {
			t.Errorf("%+v", r)
		}
	}
	if got := strings.Join(names, " "); got != "nothing spinner bell-center words nothing" {
		t.Errorf("measured %s", got)
	}
}
