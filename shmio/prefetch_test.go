package shmio

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bhome-bus/bhome/wire"
)

// What is asked for may lie at the end of a mapping, beyond it, or nowhere; it isn't changed.
func TestPrefetch(t *testing.T) {
	mem, err := unix.Mmap(-1, 0, 1<<16, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mem)
	for i := range mem {
		mem[i] = byte(i)
	}
	want := bytes.Clone(mem)
	for _, n := range []int{0, 1, 63, 64, 65, len(mem)} {
		WillWrite(mem[:n])
		WillWrite(mem[len(mem)-n:])
	}
	prefetchRead(&mem[len(mem)-1], 1<<20)
	prefetchWrite(&mem[len(mem)-1], 1<<20)
	if !bytes.Equal(mem, want) {
		t.Error("the memory is changed")
	}

	sp := NewSpace()
	seg, err := HeapSegment(SegmentSpec{Kind: KindData, Size: 1 << 16, Base: 256})
	if err == nil {
		err = sp.Add(seg)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range []wire.Word{0, ^wire.Word(0), 256 << 4, (256 + 1<<12 - 4) << 4, (256 + 1<<12) << 4, 1<<35 | 256<<4} {
		sp.WillRead(w, 1000)
	}
}
