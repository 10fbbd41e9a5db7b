package shmio

import (
	"bytes"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

const (
	crowdLasts = 10 * time.Millisecond  // between two looks while nothing changes: a look costs 3 µs
	crowdAgain = 100 * time.Microsecond // between two looks while it may
	crowdSure  = 3                      // looks until it has: a kernel thread that runs for a moment is no crowd
)

// theCrowd is this machine's, and so the process's: whoever waits looks at it, and whoever rings believes it.
var theCrowd crowd

// crowd tells whether more threads of this machine want to run than it has cores: who spins then keeps those from running
// that could send, and who wakes more threads than it must takes longer than they do. Safe for concurrent use; the zero
// crowd is ready for it.
type crowd struct {
	here atomic.Bool // pairs with itself: a moment late is soon enough

	mu    sync.Mutex
	count func() (running, cpus int) // tests'; nil: the kernel's
	cpus  int
	next  time.Time // when to look again
	score int
	buf   [64]byte
}

// is looks now and then, while nobody else does; now is the time.
func (c *crowd) is(now time.Time) bool {
	if c.mu.TryLock() {
		if !now.Before(c.next) {
			c.judge(now)
		}
		c.mu.Unlock()
	}
	return c.here.Load()
}

// judge looks; mu is held.
func (c *crowd) judge(now time.Time) {
	running, cpus := c.look()
	if running > cpus {
		c.score = min(c.score+1, crowdSure)
	} else {
		c.score = max(c.score-1, 0)
	}
	c.next = now.Add(crowdAgain)
	if c.score == 0 || c.score == crowdSure {
		c.here.Store(c.score > 0)
		c.next = now.Add(crowdLasts)
	}
}

// look counts the threads that run or wait for a core, and the cores: zero and zero if the kernel doesn't say. They are the
// whole machine's: of a container's, or of the cores that we are bound to, the kernel tells nothing as cheaply.
func (c *crowd) look() (running, cpus int) {
	if c.count != nil {
		return c.count()
	}
	if c.cpus == 0 {
		if c.cpus = countCPUs(readSmall("/sys/devices/system/cpu/online\x00", c.buf[:])); c.cpus == 0 {
			return 0, 0
		}
	}
	return parseRunning(readSmall("/proc/loadavg\x00", c.buf[:])), c.cpus
}

// parseRunning takes the threads that are running or ready from "0.20 0.18 0.12 1/80 11206"; 0 if they aren't there.
func parseRunning(loadavg []byte) int {
	slash := bytes.IndexByte(loadavg, '/')
	if slash < 0 {
		return 0
	}
	n, _ := strconv.Atoi(string(loadavg[bytes.LastIndexByte(loadavg[:slash], ' ')+1 : slash])) // 0 if it is no number
	return n
}

// countCPUs counts a list like "0-3,8"; 0 if it is none.
func countCPUs(list []byte) (n int) {
	for part := range bytes.SplitSeq(bytes.TrimSpace(list), []byte{','}) {
		first, last, isRange := bytes.Cut(part, []byte{'-'})
		if !isRange {
			last = first
		}
		from, err := strconv.Atoi(string(first))
		to, err2 := strconv.Atoi(string(last))
		if err != nil || err2 != nil || to < from {
			return 0
		}
		n += to - from + 1
	}
	return n
}

// readSmall reads a file of /proc or /sys, whose name ends in a zero, into buf; nothing if it can't. It allocates nothing.
func readSmall(name string, buf []byte) []byte {
	n, err := quickFile(name, buf)
	if err != nil {
		return nil
	}
	return buf[:n]
}
