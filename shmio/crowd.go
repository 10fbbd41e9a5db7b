package shmio

import (
	"bytes"
	"strconv"
	"syscall"
	"time"
)

const (
	crowdLasts = 10 * time.Millisecond  // between two looks while nothing changes: a look costs 3 µs
	crowdAgain = 100 * time.Microsecond // between two looks while it may
	crowdSure  = 3                      // looks until it has: a kernel thread that runs for a moment is no crowd
)

// crowd tells whether more threads of this machine want to run than it has cores: who spins then keeps those from running
// that could send. It belongs to one receiver at a time. The zero crowd is ready for use.
type crowd struct {
	count func() (running, cpus int) // tests'; nil: the kernel's
	cpus  int
	next  time.Time // when to look again
	score int
	here  bool
	buf   [64]byte
}

// is looks now and then; now is the time.
func (c *crowd) is(now time.Time) bool {
	if now.Before(c.next) {
		return c.here
	}
	running, cpus := c.look()
	if running > cpus {
		c.score = min(c.score+1, crowdSure)
	} else {
		c.score = max(c.score-1, 0)
	}
	c.next = now.Add(crowdAgain)
	if c.score == 0 || c.score == crowdSure {
		c.here = c.score > 0
		c.next = now.Add(crowdLasts)
	}
	return c.here
}

// look counts the threads that run or wait for a core, and the cores: zero and zero if the kernel doesn't say. They are the
// whole machine's: of a container's, or of the cores that we are bound to, the kernel tells nothing as cheaply.
func (c *crowd) look() (running, cpus int) {
	if c.count != nil {
		return c.count()
	}
	if c.cpus == 0 {
		if c.cpus = countCPUs(readSmall("/sys/devices/system/cpu/online", c.buf[:])); c.cpus == 0 {
			return 0, 0
		}
	}
	return parseRunning(readSmall("/proc/loadavg", c.buf[:])), c.cpus
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

// readSmall reads a file of /proc or /sys into buf; nothing if it can't. It allocates nothing but the name.
func readSmall(name string, buf []byte) []byte {
	fd, err := syscall.Open(name, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer syscall.Close(fd)
	n, err := syscall.Read(fd, buf)
	if err != nil {
		return nil
	}
	return buf[:n]
}
