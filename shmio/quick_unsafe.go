package shmio

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The system calls of this file never wait, whatever others do to the descriptors. So Go's scheduler needn't be told of
// them. Telling it costs little, but wakes the runtime's monitor thread, which then looks about every 20 µs until the process
// sleeps: in a crowd that is most of what a wake-up costs (decision 26), and there it isn't told.
//
// None of them is for a pipe: who writes into one, or reads, from memory that a server of its own pages in holds everybody
// else up (decision 9).

// quickSend sends p on a connected socket. Errors: unix.EAGAIN (it is full), unix.EPIPE and unix.ECONNRESET (the other end is closed).
func quickSend(fd int, p []byte) (int, error) {
	const flags = unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL
	var n uintptr
	var e syscall.Errno
	if theCrowd.here.Load() {
		n, _, e = syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), flags, 0, 0)
	} else {
		n, _, e = syscall.Syscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), flags, 0, 0)
	}
	return quickResult(n, e)
}

// quickReceive receives into p from a socket of our own; 0 is the end. Error: unix.EAGAIN (there is nothing).
func quickReceive(fd int, p []byte) (int, error) {
	var n uintptr
	var e syscall.Errno
	if theCrowd.here.Load() {
		n, _, e = syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), unix.MSG_DONTWAIT, 0, 0)
	} else {
		n, _, e = syscall.Syscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), unix.MSG_DONTWAIT, 0, 0)
	}
	return quickResult(n, e)
}

// quickPeek is quickReceive that leaves all where it is, and tells whether something besides bytes comes with them:
// then there is no more before it than what it returns.
func quickPeek(fd int, p []byte) (n int, besides bool, err error) {
	iov := unix.Iovec{Base: unsafe.SliceData(p)}
	iov.SetLen(len(p))
	msg := unix.Msghdr{Iov: &iov}
	msg.SetIovlen(1)
	r, _, e := syscall.RawSyscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&msg)), unix.MSG_DONTWAIT|unix.MSG_PEEK)
	n, err = quickResult(r, e)
	return n, msg.Flags&unix.MSG_CTRUNC != 0, err
}

// hasPeerName tells whether the other end of a local socket has a name; unix.Getpeername takes none for an abstract one.
func hasPeerName(fd int) (bool, error) {
	var name unix.RawSockaddrUnix
	length := uint32(unsafe.Sizeof(name))
	_, _, e := syscall.RawSyscall(unix.SYS_GETPEERNAME, uintptr(fd), uintptr(unsafe.Pointer(&name)), uintptr(unsafe.Pointer(&length)))
	if e != 0 {
		return false, e
	}
	return uintptr(length) > unsafe.Offsetof(name.Path), nil
}

// quickEvents takes what an epoll set has ready.
func quickEvents(epfd int, events []unix.EpollEvent) (int, error) {
	var n uintptr
	var e syscall.Errno
	if theCrowd.here.Load() {
		n, _, e = syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(epfd), uintptr(unsafe.Pointer(unsafe.SliceData(events))), uintptr(len(events)), 0, 0, 0)
	} else {
		n, _, e = syscall.Syscall6(unix.SYS_EPOLL_PWAIT, uintptr(epfd), uintptr(unsafe.Pointer(unsafe.SliceData(events))), uintptr(len(events)), 0, 0, 0)
	}
	return quickResult(n, e)
}

// quickFile reads a small file of /proc or /sys, whose name ends in a zero.
func quickFile(name string, p []byte) (int, error) {
	at := unix.AT_FDCWD
	fd, _, e := syscall.RawSyscall6(unix.SYS_OPENAT, uintptr(at), uintptr(unsafe.Pointer(unsafe.StringData(name))), unix.O_RDONLY|unix.O_CLOEXEC, 0, 0, 0)
	if e != 0 {
		return 0, e
	}
	n, _, e := syscall.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
	_, _, _ = syscall.RawSyscall(unix.SYS_CLOSE, fd, 0, 0) // nothing depends on how it ends
	return quickResult(n, e)
}

func quickResult(n uintptr, e syscall.Errno) (int, error) {
	if e != 0 {
		return 0, e
	}
	return int(n), nil
}
