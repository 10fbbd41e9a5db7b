package shmio

import (
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func newEventfd(t *testing.T) *FD {
	t.Helper()
	n, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	noErr(t, err)
	return NewFD(n)
}

func isOpen(n int) bool {
	_, err := unix.FcntlInt(uintptr(n), unix.F_GETFD, 0)
	return err == nil
}

func TestFDClosesOnce(t *testing.T) {
	checkLeaks(t)
	f := newEventfd(t)
	n := f.Int()
	dup, err := f.Dup()
	noErr(t, err)
	flags, err := unix.FcntlInt(uintptr(dup.Int()), unix.F_GETFD, 0)
	noErr(t, err)
	if flags&unix.FD_CLOEXEC == 0 {
		t.Error("the duplicate survives exec")
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := f.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if isOpen(n) || f.Int() != -1 {
		t.Error("it is still open")
	}
	if !isOpen(dup.Int()) {
		t.Error("the duplicate went with it")
	}
	noErr(t, dup.Close())
	_, err = f.Dup()
	wantErr(t, err, os.ErrClosed)
	bad := NewFD(1 << 20)
	if err := bad.Close(); err == nil {
		t.Error("closing what isn't open succeeds")
	}
}

func TestLostFDIsClosed(t *testing.T) {
	var p [2]int
	noErr(t, unix.Pipe2(p[:], unix.O_CLOEXEC))
	defer unix.Close(p[0])
	func() { NewFD(p[1]) }() // lost
	pfd := []unix.PollFd{{Fd: int32(p[0])}}
	for end := time.Now().Add(patience); ; {
		runtime.GC()
		if n, err := unix.Poll(pfd, 10); err == nil && n == 1 && pfd[0].Revents&unix.POLLHUP != 0 {
			return // its closing is the hang-up of the other end
		}
		if time.Now().After(end) {
			t.Fatal("it is still open")
		}
	}
}
