package shmio

import (
	"strconv"

	"golang.org/x/sys/unix"
)

// procPath is the name by which the kernel reopens descriptor fd.
func procPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// fdTarget is what /proc says about a descriptor: an absolute path, or something like "pipe:[4711]" for what has none;
// "" if it can't be told. No path looks like the latter, and no server of a file system is asked.
func fdTarget(fd int) string {
	var buf [256]byte
	n, err := unix.Readlink(procPath(fd), buf[:])
	if err != nil {
		return ""
	}
	return string(buf[:n])
}
