// Package procfs reads what a process takes of the machine, as /proc tells. It changes nothing.
package procfs

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// Use is what a process takes; all zero if it is gone.
type Use struct {
	CPU     time.Duration // of all threads so far, to 10 ms
	RSS     int64         // resident bytes, shared ones too
	Private int64         // of them, those of no file and no shared memory
	Threads int
	FDs     int
}

// Of looks at a process.
func Of(pid int) (u Use) {
	const hz = 100 // USER_HZ, fixed in the kernel's ABI
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil {
		if f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:])); len(f) > 17 {
			user, _ := strconv.ParseInt(f[11], 10, 64) // the kernel writes numbers
			system, _ := strconv.ParseInt(f[12], 10, 64)
			u.CPU = time.Duration(user+system) * time.Second / hz
			u.Threads, _ = strconv.Atoi(f[17])
		}
	}
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid)); err == nil {
		if f := strings.Fields(string(b)); len(f) > 2 {
			pages, _ := strconv.ParseInt(f[1], 10, 64)
			shared, _ := strconv.ParseInt(f[2], 10, 64)
			u.RSS, u.Private = pages*int64(os.Getpagesize()), (pages-shared)*int64(os.Getpagesize())
		}
	}
	if d, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid)); err == nil {
		u.FDs = len(d)
	}
	return u
}

// Share is a process's share of the memory that it has resident, in bytes: a page that k processes map counts as a k-th of one.
// 0 if the kernel doesn't say. It walks all mappings, which takes milliseconds where there are thousands.
func Share(pid int) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "Pss:" {
			kib, _ := strconv.ParseInt(f[1], 10, 64) // the kernel writes numbers
			return kib << 10
		}
	}
	return 0
}
