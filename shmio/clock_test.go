package shmio

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Between two readings of the kernel's clock, but for what relating the clocks may be off.
func TestCoarseNowIsCLOCK_MONOTONIC(t *testing.T) {
	const off = 100 * uint64(time.Microsecond)
	kernel := func(clock int32) uint64 {
		var ts unix.Timespec
		noErr(t, unix.ClockGettime(clock, &ts))
		return uint64(ts.Nano())
	}
	last := uint64(0)
	for range 1000 {
		coarse := kernel(unix.CLOCK_MONOTONIC_COARSE)
		before := kernel(unix.CLOCK_MONOTONIC)
		now := CoarseNow()
		after := kernel(unix.CLOCK_MONOTONIC)
		if now+off < before || now > after+off || now+off < coarse || now < last {
			t.Fatalf("%d isn't in [%d, %d], coarse %d, last %d", now, before, after, coarse, last)
		}
		last = now
	}
}
