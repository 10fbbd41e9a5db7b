package node

import (
	"testing"

	"github.com/bhome-bus/bhome/wire"
)

func TestFitShared(t *testing.T) {
	sizes := func(pairs ...int) (payloads [][]byte) { // count, size, ...
		for i := 0; i < len(pairs); i += 2 {
			for range pairs[i] {
				payloads = append(payloads, make([]byte, pairs[i+1]))
			}
		}
		return payloads
	}
	for name, c := range map[string]struct {
		payloads  [][]byte
		most      int
		n, blocks int
	}{
		"none":                     {nil, mostShared, 0, 0},
		"few":                      {sizes(3, 1000), mostShared, 0, 0},
		"just too few":             {sizes(7, 1024), mostShared, 0, 0},
		"eight":                    {sizes(8, 1024), mostShared, 8, 8 * 1088},
		"all":                      {sizes(64, 1024), mostShared, 64, 64 * 1088},
		"as many as there is room": {sizes(64, 1200), mostShared, 56, 56 * 1280},
		"an inline one ends it":    {sizes(20, 1000, 1, 64, 20, 1000), mostShared, 20, 20 * 1088},
		"a long one ends it":       {sizes(20, 1000, 1, 9217, 20, 1000), mostShared, 20, 20 * 1088},
		"a longer one goes":        {sizes(20, 1000, 1, 2500, 20, 1000), mostShared, 41, 40*1088 + 2624},
		"a longer one ends it":     {sizes(20, 1000, 1, 5000, 3, 1000), mostShared, 20, 20 * 1088},
		"or is made good for":      {sizes(20, 1000, 1, 5000, 30, 1000), mostShared, 51, 50*1088 + 5120},
		"a longer one first":       {sizes(1, 5000, 3, 1000), mostShared, 0, 0},
		"small messages only":      {sizes(64, 500), 6000, 10, 10 * 576},
		"smaller still":            {sizes(64, 500), 4000, 0, 0},
	} {
		if n, bytes := fitShared(c.payloads, 256, c.most); n != c.n || bytes != c.blocks {
			t.Errorf("%s: %d in %d bytes, want %d in %d", name, n, bytes, c.n, c.blocks)
		}
	}
}

// A block to share is long enough, not much too long, and of few sizes.
func TestSharedClass(t *testing.T) {
	if size := wire.BlockSize(mostClass); size != mostShared+wire.HeaderSize {
		t.Errorf("the largest block to share takes %d bytes, want %d", size, mostShared+wire.HeaderSize)
	}
	all := map[uint8]bool{}
	for bytes := leastShared; bytes <= mostShared; bytes += 64 {
		class := sharedClass(bytes, mostShared)
		if size := int(wire.BlockSize(class)); size < bytes || size > bytes*13/10+wire.HeaderSize {
			t.Errorf("%d bytes in a block of %d", bytes, size)
		}
		all[class] = true
	}
	if len(all) != 12 {
		t.Errorf("%d classes", len(all))
	}
	if size := wire.BlockSize(sharedClass(5500, 6200)); size > 6200+wire.HeaderSize {
		t.Errorf("a block of %d where a message has 6,200 bytes at most", size)
	}
}
