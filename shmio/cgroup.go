package shmio

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// ErrNoHeadroom says that a memory cgroup has no room for what was to be made.
var ErrNoHeadroom = errors.New("the memory cgroup has no room")

// HeadroomError says which cgroup; it is an ErrNoHeadroom.
type HeadroomError struct {
	Cgroup           string // its folder
	Need, InUse, Max uint64 // bytes
}

func (e *HeadroomError) Error() string {
	return fmt.Sprintf("%d bytes more are needed, and %d of %d in use in the memory cgroup %s: raise its limit, or hold less", e.Need, e.InUse, e.Max, e.Cgroup)
}

// Is makes errors.Is(err, ErrNoHeadroom) true.
func (e *HeadroomError) Is(target error) bool { return target == ErrNoHeadroom }

// Cgroups finds a process's memory cgroups, of version 2 or 1. The zero value is for our own process; it reads files only
// when asked, and is safe for concurrent use.
type Cgroups struct {
	Root string // where cgroups are mounted; "": /sys/fs/cgroup
	Self string // the file that says which are ours; "": /proc/self/cgroup
}

// memoryCgroup is one cgroup with a limit.
type memoryCgroup struct {
	folder     string
	max, inUse uint64 // inUse without what the kernel gives up when memory is short
}

// Limit is the lowest memory limit of our cgroup and all above it; false: there is none.
func (c Cgroups) Limit() (bytes uint64, ok bool) {
	for _, g := range c.memory() {
		if !ok || g.max < bytes {
			bytes, ok = g.max, true
		}
	}
	return bytes, ok
}

// Room is nil if need bytes more fit our memory cgroup and all above it, as far as can be known: a limit that can't be read
// is none. Other processes of the cgroup may take the room first. The error is a *HeadroomError.
func (c Cgroups) Room(need uint64) error {
	for _, g := range c.memory() {
		if g.inUse+need > g.max {
			return &HeadroomError{Cgroup: g.folder, Need: need, InUse: g.inUse, Max: g.max}
		}
	}
	return nil
}

// memory reads the cgroups that limit our memory, from ours upwards.
func (c Cgroups) memory() (limited []memoryCgroup) {
	root, self := c.Root, c.Self
	if root == "" {
		root = "/sys/fs/cgroup"
	}
	if self == "" {
		self = "/proc/self/cgroup"
	}
	b, err := os.ReadFile(self)
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(b)) {
		id, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		controllers, path, ok := strings.Cut(rest, ":")
		switch {
		case !ok:
		case id == "0" && controllers == "":
			limited = append(limited, upwards(root, path, "memory.max", "memory.current", "inactive_file")...)
		case strings.Contains(","+controllers+",", ",memory,"):
			limited = append(limited, upwards(filepath.Join(root, "memory"), path, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")...)
		}
	}
	return limited
}

// upwards reads the limits of a cgroup and of those above it. In a container the path may be the host's, of which only the
// root is seen: that is the container's own then.
func upwards(root, path, limitFile, useFile, freeable string) (limited []memoryCgroup) {
	folder := filepath.Join(root, filepath.Clean("/"+path))
	for {
		const unlimited = 1 << 60 // version 1 says so with a huge number
		if limit, ok := readNumber(filepath.Join(folder, limitFile)); ok && limit < unlimited {
			if use, ok := readNumber(filepath.Join(folder, useFile)); ok {
				use -= min(use, statField(filepath.Join(folder, "memory.stat"), freeable))
				limited = append(limited, memoryCgroup{folder, limit, use})
			}
		}
		if folder == root || len(folder) <= len(root) {
			return limited
		}
		folder = filepath.Dir(folder)
	}
}

// readNumber is false for a file that isn't there, or says "max".
func readNumber(file string) (uint64, bool) {
	var buf [64]byte
	n, err := strconv.ParseUint(string(bytes.TrimSpace(readSmall(file+"\x00", buf[:]))), 10, 64)
	return n, err == nil
}

func statField(file, name string) (n uint64) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		if f := strings.Fields(s.Text()); len(f) == 2 && f[0] == name {
			n, _ = strconv.ParseUint(f[1], 10, 64) // 0 if the kernel says something else
		}
	}
	return n
}
