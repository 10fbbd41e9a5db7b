package actors

import (
	"testing"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio"
	"github.com/bhome-bus/bhome/wire"
)

// A route as a subscription of depth and hold 64 (the defaults) gets it takes less than 16 KiB of both ends together.
func TestRouteOfDepth64IsSmall(t *testing.T) {
	p := &pubSub{}
	o := p.openMsg(&psRoute{id: 1, sub: &subscription{msg: &bhomev1.Subscribe{Depth: 64, Hold: 64}}}, nil)
	spec := shmio.RouteSpec{ID: o.GetRoute(), Slots: o.GetSlots(), Depth: o.GetDepth(), Out: o.GetOut()}
	if err := spec.Validate(); err != nil {
		t.Fatal(err)
	}
	if size := spec.WriterSize() + spec.ReaderSize(); size >= 16<<10 {
		t.Errorf("it takes %d bytes", size)
	}
}

// From 1 KiB on, what a run of pages has besides blocks takes at most an eighth of it. (That a block wastes less than 12 % is
// tested in wire.)
func TestRunsWasteLittle(t *testing.T) {
	for class := range wire.AllocClasses {
		size := uint64(wire.GetAllocSize(class))
		if size < 1<<10 {
			continue
		}
		block := wire.BlockSize(uint8(class))
		run := runPages(block) * pageBytes
		if over := run % block; over*8 > run {
			t.Errorf("blocks of %d bytes lie in runs of %d, of which %d are left over", block, run, over)
		}
	}
}
