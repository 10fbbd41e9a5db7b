package shmio

import (
	"runtime/debug"
	"runtime/metrics"
	"sync/atomic"
)

// Garbage has the Go runtime give memory back after a burst. A program that allocates little is collected every two minutes
// only, and the runtime returns to the kernel what a collection has found free: so what the records of a burst took would
// stay for minutes. Let says how much was let go; Collect collects if that is worth it. The zero value is ready. Both are safe
// for concurrent use.
type Garbage struct {
	bytes atomic.Uint64 // let go and not known to be collected; pairs with itself: who swaps it out collects
	again atomic.Int32  // collections that are still to follow the last; pairs with itself
	heap  atomic.Uint64 // bytes of objects when that was decided; pairs with itself
}

// Worth a collection is garbage of at least so many bytes, and at least one in so many of the heap: a large program's heap
// isn't marked for a few of ours.
const (
	garbageLeast = 256 << 10
	garbageShare = 8
)

// afterwards is how many collections follow one that was worth it: each at most halves the stacks of goroutines that went deep and
// now wait, from 8 KiB to the 2 that they begin with.
const afterwards = 2

// Let counts bytes of heap that nothing refers to any more.
func (g *Garbage) Let(bytes int) { g.bytes.Add(uint64(max(bytes, 0))) }

// Due tells whether Collect would look at the heap; it takes nanoseconds. What isn't worth a collection now may be when the heap is smaller.
func (g *Garbage) Due() bool { return g.bytes.Load() >= garbageLeast || g.again.Load() > 0 }

// Collect runs the garbage collector if enough was let go, or was lately, gives back what is free, and reports whether it did. It takes
// milliseconds, with a large heap more, in which other goroutines go on.
func (g *Garbage) Collect() bool {
	n, left := g.bytes.Load(), g.again.Load()
	if n < garbageLeast && left == 0 {
		return false
	}
	heap := heapBytes()
	if n < garbageLeast {
		if heap > 2*g.heap.Load() {
			g.again.Store(0) // another burst has begun: there is much to mark now
			return false
		}
		if !g.again.CompareAndSwap(left, left-1) {
			return false
		}
		debug.FreeOSMemory()
		return true
	}
	if n < heap/garbageShare {
		return false
	}
	if g.bytes.Swap(0) < garbageLeast {
		return false // somebody else does it
	}
	g.heap.Store(heap)
	g.again.Store(afterwards)
	debug.FreeOSMemory() // runtime.GC leaves it to the scavenger, which sleeps while the program does
	return true
}

// heapBytes is how much of the heap objects take, those that nothing refers to any more among them.
func heapBytes() uint64 {
	heap := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(heap)
	if heap[0].Value.Kind() != metrics.KindUint64 {
		return 0 // it isn't told
	}
	return heap[0].Value.Uint64()
}
