package node

import "testing"

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
