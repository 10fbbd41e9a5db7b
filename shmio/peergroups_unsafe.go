package shmio

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// peerGroups are the supplementary groups that a socket's peer had when it connected, by the kernel's word (Linux 4.13).
func peerGroups(fd int) ([]uint32, error) {
	groups := make([]uint32, 64)
	for {
		size := uint32(len(groups) * 4)
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(unsafe.SliceData(groups))), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errno == 0:
			return append([]uint32(nil), groups[:size/4]...), nil
		case errors.Is(errno, unix.ERANGE) && int(size/4) > len(groups): // size says how much it takes
			groups = make([]uint32, size/4)
		default:
			return nil, fmt.Errorf("the peer's groups: %w", errno)
		}
	}
}
