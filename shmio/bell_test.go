package shmio

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// readBell is all that a bell's pipe holds.
func readBell(t *testing.T, read *FD) (hints []uint32) {
	t.Helper()
	buf := make([]byte, 1<<17)
	n, err := unix.Read(read.Int(), buf)
	if err == unix.EAGAIN {
		return nil
	}
	noErr(t, err)
	for at := 0; at < n; at += 4 {
		hints = append(hints, binary.NativeEndian.Uint32(buf[at:]))
	}
	return hints
}

func TestBellRings(t *testing.T) {
	checkLeaks(t)
	read, write, err := NewBell()
	noErr(t, err)
	defer read.Close()
	var st unix.Stat_t
	noErr(t, unix.Fstat(write.Int(), &st))
	if st.Mode&0o777 != 0o622 {
		t.Errorf("mode is %o", st.Mode&0o777)
	}
	if size, err := unix.FcntlInt(uintptr(read.Int()), unix.F_GETPIPE_SZ, 0); err != nil || size != max(4096, os.Getpagesize()) {
		t.Errorf("the pipe holds %d bytes (%v)", size, err)
	}
	b, err := OpenBell(write)
	noErr(t, err)
	if write.Int() != -1 {
		t.Error("the descriptor isn't taken over")
	}
	b.Ring(7)
	b.Ring(^uint32(0) - 1)
	if h := readBell(t, read); len(h) != 2 || h[0] != 7 || h[1] != ^uint32(0)-1 || b.Rung() != 2 {
		t.Errorf("read %v, rung %d", h, b.Rung())
	}
	noErr(t, b.Close())
	noErr(t, b.Close())
	b.Ring(8)
	if h := readBell(t, read); h != nil {
		t.Errorf("rings after Close: %v", h)
	}
}

// The sleeper makes the descriptor that it gave away blocking, and never reads: the ringer must not care.
func TestBellNeverBlocks(t *testing.T) {
	checkLeaks(t)
	read, write, err := NewBell()
	noErr(t, err)
	defer read.Close()
	keep, err := write.Dup()
	noErr(t, err)
	defer keep.Close()
	b, err := OpenBell(write)
	noErr(t, err)
	defer b.Close()
	noErr(t, unix.SetNonblock(keep.Int(), false))
	fits := max(4096, os.Getpagesize()) / 4
	for i := range fits + 100 {
		b.Ring(uint32(i))
	}
	if h := readBell(t, read); len(h) != fits || h[fits-1] != uint32(fits-1) {
		t.Errorf("%d hints of %d", len(h), fits)
	}
	noErr(t, read.Close())
	b.Ring(1) // EPIPE, and no signal
}

func TestOpenBellRefuses(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	noErr(t, unix.Mkfifo(fifo, 0o600))
	checkLeaks(t)
	open := func(path string, flags int) int {
		n, err := unix.Open(path, flags|unix.O_CLOEXEC, 0o600)
		noErr(t, err)
		return n
	}
	read, write, err := NewBell()
	noErr(t, err)
	defer write.Close()
	defer read.Close()
	reading, err := read.Dup()
	noErr(t, err)
	for name, c := range map[string]struct {
		fd   *FD
		says string
	}{
		"file":         {NewFD(open(filepath.Join(dir, "file"), unix.O_CREAT|unix.O_RDWR)), "an ordinary file"},
		"named fifo":   {NewFD(open(fifo, unix.O_RDWR)), "a pipe"},
		"looks like":   {NewFD(open(filepath.Join(dir, "pipe:[1]"), unix.O_CREAT|unix.O_RDWR)), "an ordinary file"},
		"eventfd":      {newEventfd(t), "eventfd"},
		"reading end":  {reading, "reading end"},
		"without mode": {NewFD(open(procPath(write.Int()), unix.O_PATH)), "reading end"},
	} {
		_, err := OpenBell(c.fd)
		wantErr(t, err, ErrNotBell, c.says)
		if c.fd.Int() != -1 {
			t.Errorf("%s: the descriptor is kept", name)
		}
	}
	orphanRead, orphan, err := NewBell()
	noErr(t, err)
	noErr(t, orphanRead.Close())
	b, err := OpenBell(orphan) // its sleeper is gone: no news to the ringer, whom the pidfd tells
	noErr(t, err)
	b.Ring(1)
	noErr(t, b.Close())
}

// childRing has the writing end at descriptor 3.
func childRing([]string) error {
	b, err := OpenBell(NewFD(3))
	if err != nil {
		return err
	}
	b.Ring(4711)
	if n, err := unix.Open(procPath(b.n), unix.O_RDONLY|unix.O_NONBLOCK, 0); err == nil && os.Getuid() == nobody {
		return os.NewSyscallError("another uid opens the bell for reading: descriptor", unix.Errno(n))
	}
	return b.Close()
}

func TestBellAcrossProcesses(t *testing.T) {
	for name, uid := range map[string]uint32{"our uid": 0, "another uid": nobody} {
		t.Run(name, func(t *testing.T) {
			checkLeaks(t)
			r := mustReactor(t)
			read, write, err := NewBell()
			noErr(t, err)
			rung := make(chan uint32, 1)
			_, err = r.WatchBell(read, func(h uint32) { rung <- h })
			noErr(t, err)
			c := startChild(t, uid, "ring", nil, write)
			noErr(t, write.Close())
			c.expect("done")
			if h := await(t, rung, "the bell"); h != 4711 {
				t.Errorf("hint %d", h)
			}
		})
	}
	if strings.Contains(fdTarget(0), "\x00") {
		t.Error("fdTarget returns its padding")
	}
}
