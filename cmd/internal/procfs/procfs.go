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

// Of looks at a process that may be gone.
func Of(pid int) Use {
	u, err := Look(pid)
	if err != nil {
		return Use{}
	}
	return u
}

// Look looks at a process; an error if it is gone.
func Look(pid int) (u Use, err error) {
	const hz = 100 // USER_HZ, fixed in the kernel's ABI
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return u, err
	}
	if f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:])); len(f) > 17 {
		user, _ := strconv.ParseInt(f[11], 10, 64) // the kernel writes numbers
		system, _ := strconv.ParseInt(f[12], 10, 64)
		u.CPU = time.Duration(user+system) * time.Second / hz
		u.Threads, _ = strconv.Atoi(f[17])
	}
	if b, err = os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid)); err != nil {
		return u, err
	}
	if f := strings.Fields(string(b)); len(f) > 2 {
		pages, _ := strconv.ParseInt(f[1], 10, 64)
		shared, _ := strconv.ParseInt(f[2], 10, 64)
		u.RSS, u.Private = pages*int64(os.Getpagesize()), (pages-shared)*int64(os.Getpagesize())
	}
	d, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	u.FDs = len(d)
	return u, err
}
