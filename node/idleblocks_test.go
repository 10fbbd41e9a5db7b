package node

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/bhome-bus/bhome/wire"
)

// What there is goes round, first in, first out, and what is beyond a few megabytes gets cold, the first first.
func TestIdleBlocksGoRound(t *testing.T) {
	class := uint8(wire.CalcAllocIndex(1 << 20)) // four of them go round
	bs := make([]*block, 7)
	for i := range bs {
		bs[i] = &block{class: class, size: i}
	}
	var q idleBlocks
	want := func(b *block, i int) {
		t.Helper()
		if b != bs[i] {
			t.Fatalf("block %d is next, want %d", b.size, i)
		}
	}
	for _, b := range bs[:3] {
		q.push(b)
	}
	for i := range 9 { // around the ring
		b := q.pop()
		want(b, i%3)
		q.push(b)
	}
	for _, b := range bs[3:] {
		q.push(b)
	}
	for _, i := range []int{3, 4, 5, 6, 2, 1, 0} { // 0, 1 and 2 are cold
		want(q.pop(), i)
	}
	if b := q.pop(); b != nil || q.len() != 0 {
		t.Fatalf("%v is left, %d blocks", b, q.len())
	}
}

// However blocks come and go none is lost or there twice, and all lists them as set takes them.
func TestIdleBlocksKeepAll(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	class := uint8(wire.CalcAllocIndex(64 << 10))
	var q idleBlocks
	idle := map[*block]bool{}
	var out []*block
	for range 300 {
		out = append(out, &block{class: class})
	}
	for range 20000 {
		switch {
		case rng.IntN(100) == 0:
			list := q.all()
			q.set(list)
			if !slices.Equal(q.all(), list) {
				t.Fatal("set makes another list of it")
			}
		case len(out) > 0 && rng.IntN(2) == 0:
			b := out[len(out)-1]
			out = out[:len(out)-1]
			q.push(b)
			idle[b] = true
		default:
			b := q.pop()
			if (b == nil) != (len(idle) == 0) || b != nil && !idle[b] {
				t.Fatalf("popped %v of %d blocks", b, len(idle))
			}
			if b != nil {
				delete(idle, b)
				out = append(out, b)
			}
		}
		if q.len() != len(idle) {
			t.Fatalf("%d blocks, want %d", q.len(), len(idle))
		}
	}
	for _, b := range q.all() {
		if !idle[b] {
			t.Fatal("a block is listed that isn't there, or twice")
		}
		delete(idle, b)
	}
	if len(idle) > 0 {
		t.Fatalf("%d blocks aren't listed", len(idle))
	}
}
