package shmio

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func procMaps(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/maps")
	noErr(t, err)
	return string(b)
}

// rawMemfd is a memfd made by hand: header written by fill, then sealed as told.
func rawMemfd(t *testing.T, flags int, size int64, seals int, fill func(m []byte)) int {
	t.Helper()
	fd, err := unix.MemfdCreate("raw", flags|unix.MFD_CLOEXEC)
	if flags&unix.MFD_HUGETLB != 0 && err != nil {
		t.Skip("no huge pages here:", err)
	}
	noErr(t, err)
	noErr(t, unix.Ftruncate(fd, size))
	if fill != nil {
		m := make([]byte, 4096)
		fill(m)
		_, err := unix.Pwrite(fd, m, 0)
		noErr(t, err)
	}
	if seals != 0 {
		_, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals)
		noErr(t, err)
	}
	return fd
}

// header fills in a good one, and then lets change spoil it.
func header(size uint64, change func(h *segmentHeader)) func([]byte) {
	return func(m []byte) {
		h := view[segmentHeader](m, 0)
		h.Magic, h.Kind, h.Size, h.PID = segmentMagic, uint32(KindData), size, 1
		h.Version.Store(1 << 16)
		if change != nil {
			change(h)
		}
	}
}

const testSize = 1 << 18 // a multiple of every page size

