package procfs

import (
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestOfOurselves(t *testing.T) {
	before := Of(os.Getpid())
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	mem := make([]byte, 64<<20)
	for i := range mem {
		mem[i] = 1
	}
	for Of(os.Getpid()).CPU == before.CPU { // 10 ms of work
	}
	now := Of(os.Getpid())
	if now.FDs <= before.FDs || now.Private < before.Private+32<<20 || now.RSS < now.Private || now.Threads < 1 || now.CPU <= 0 || now.CPU > time.Hour {
		t.Errorf("before %+v, now %+v", before, now)
	}
	if share := Share(os.Getpid()); share < 64<<20 || share > now.RSS+1<<20 {
		t.Errorf("a share of %d bytes of %d", share, now.RSS)
	}
	_ = mem[len(mem)-1]
}

// What a memfd takes is seen at once in what its process has, and once however many descriptors there are; a page that was
// never touched takes nothing.
func TestMemory(t *testing.T) {
	const touched, slack = 8 << 20, 1 << 20 // the kernel adds up what each core has counted, now and then
	before, err := MemoryOf(os.Getpid())
	noErr(t, err)
	fds, err := Memfds(os.Getpid())
	noErr(t, err)
	fd, err := unix.MemfdCreate("procfs-test", unix.MFD_CLOEXEC)
	noErr(t, err)
	defer unix.Close(fd)
	second, err := unix.Dup(fd)
	noErr(t, err)
	defer unix.Close(second)
	noErr(t, unix.Ftruncate(fd, 4*touched))
	mem, err := unix.Mmap(fd, 0, 4*touched, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	noErr(t, err)
	defer unix.Munmap(mem)
	for i := 0; i < touched; i += 4096 {
		mem[i] = 1
	}
	now, err := MemoryOf(os.Getpid())
	noErr(t, err)
	after, err := Memfds(os.Getpid(), os.Getpid())
	noErr(t, err)
	if after-fds != touched {
		t.Errorf("the memfd takes %d bytes, want %d", after-fds, touched)
	}
	if got := now.Shmem - before.Shmem; got < touched-slack || got >= 2*touched || now.RSS != now.Anon+now.File+now.Shmem || now.PSS <= 0 || now.PSS > now.RSS+slack {
		t.Errorf("before %+v, now %+v", before, now)
	}
}

func TestMemoryOfNobody(t *testing.T) {
	if m, err := MemoryOf(1 << 30); !errors.Is(err, os.ErrNotExist) || m != (Memory{}) {
		t.Errorf("%+v, %v", m, err)
	}
	if n, err := Memfds(1 << 30); !errors.Is(err, os.ErrNotExist) || n != 0 {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := Look(1 << 30); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func noErr(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestOfNobody(t *testing.T) {
	if u := Of(1 << 30); u != (Use{}) {
		t.Errorf("%+v", u)
	}
	if share := Share(1 << 30); share != 0 {
		t.Errorf("a share of %d bytes", share)
	}
}
