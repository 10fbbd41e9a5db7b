package wire

import (
	"math"
	"testing"
)

func TestAllocTable(t *testing.T) {
	if n := len(allocSizes); n != 256 {
		t.Fatalf("%d classes", n)
	}
	sum := uint64(0)
	for i, size := range allocSizes {
		if size%8 != 0 {
			t.Errorf("class %d: %d isn't a multiple of 8", i, size)
		}
		if i > 0 && size <= allocSizes[i-1] {
			t.Errorf("class %d: %d is not above %d", i, size, allocSizes[i-1])
		}
		sum = sum*31 + uint64(size)
	}
	const seed = 0x90db902051adfca0
	// Computed over the seed's table, not over this one: a typo anywhere changes it.
	if sum != seed {
		t.Errorf("the table's checksum is %#x, the seed's %#x", sum, uint64(seed))
	}
}

func TestCalcAllocIndex(t *testing.T) {
	for _, c := range []struct {
		size int64
		want int
	}{
		{math.MinInt64, 0}, {-1, 0}, {0, 0}, {1, 0}, {15, 0}, {16, 0},
		{17, 1}, {24, 1}, {25, 2}, {104, 11}, {105, 12}, {120, 12}, {121, 13},
		{896, 33}, {897, 34}, {900, 34}, {984, 34}, {985, 35},
		{1 << 20, 114}, {MaxMessage, 210},
		{210443450936, 254}, {210443450937, 255}, {229574673751, 255}, {229574673752, 255},
		{229574673753, -1}, {math.MaxInt64, -1},
	} {
		if got := CalcAllocIndex(c.size); got != c.want {
			t.Errorf("CalcAllocIndex(%d) = %d, want %d", c.size, got, c.want)
		}
	}
	for i := range AllocClasses {
		size := GetAllocSize(i)
		if got := CalcAllocIndex(size); got != i {
			t.Errorf("CalcAllocIndex(%d) = %d, want %d", size, got, i)
		}
		want := i + 1
		if i == AllocClasses-1 {
			want = -1
		}
		if got := CalcAllocIndex(size + 1); got != want {
			t.Errorf("CalcAllocIndex(%d) = %d, want %d", size+1, got, want)
		}
	}
}

func TestGetAllocSize(t *testing.T) {
	for index, want := range map[int]int64{0: 16, 1: 24, 34: 984, 254: 210443450936, 255: 229574673752,
		-1: 0, 256: 0, math.MinInt: 0, math.MaxInt: 0} {
		if got := GetAllocSize(index); got != want {
			t.Errorf("GetAllocSize(%d) = %d, want %d", index, got, want)
		}
	}
	if got := GetAllocSize(CalcAllocIndex(900)); got != 984 {
		t.Errorf("900 bytes get %d, want 984", got)
	}
}

func TestBlockSize(t *testing.T) {
	for class, want := range map[uint8]uint64{
		0:   128,  // 64 + 16
		6:   128,  // 64 + 64: exactly
		7:   192,  // 64 + 72
		34:  1088, // 64 + 984 = 1048
		255: 229574673856,
	} {
		if got := BlockSize(class); got != want {
			t.Errorf("BlockSize(%d) = %d, want %d", class, got, want)
		}
	}
	for class := range AllocClasses {
		b, size := BlockSize(uint8(class)), uint64(GetAllocSize(class))
		if b%64 != 0 || b < size+64 || b >= size+128 {
			t.Errorf("BlockSize(%d) = %d for %d bytes", class, b, size)
		}
	}
}

// From 1 KiB on what is neither header nor payload takes less than 12 % of a block, however unlucky the size.
func TestBlocksWasteLittle(t *testing.T) {
	for class := 1; class < AllocClasses; class++ {
		size := uint64(allocSizes[class-1]) + 1 // the smallest that needs this class
		if size < 1<<10 {
			continue
		}
		if block := BlockSize(uint8(class)); (block-HeaderSize-size)*100 >= 12*block {
			t.Errorf("%d bytes take a block of %d", size, block)
		}
	}
}