func TestIntakeRefuses(t *testing.T) {
	open := func(flags int) func(t *testing.T) int {
		return func(t *testing.T) int {
			path := filepath.Join(t.TempDir(), "file")
			noErr(t, os.WriteFile(path, []byte("x"), 0o600))
			fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
			noErr(t, err)
			return fd
		}
	}
	sealed := func(size int64, fill func([]byte)) func(t *testing.T) int {
		return func(t *testing.T) int { return rawMemfd(t, unix.MFD_ALLOW_SEALING, size, segmentSeals, fill) }
	}
	without := func(seal int) func(t *testing.T) int {
		return func(t *testing.T) int {
			return rawMemfd(t, unix.MFD_ALLOW_SEALING, testSize, segmentSeals&^seal, header(testSize, nil))
		}
	}
	bad := func(change func(h *segmentHeader)) func(t *testing.T) int {
		return sealed(testSize, header(testSize, change))
	}
	first := func(fd int, err error) func(t *testing.T) int {
		return func(t *testing.T) int { noErr(t, err); return fd }
	}
	pair := func(make func(p *[2]int) error) func(t *testing.T) int {
		return func(t *testing.T) int {
			var p [2]int
			noErr(t, make(&p))
			t.Cleanup(func() { unix.Close(p[1]) })
			return p[0]
		}
	}
	tests := map[string]struct {
		fd   func(t *testing.T) int
		want error
		says string
	}{
		"pipe":      {pair(func(p *[2]int) error { return unix.Pipe2(p[:], unix.O_CLOEXEC) }), ErrNotMemfd, "a pipe"},
		"directory": {first(unix.Open("/tmp", unix.O_RDONLY|unix.O_CLOEXEC, 0)), ErrNotMemfd, "a directory"},
		"file":      {open(unix.O_RDWR), ErrNotMemfd, "an ordinary file"},
		"path":      {open(unix.O_PATH), ErrNotMemfd, "an ordinary file"},
		"device":    {first(unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)), ErrNotMemfd, "a device"},
		"epoll":     {first(unix.EpollCreate1(unix.EPOLL_CLOEXEC)), ErrNotMemfd, "eventpoll"},
		"eventfd":   {first(unix.Eventfd(0, unix.EFD_CLOEXEC)), ErrNotMemfd, "eventfd"},
		"pidfd":     {first(unix.PidfdOpen(os.Getpid(), 0)), ErrNotMemfd, "pidfd"},
		"closed":    {first(1<<20, nil), ErrNotMemfd, "no open descriptor"},
		"socket": {pair(func(p *[2]int) (err error) {
			*p, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			return
		}), ErrNotMemfd, "a socket"},
		"hugetlb": {func(t *testing.T) int {
			return rawMemfd(t, unix.MFD_ALLOW_SEALING|unix.MFD_HUGETLB, 0, segmentSeals, nil)
		}, ErrNotMemfd, "hugetlb"},
		"unsealable": {func(t *testing.T) int { return rawMemfd(t, 0, testSize, 0, header(testSize, nil)) }, ErrNotSealed, "lacks FUTURE_WRITE, SHRINK, GROW"},
		"no seals":   {func(t *testing.T) int { return rawMemfd(t, unix.MFD_ALLOW_SEALING, testSize, 0, header(testSize, nil)) }, ErrNotSealed, "SEAL"},
		"writable":   {without(unix.F_SEAL_FUTURE_WRITE), ErrNotSealed, "lacks FUTURE_WRITE"},
		"shrinks":    {without(unix.F_SEAL_SHRINK), ErrNotSealed, "lacks SHRINK"},
		"grows":      {without(unix.F_SEAL_GROW), ErrNotSealed, "lacks GROW"},
		"unfinal":    {without(unix.F_SEAL_SEAL), ErrNotSealed, "lacks SEAL"},
		"empty":      {sealed(0, nil), ErrSegmentSize, "0 bytes"},
		"small":      {sealed(4096, header(4096, nil)), ErrSegmentSize, "4096 bytes"},
		"large":      {sealed(1<<20+testSize, header(1<<20+testSize, nil)), ErrSegmentSize, "to 1048576 are acceptable"},
		"odd size":   {sealed(testSize+1, header(testSize+1, nil)), ErrSegmentSize, "page size"},
		"lies":       {bad(func(h *segmentHeader) { h.Size = testSize * 2 }), ErrSegmentSize, "the header says 524288 bytes"},
		"sparse":     {sealed(testSize, nil), ErrBadSegment, "magic 0x0"},
		"magic":      {bad(func(h *segmentHeader) { h.Magic++ }), ErrBadSegment, "magic"},
		"unready":    {bad(func(h *segmentHeader) { h.Version.Store(0) }), ErrBadSegment, "published"},
		"major":      {bad(func(h *segmentHeader) { h.Version.Store(2<<16 | 7) }), ErrIncompatibleABI, "ours is 1.0, theirs 2.7"},
		"kind":       {bad(func(h *segmentHeader) { h.Kind = uint32(KindLink) }), ErrBadSegment, "it is a link segment"},
		"no kind":    {bad(func(h *segmentHeader) { h.Kind = 99 }), ErrBadSegment, "Kind(99)"},
		"base":       {bad(func(h *segmentHeader) { h.Base = 128 }), ErrBadSegment, "multiples of 256"},
		"beyond":     {bad(func(h *segmentHeader) { h.Base = 1<<31 - 256 }), ErrBadSegment, "below place"},
		"wraps":      {bad(func(h *segmentHeader) { h.Base = 1<<32 - 256 }), ErrBadSegment, "below place"},
		"generation": {bad(func(h *segmentHeader) { h.Generation = 8192 }), ErrBadSegment, "generation 8192"},
		"misplaced":  {bad(func(h *segmentHeader) { h.Kind, h.Base = uint32(KindProcess), 256 }), ErrBadSegment, "with base 0x100"},
	}
	for name, c := range tests {
		t.Run(name, func(t *testing.T) {
			fd := NewFD(c.fd(t))
			s, err := OpenSegment(fd, Want{Kinds: []Kind{KindData, KindProcess}, MaxSize: 1 << 20})
			if err == nil {
				s.Close()
				t.Fatal("it is accepted")
			}
			wantErr(t, err, c.want, c.says)
			if fd.Int() != -1 {
				t.Error("the descriptor is kept")
			}
		})
	}
}

