package cli

import (
	"encoding/json"
	"testing"
)

// What is measured is there, and nothing is lost or doubled, whoever dies.
func TestBenchDeaths(t *testing.T) {
	out := startBus(t).ok("", "bench", "deaths", "--kills", "4", "--touched", "1MiB,40MiB", "--restarts", "2", "--nodes", "4", "--down", "100ms", "--json")
	type times struct{ P50, Max int64 }
	var res struct {
		Kills []struct {
			Touched   uint64 `json:"touched_bytes"`
			Center    times  `json:"gone_at_center_ns"`
			Returned  times  `json:"blocks_back_ns"`
			Delivered int
			Lost      int
		}
		Restarts []struct {
			SIGKILL                                    bool
			Known                                      int64 `json:"known_ns"`
			Newcomer                                   int64 `json:"newcomer_ns"`
			Delivered, Lost, Doubled, Requests, Failed uint64
		}
	}
	if err := json.Unmarshal([]byte(out), &res); err != nil {
		t.Fatal(err, out)
	}
	if len(res.Kills) != 2 || res.Kills[0].Touched != 1<<20 || res.Kills[1].Touched != 40<<20 || len(res.Restarts) != 2 || !res.Restarts[0].SIGKILL || res.Restarts[1].SIGKILL {
		t.Fatalf("%+v", res)
	}
	for _, k := range res.Kills {
		if k.Center.P50 <= 0 || k.Center.Max < k.Center.P50 || k.Returned.Max <= 0 || k.Delivered != 4*16 || k.Lost != 0 {
			t.Errorf("%+v", k)
		}
	}
	for _, r := range res.Restarts {
		if r.Known <= 0 || r.Newcomer <= 0 || r.Delivered == 0 || r.Requests == 0 || r.Lost+r.Doubled+r.Failed != 0 {
			t.Errorf("%+v", r)
		}
	}
}
