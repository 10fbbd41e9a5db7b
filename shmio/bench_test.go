package shmio

import (
	"testing"

	"golang.org/x/sys/unix"
)

func BenchmarkSpaceBlock(b *testing.B) {
	for name, segments := range map[string]uint32{"1 segment": 1, "16 segments": 16} {
		b.Run(name, func(b *testing.B) {
			sp := NewSpace()
			for i := range segments {
				if err := sp.Add(dataSegment(b, i*8192, i, "payload", 4096)); err != nil {
					b.Fatal(err)
				}
			}
			last := segments - 1
			w := word(b, last*8192+256, uint16(last))
			b.ReportAllocs()
			var blk Block
			for b.Loop() {
				if err := sp.Block(w, &blk); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkBellRing(b *testing.B) {
	read, write, err := NewBell()
	if err != nil {
		b.Fatal(err)
	}
	defer read.Close()
	bell, err := OpenBell(write)
	if err != nil {
		b.Fatal(err)
	}
	defer bell.Close()
	b.Run("full", func(b *testing.B) { // after the first thousand: it rings already
		b.ReportAllocs()
		for b.Loop() {
			bell.Ring(1)
		}
	})
	buf := make([]byte, 65536)
	b.Run("and read", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			bell.Ring(1)
			if _, err := unix.Read(read.Int(), buf); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkCoarseNow(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		_ = CoarseNow()
	}
}

// Two reactors, each ringing the other: there and back.
func BenchmarkBellRoundTrip(b *testing.B) {
	done := make(chan struct{})
	left, right := mustReactor(b), mustReactor(b)
	var toLeft, toRight *Bell
	n, limit := 0, b.N
	_, toRight = bellTo(b, right, func(uint32) { toLeft.Ring(1) })
	_, toLeft = bellTo(b, left, func(uint32) {
		if n++; n == limit {
			close(done)
			return
		}
		toRight.Ring(1)
	})
	b.ReportAllocs()
	b.ResetTimer()
	toRight.Ring(1)
	<-done
}

func mustReactor(tb testing.TB) *Reactor {
	tb.Helper()
	r, err := NewReactor(0)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { r.Close() })
	return r
}

// bellTo is a new bell that r watches.
func bellTo(tb testing.TB, r *Reactor, on func(uint32)) (*Watch, *Bell) {
	tb.Helper()
	read, write, err := NewBell()
	if err != nil {
		tb.Fatal(err)
	}
	bell, err := OpenBell(write)
	if err != nil {
		tb.Fatal(err)
	}
	w, err := r.WatchBell(read, on)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { bell.Close(); w.Close() })
	return w, bell
}