func TestIntakeLeavesNothing(t *testing.T) {
	checkLeaks(t)
	for range 50 {
		fd := rawMemfd(t, unix.MFD_ALLOW_SEALING, testSize, segmentSeals, header(testSize, func(h *segmentHeader) { h.Magic = 1 }))
		if _, err := OpenSegment(NewFD(fd), Want{Kinds: []Kind{KindData}}); !errors.Is(err, ErrBadSegment) {
			t.Fatal(err)
		}
	}
	for _, closeFD := range []bool{false, true} {
		fd := rawMemfd(t, unix.MFD_ALLOW_SEALING, testSize, segmentSeals, header(testSize, func(h *segmentHeader) { h.Version.Store(1<<16 | 9) }))
		s, err := OpenSegment(NewFD(fd), Want{Kinds: []Kind{KindData}, CloseFD: closeFD})
		noErr(t, err) // mostly a hole, and of a newer minor version
		if (s.FD() == nil) != closeFD || s.Writable() || s.Size() != testSize || s.Kind() != KindData {
			t.Errorf("with CloseFD %v: %+v", closeFD, s)
		}
		noErr(t, s.Close())
	}
	if n := strings.Count(procMaps(t), "memfd:raw"); n != 0 {
		t.Errorf("%d mappings are left", n)
	}
}

// violate tries every way to change what is sealed; each must fail.
func violate(fd int, size int) error {
	var errs []error
	refused := func(what string, err error) {
		if err == nil {
			errs = append(errs, fmt.Errorf("%s succeeds", what))
		}
	}
	tryFD := func(how string, fd int) {
		_, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		refused(how+": a writable mapping", err)
		_, err = unix.Pwrite(fd, []byte{1}, 0)
		refused(how+": pwrite", err)
		refused(how+": shrinking", unix.Ftruncate(fd, 4096))
		refused(how+": growing", unix.Ftruncate(fd, int64(size)*2))
		refused(how+": punching a hole", unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 4096))
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_WRITE)
		refused(how+": another seal", err)
		m, err := unix.Mmap(fd, 0, size, unix.PROT_READ, unix.MAP_SHARED)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: map read-only: %w", how, err))
			return
		}
		refused(how+": mprotect", unix.Mprotect(m, unix.PROT_READ|unix.PROT_WRITE))
		errs = append(errs, unix.Munmap(m))
	}
	tryFD("the descriptor", fd)
	for _, flags := range []int{unix.O_RDWR, unix.O_RDWR | unix.O_TRUNC} {
		again, err := unix.Open(procPath(fd), flags|unix.O_CLOEXEC, 0)
		if err != nil {
			continue // refused already
		}
		tryFD("reopened", again)
		errs = append(errs, unix.Close(again))
	}
	return errors.Join(errs...)
}

// childViolate has the segment at descriptor 3.
func childViolate([]string) error { return violate(3, testSize) }

func TestSealedAgainstAll(t *testing.T) {
	s := newSegment(t, SegmentSpec{Kind: KindProcess, Size: testSize})
	s.Publish(StateLaidOut)
	if err := violate(s.FD().Int(), testSize); err != nil {
		t.Error("in the owner itself:", err)
	}
	for name, uid := range map[string]uint32{"our uid": 0, "another uid": nobody} {
		t.Run(name, func(t *testing.T) {
			startChild(t, uid, "violate", nil, s.FD()).expect("done")
		})
	}
	s.Counter(1).Add(1) // and the owner still writes
	if m, err := s.Memory(0, testSize); err != nil || len(m) != testSize {
		t.Error(len(m), err)
	}
}

// A view that isn't sealed could be changed under the reader; here is the proof that violate can fail.
func TestViolateNoticesUnsealed(t *testing.T) {
	fd := rawMemfd(t, unix.MFD_ALLOW_SEALING, testSize, 0, nil)
	defer unix.Close(fd)
	if violate(fd, testSize) == nil {
		t.Error("nothing is noticed")
	}
}
