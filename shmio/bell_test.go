package shmio

import (
	"encoding/binary"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// readBell is all that a bell holds.
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
	b, err := OpenBell(write)
	noErr(t, err)
	b.Ring(7)
	b.Ring(^uint32(0) - 1)
	if h := readBell(t, read); len(h) != 2 || h[0] != 7 || h[1] != ^uint32(0)-1 || b.Rung() != 2 {
		t.Errorf("read %v, rung %d", h, b.Rung())
	}
	noErr(t, b.Close())
	noErr(t, b.Close())
	if write.Int() != -1 {
		t.Error("the descriptor wasn't taken over")
	}
	b.Ring(8)
	if n, err := unix.Read(read.Int(), make([]byte, 8)); n != 0 || err != nil {
		t.Errorf("after Close: %d bytes, %v", n, err)
	}
}

// The sleeper makes the description that it gave away blocking, and never reads: the ringer must not care. And as many
// rings fit as the one who hears takes for granted.
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
	for i := range 10_000 {
		b.Ring(uint32(i))
	}
	if h := readBell(t, read); len(h) < bellRoom/4 || len(h) == 10_000 || h[len(h)-1] != uint32(len(h)-1) {
		t.Errorf("%d hints", len(h))
	}
	noErr(t, read.Close())
	b.Ring(1) // EPIPE, and no signal
}

func TestOpenBellRefuses(t *testing.T) {
	dir := shortDir(t)
	fifo := filepath.Join(dir, "fifo")
	noErr(t, unix.Mkfifo(fifo, 0o600))
	service, err := net.Listen("unix", filepath.Join(dir, "service"))
	noErr(t, err)
	defer service.Close()
	checkLeaks(t)
	open := func(path string, flags int) int {
		n, err := unix.Open(path, flags|unix.O_CLOEXEC, 0o600)
		noErr(t, err)
		return n
	}
	socket := func(domain, kind int) int {
		n, err := unix.Socket(domain, kind|unix.SOCK_CLOEXEC, 0)
		noErr(t, err)
		return n
	}
	client := func() *FD {
		n := socket(unix.AF_UNIX, unix.SOCK_STREAM)
		noErr(t, unix.Connect(n, &unix.SockaddrUnix{Name: filepath.Join(dir, "service")}))
		return NewFD(n)
	}
	pair := func(kind int, into func(mine int)) *FD {
		p, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
		noErr(t, err)
		into(p[0])
		noErr(t, unix.Close(p[0]))
		return NewFD(p[1])
	}
	var p [2]int
	noErr(t, unix.Pipe2(p[:], unix.O_CLOEXEC))
	noErr(t, unix.Close(p[0]))
	write := pair(unix.SOCK_STREAM, func(int) {})
	defer write.Close()
	for name, c := range map[string]struct {
		fd   *FD
		says string
	}{
		"file":       {NewFD(open(filepath.Join(dir, "file"), unix.O_CREAT|unix.O_RDWR)), "an ordinary file"},
		"pipe":       {NewFD(p[1]), "a pipe"},
		"named fifo": {NewFD(open(fifo, unix.O_RDWR)), "a pipe"},
		"eventfd":    {newEventfd(t), "eventfd"},
		"by path":    {NewFD(open(dir, unix.O_PATH)), "a directory"},
		"inet":       {NewFD(socket(unix.AF_INET, unix.SOCK_STREAM)), "not of AF_UNIX"},
		"datagrams":  {pair(unix.SOCK_DGRAM, func(int) {}), "type 2"},
		"alone":      {NewFD(socket(unix.AF_UNIX, unix.SOCK_STREAM)), "not connected"},
		"a service":  {client(), "has a name"},
		"not empty": {pair(unix.SOCK_STREAM, func(mine int) {
			noErr(t, unix.Sendmsg(mine, []byte("x"), unix.UnixRights(0), nil, 0))
		}), "something waits in it"},
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

// The sleeper sends descriptors to the one who rings, who would have to close them with the bell.
func TestBellHasNoWayBack(t *testing.T) {
	checkLeaks(t)
	read, write, err := NewBell()
	noErr(t, err)
	defer read.Close()
	b, err := OpenBell(write)
	noErr(t, err)
	defer b.Close()
	if err := unix.Sendmsg(read.Int(), []byte("x"), unix.UnixRights(0), nil, unix.MSG_NOSIGNAL); err != unix.EPIPE {
		t.Errorf("sent to the ringer: %v", err)
	}
}

// One who rings sends descriptors as well: they are not taken in, and the bell isn't heard any more. Where the kernel
// doesn't see to that it is the same.
func TestDescriptorsThroughABell(t *testing.T) {
	for name, old := range map[string]bool{"this Linux": false, "before 6.16": true} {
		t.Run(name, func(t *testing.T) {
			checkLeaks(t)
			r := mustReactor(t)
			read, write, err := NewBell()
			noErr(t, err)
			if old {
				_ = unix.SetsockoptInt(read.Int(), unix.SOL_SOCKET, soPassRights, 1) // ENOPROTOOPT where it is old anyway
				read.late = true
			}
			b, err := OpenBell(write)
			noErr(t, err)
			defer b.Close()
			hints := make(chan uint32, 4)
			w, err := r.WatchBell(read, func(h uint32) { hints <- h })
			noErr(t, err)
			b.Ring(1)
			if h := await(t, hints, "the first ring"); h != 1 {
				t.Fatal(h)
			}
			mine, theirs, err := NewBell() // its other end hangs up when nobody has it any more
			noErr(t, err)
			defer mine.Close()
			err = unix.Sendmsg(b.n, []byte{2, 0, 0, 0}, unix.UnixRights(theirs.Int()), nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
			noErr(t, theirs.Close())
			if refused := err == unix.EPERM; refused {
				if old {
					t.Fatal("the kernel refuses although it was told not to")
				}
				b.Ring(3)
				if h := await(t, hints, "a ring"); h != 3 {
					t.Error(h)
				}
				return
			}
			noErr(t, err)
			_, marker := bellTo(t, r, func(h uint32) { hints <- h })
			for registered(r, w) { // until the reactor has heard it
				marker.Ring(4)
				if h := await(t, hints, "the other bell"); h != 4 {
					t.Fatalf("the bell was heard: %d", h)
				}
			}
			buf := make([]byte, 8)
			if _, err := unix.Read(mine.Int(), buf); err != unix.EAGAIN {
				t.Errorf("what came through the bell was closed by the one who heard it: %v", err)
			}
			noErr(t, w.Close())
			bed := readEnd(t, mine) // and it is closed, by another, in the end
			if bed.sleep() {
				t.Error("what came through the bell wasn't closed")
			}
		})
	}
}

// readEnd sleeps at a bell.
func readEnd(t *testing.T, bell *FD) *bedside {
	t.Helper()
	b, err := newBedside(bell)
	noErr(t, err)
	t.Cleanup(b.close)
	return b
}

// childRing has the ringer's end at descriptor 3.
func childRing([]string) error {
	b, err := OpenBell(NewFD(3))
	if err != nil {
		return err
	}
	b.Ring(4711)
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
