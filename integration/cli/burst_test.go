package cli

import (
	"encoding/json"
	"testing"
)

// What a burst takes is seen in each process that maps it, and once in the memfds; that it isn't back is status 4.
func TestBenchBurst(t *testing.T) {
	b := startBus(t)
	const bytes = 32 << 20
	// Nothing is given back within a second of its last use: that takes two beats.
	r := b.ctl("", "bench", "burst", "--bytes", "32MiB", "--sizes", "64KiB", "--subs", "1", "--settle", "10ms", "--most", "1s", "--json")
	if r.code != 4 {
		t.Fatalf("status %d, want 4: %s", r.code, r.stderr)
	}
	type memory struct {
		RSS   int64 `json:"rss_bytes"`
		Shmem int64 `json:"shmem_bytes"`
	}
	type levels struct{ Idle, Peak, After int64 }
	var rows []struct {
		How       string
		Count     int
		Processes []struct {
			Name              string
			Idle, Peak, After memory
			Back              int64 `json:"back_ns"`
		}
		Memfds   levels `json:"memfd_bytes"`
		Resident levels `json:"resident_bytes"`
		Met      bool
	}
	if err := json.Unmarshal([]byte(r.stdout), &rows); err != nil {
		t.Fatal(err, r.stdout)
	}
	if len(rows) != 2 {
		t.Fatalf("%d rows, want one for each way", len(rows))
	}
	for i, row := range rows {
		if want := []string{"held", "queued"}[i]; row.How != want || row.Count != bytes/(64<<10) || row.Met || len(row.Processes) != 3 {
			t.Errorf("row %d: %+v", i, row)
			continue
		}
		if grown := row.Memfds.Peak - row.Memfds.Idle; grown < bytes*9/10 || grown > bytes*3/2 || row.Resident.Peak-row.Resident.Idle < grown {
			t.Errorf("row %d: the memfds grew by %d, all by %d, for a burst of %d", i, grown, row.Resident.Peak-row.Resident.Idle, bytes)
		}
		for _, p := range row.Processes {
			// Who holds it has it mapped and touched; a subscriber in whose queue it waits hasn't.
			has := p.Name == "publisher" || p.Name == "subscriber 1" && row.How == "held"
			if grown := p.Peak.Shmem - p.Idle.Shmem; has && grown < bytes*9/10 || p.Name == "subscriber 1" && !has && grown > bytes/2 {
				t.Errorf("row %d: %s has %d bytes more of shared memory", i, p.Name, grown)
			}
			if has && p.Back != 0 {
				t.Errorf("row %d: %s is back after %d ns with %d of %d resident bytes", i, p.Name, p.Back, p.After.RSS, p.Peak.RSS)
			}
		}
	}
}
