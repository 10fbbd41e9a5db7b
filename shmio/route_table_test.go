package shmio

import (
	"math/rand/v2"
	"testing"
)

// The table against a map: everything that is out is found, nothing else, and it stays so however they come and go.
func TestOutTable(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		table := newOutTable(make([]uint64, 2*32))
		out := map[uint64]uint64{}
		seq := rng.Uint64()
		for range 500 {
			if len(out) < 16 && rng.IntN(5) > 1 {
				seq += 1 + uint64(rng.IntN(8))/7*uint64(rng.IntN(64)) // mostly in a row
				out[seq] = seq * 3
				table.put(seq, seq*3, 10, nil)
			} else {
				var victim uint64
				for s := range out { // the oldest, or any
					if victim == 0 || rng.IntN(3) > 0 && s-seq < victim-seq {
						victim = s
					}
				}
				if len(out) == 0 {
					continue
				}
				at := table.find(victim)
				if at < 0 {
					t.Fatalf("%#x isn't found", victim)
				}
				if table.remove(at); table.find(victim) >= 0 {
					t.Fatalf("%#x is still there", victim)
				}
				delete(out, victim)
			}
			strays := 0
			for i, e := range table.entries {
				if e.used && uint64(i) != e.seq&table.mask {
					strays++
				}
				if want := e.seq + 1; e.used && (table.shared[2*i] != want || table.shared[2*i+1] != out[e.seq]) || !e.used && table.shared[2*i] != 0 {
					t.Fatalf("entry %d is %+v, shared %#x", i, e, table.shared[2*i:2*i+2])
				}
			}
			if strays != table.strays || table.n != len(out) || table.bytes != uint64(10*len(out)) {
				t.Fatalf("%d strays, counted %d; %d entries, counted %d", strays, table.strays, len(out), table.n)
			}
			for s := range out {
				if table.find(s) < 0 {
					t.Fatalf("%#x is lost", s)
				}
			}
			if table.find(seq+1) >= 0 {
				t.Fatal("what isn't out is found")
			}
		}
	}
}
