package shmio

import (
	"errors"
	"os"
	"strings"
	"testing"
)

// What this process opens and maps is found, with the inode that its handle says, and is gone when it is closed.
func TestHoldings(t *testing.T) {
	s, err := CreateSegment("holdings", SegmentSpec{Kind: KindControl, Number: 1, Size: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	id, err := s.FD().Inode()
	if err != nil {
		t.Fatal(err)
	}
	pidfd, err := PidfdOpen(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer pidfd.Close()
	count := func() (fds, maps int, target string) {
		t.Helper()
		list, err := Descriptors()
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range list {
			if d.Inode == id {
				fds, target = fds+1, d.Target
			}
			if d.Number == pidfd.Int() && d.PID != os.Getpid() {
				t.Errorf("a pidfd of ours is of process %d", d.PID)
			}
		}
		all, err := Mappings()
		if err != nil {
			t.Fatal(err)
		}
		return fds, all[id].Count, target
	}
	if fds, maps, target := count(); fds != 1 || maps != 1 || !strings.HasPrefix(target, "/memfd:holdings") {
		t.Errorf("%d descriptors of %q, %d mappings; want one of each", fds, target, maps)
	}
	fd, err := s.FD().Dup()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenSegment(fd, Want{Kinds: []Kind{KindControl}, MaxSize: 1 << 20}); err == nil {
		t.Fatal("a segment that isn't published is accepted")
	}
	s.Publish(StateLaidOut)
	if fd, err = s.FD().Dup(); err != nil {
		t.Fatal(err)
	}
	again, err := OpenSegment(fd, Want{Kinds: []Kind{KindControl}, MaxSize: 1 << 20, CloseFD: true})
	if err != nil {
		t.Fatal(err)
	}
	if fds, maps, _ := count(); fds != 1 || maps != 2 {
		t.Errorf("%d descriptors, %d mappings; want 1 and 2", fds, maps)
	}
	if err := errors.Join(again.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	if fds, maps, _ := count(); fds != 0 || maps != 0 {
		t.Errorf("%d descriptors, %d mappings after the end", fds, maps)
	}
	if _, err := s.FD().Inode(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("a closed descriptor: %v", err)
	}
}

func TestParseMappings(t *testing.T) {
	const text = "7f00-7f10 rw-s 00000000 00:01 77 /memfd:a b (deleted)\n7f20-7f30 r--s 00000000 00:01 77 /memfd:a b (deleted)\n" +
		"7f40-7f50 r-xp 00000000 fe:01 12 /usr/bin/x\n7f60-7f70 rw-p 00000000 00:00 0\n"
	m, err := parseMappings(strings.NewReader(text))
	if err != nil || len(m) != 1 {
		t.Fatalf("%v, %v", m, err)
	}
	if got := m[Inode{1, 77}]; got.Count != 2 || got.Name != "/memfd:a" {
		t.Errorf("%+v", got)
	}
	if _, err := parseMappings(strings.NewReader("0-1 r--s 0 x:1 77 /memfd:a\n")); err == nil {
		t.Error("nonsense is read")
	}
}
