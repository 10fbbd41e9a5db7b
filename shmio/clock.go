package shmio

import (
	"time"

	"golang.org/x/sys/unix"
)

// monotonic relates Go's own monotonic readings, which cost no system call, to CLOCK_MONOTONIC, which all processes of
// the host share. It is set once and never changed.
var monotonic = func() (c struct {
	at     time.Time
	offset uint64
}) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic("shmio: no CLOCK_MONOTONIC: " + err.Error()) // every Linux has it
	}
	c.at, c.offset = time.Now(), uint64(ts.Nano())
	return c
}()

// CoarseNow is the time since boot in ns, by CLOCK_MONOTONIC: comparable between the processes of a host. Good to about a
// microsecond, which is finer than the ABI asks for; the vDSO's coarse clock can't be called without cgo, and a system
// call would cost four times as much.
func CoarseNow() uint64 { return monotonic.offset + uint64(time.Since(monotonic.at)) }
