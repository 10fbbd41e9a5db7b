package procfs

import (
	"os"
	"testing"
	"time"
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

func TestOfNobody(t *testing.T) {
	if u := Of(1 << 30); u != (Use{}) {
		t.Errorf("%+v", u)
	}
	if share := Share(1 << 30); share != 0 {
		t.Errorf("a share of %d bytes", share)
	}
}
