package shmio

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// A shared descriptor stays open until the last handle is closed, whatever the order.
func TestShareClosesWithTheLastHandle(t *testing.T) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(p[1])
	a := NewFD(p[0])
	b, err := a.Share()
	if err != nil {
		t.Fatal(err)
	}
	c, err := b.Share()
	if err != nil {
		t.Fatal(err)
	}
	isOpen := func() bool { _, err := unix.FcntlInt(uintptr(p[0]), unix.F_GETFD, 0); return err == nil }
	for i, f := range []*FD{a, c, b} {
		if !isOpen() {
			t.Fatalf("closed before handle %d", i)
		}
		for range 2 { // the second does nothing
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if isOpen() {
		t.Fatal("open after the last handle was closed")
	}
	if _, err := a.Share(); !errors.Is(err, os.ErrClosed) {
		t.Fatalf("share of a closed one: %v", err)
	}
}
