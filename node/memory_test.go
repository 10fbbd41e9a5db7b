package node

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/bhome-bus/bhome/shmio"
)

// A half is zero, also where another one was.
func TestHalvesAreZero(t *testing.T) {
	m, err := newMemory()
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	for name, f := range map[string]struct {
		alloc func(size uint64) (half, error)
		free  func(half)
	}{
		"link":  {m.allocLink, m.freeLink},
		"route": {func(size uint64) (half, error) { h, _, err := m.allocHalf(size, 1, ""); return h, err }, func(h half) { m.freeHalf(h) }},
	} {
		kept, err := f.alloc(128)
		if err != nil {
			t.Fatal(name, err)
		}
		for size := uint64(256); size < 16<<10; size *= 2 {
			h, err := f.alloc(size)
			if err != nil || uint64(len(h.mem)) != size || h.offset != kept.offset+128 || h.number != kept.number {
				t.Fatalf("%s: %d bytes at %d of segment %d, %v", name, len(h.mem), h.offset, h.number, err)
			}
			for i, b := range h.mem {
				if b != 0 {
					t.Fatalf("%s: byte %d of %d is %d", name, i, size, b)
				}
				h.mem[i] = 0xff
			}
			f.free(h)
		}
		f.free(kept)
	}
}

// What our memory cgroup has no room for isn't made, and the error says which cgroup and how much.
func TestNoRoomInTheCgroup(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{"self": "0::/\n", "memory.max": "10485760\n", "memory.current": "1048576\n"} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	m, err := newMemory()
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	m.cgroups = shmio.Cgroups{Root: root, Self: filepath.Join(root, "self")}
	// 9 MiB are left, and half a MiB of segment 0 isn't touched yet.
	if _, err := m.addData(4<<20, 0, 0, 1, ""); err != nil {
		t.Fatal(err)
	}
	_, err = m.addData(5<<20, 4<<16, 0, 1, "") // would fit if the first needed nothing more
	var he *shmio.HeadroomError
	if !errors.As(err, &he) || he.InUse != 1<<20 || he.Max != 10<<20 {
		t.Fatalf("%v, want a refusal of the cgroup", err)
	}
	if e := noSegment(err); e.GetLimit() != "cgroup" || e.GetWhose() != root || e.GetMax() != 10<<20 || e.GetInUse() != 1<<20 {
		t.Errorf("the center is told %v", e)
	}
	if _, _, err = m.allocHalf(16<<20, 1, ""); !errors.As(err, &he) {
		t.Errorf("a control segment: %v", err)
	}
	if _, err := m.addData(1<<20, 4<<16, 0, 1, ""); err != nil {
		t.Errorf("what fits: %v", err)
	}
}
