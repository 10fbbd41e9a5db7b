package shmio

import (
	"bytes"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// A look is of one moment: beside two processes that do nothing but spin the kernel counts a third thread, or a fourth,
// every other time, as each Go process has a monitor thread that runs for a moment now and then, and waits for a core before
// that. So what counts is the mean of the last few looks (docs/decisions/0024).
const (
	crowdLook   = 2 * time.Millisecond   // between two looks: one costs 3 µs
	crowdGlance = 10 * time.Millisecond  // between two looks of who doesn't spin anyway,
	crowdStays  = 500 * time.Millisecond // and while there is one: a thousand processes look
	crowdForget = 2 * time.Second        // after so long without a look nothing is known
	crowdWeight = 16                     // a look is a 16th of the mean
	crowdOne    = 256                    // one thread, in the mean
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
	last  time.Time // when it was looked at
	mean  int       // of the threads, times crowdOne
	buf   [64]byte
}

// is looks if nobody has for so long, or does so now; now is the time.
func (c *crowd) is(now time.Time, every time.Duration) bool {
	if c.mu.TryLock() {
		if now.Sub(c.last) >= every {
			c.judge(now)
		}
		c.mu.Unlock()
	}
	return c.here.Load()
}

// glance is is for who doesn't spin.
func (c *crowd) glance() {
	every := crowdGlance
	if c.here.Load() {
		every = crowdStays
	}
	c.is(time.Now(), every)
}

// judge looks; mu is held.
func (c *crowd) judge(now time.Time) {
	running, cpus := c.look()
	if now.Sub(c.last) > crowdForget {
		c.mean = cpus * crowdOne
	}
	c.last = now
	c.mean += (running*crowdOne - c.mean) / crowdWeight
	if c.here.Load() {
		c.here.Store(c.mean > cpus*crowdOne*5/4+crowdOne/2) // who parks isn't counted
	} else {
		c.here.Store(c.mean > cpus*crowdOne*3/2+crowdOne)
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
