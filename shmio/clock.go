package shmio

import (
	"time"

	"golang.org/x/sys/unix"
)

// monotonic relates Go's own monotonic readings, which cost no system call, to CLOCK_MONOTONIC, which all processes of
// the host share. It is set once and never changed.
var monotonic = relateClocks()

type relation struct {
	at time.Time
	ns uint64 // CLOCK_MONOTONIC at that time
}

// relateClocks reads one clock between two readings of the other, a few times, and keeps the closest pair.
func relateClocks() (best relation) {
	gap := time.Duration(1<<63 - 1)
	for range 8 {
		var ts unix.Timespec
		before := time.Now()
		err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
		if err != nil {
			panic("shmio: no CLOCK_MONOTONIC: " + err.Error()) // every Linux has it
		}
		if d := time.Since(before); d < gap {
			gap = d
			best = relation{at: before, ns: uint64(ts.Nano()) - uint64(d/2)}
		}
	}
	return best
}

// CoarseNow is the time since boot in ns, comparable between the processes of a host to a few µs. Safe for concurrent
// use, no allocation, no system call. It reads CLOCK_MONOTONIC: the vDSO's coarse clock, which lags that by up to a tick
// (10 ms at most), can't be called without cgo. So an age by this clock of what another stamped by the other is never
// too young, the other way round it may come out negative: whoever computes ages takes that for 0.
func CoarseNow() uint64 { return monotonic.ns + uint64(time.Since(monotonic.at)) }
