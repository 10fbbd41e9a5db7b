package shmio

import (
	"runtime"
	"runtime/debug"
	"testing"
)

func TestGarbage(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // nobody else collects
	collections := func() uint32 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.NumGC
	}
	heap := make([]byte, 64<<20)
	var g Garbage
	before := collections()
	g.Let(garbageLeast - 1)
	if g.Due() || g.Collect() {
		t.Error("collects for little")
	}
	g.Let(1 << 20)
	if g.Collect() || collections() != before {
		t.Error("marks a large heap for a small part of it")
	}
	g.Let(1 << 30)
	if !g.Collect() || collections() == before {
		t.Error("doesn't collect")
	}
	for range afterwards {
		if before = collections(); !g.Due() || !g.Collect() || collections() == before {
			t.Error("leaves the stacks as they are")
		}
	}
	if g.Due() || g.Collect() {
		t.Error("collects what is collected")
	}
	g.Let(1 << 30)
	if !g.Collect() {
		t.Error("doesn't collect")
	}
	more := make([]byte, 256<<20)
	for range afterwards {
		if g.Collect() {
			t.Error("marks a heap that has grown since")
		}
	}
	runtime.KeepAlive(more)
	runtime.KeepAlive(heap)
}
