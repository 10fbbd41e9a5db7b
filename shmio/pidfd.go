package shmio

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// PidfdOpen is a descriptor of a process, readable once it has died. Error: unix.ESRCH.
func PidfdOpen(pid int) (*FD, error) {
	n, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("pidfd of process %d: %w", pid, err)
	}
	return NewFD(n), nil // the kernel opens it close-on-exec
}
