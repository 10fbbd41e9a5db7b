package shmio

import (
	"errors"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/bhome-bus/bhome/wire"
)

// piece is messages that were pushed as a run, or one alone.
type piece struct {
	left int // that are not released
	back int // times that it came back
}

// pushRun pushes what there is room for of k messages of one block; their words follow that of block id.
func pushRun(p *pair, id uint64, k int, size uint64) (*piece, []wire.Word) {
	x := &piece{}
	var words []wire.Word
	for i := range k {
		words = append(words, blockWord(id+uint64(i)).WithMore())
	}
	x.left = p.w.PushRun(words, blockWord(id), size, heldFunc(func(uint64) { x.back++ }))
	return x, words[:x.left]
}

// TestRunsAreTheirModel pushes runs among other blocks, takes them in batches of any size, and releases them in any order: what lies in one
// block comes back once, when its last message is released.
func TestRunsAreTheirModel(t *testing.T) {
	type message struct {
		word  wire.Word
		piece *piece
		seq   uint64
		run   *Run
	}
	rapid.Check(t, func(t *rapid.T) {
		slots := uint32(1) << rapid.IntRange(0, 5).Draw(t, "log2 slots")
		depth := rapid.Uint32Range(1, slots).Draw(t, "depth")
		spec := RouteSpec{
			ID: 7, Slots: slots, Depth: depth, Out: depth + rapid.Uint32Range(1, 8).Draw(t, "hold"),
			Policy: Policy(rapid.Uint32Range(1, 2).Draw(t, "policy")),
			First:  rapid.SampledFrom([]uint64{0, math.MaxUint64 - 10}).Draw(t, "first"),
		}
		p := newPair(t, spec)
		if rapid.Bool().Draw(t, "returns together") {
			returnTogether(p.w)
		}
		var unread, held []*message
		var pieces []*piece
		id := uint64(0)
		t.Repeat(map[string]func(*rapid.T){
			"push run": func(t *rapid.T) {
				k := rapid.IntRange(1, 6).Draw(t, "messages")
				x, words := pushRun(p, id, k, 100)
				id += uint64(k)
				if want := min(k, int(depth)-len(unread)); x.left != want {
					t.Fatalf("pushed %d of %d with %d of %d unread", x.left, k, len(unread), depth)
				}
				if x.left == 0 {
					return
				}
				pieces = append(pieces, x)
				for i, w := range words {
					if i == len(words)-1 {
						w = w.Alone()
					}
					unread = append(unread, &message{word: w, piece: x})
				}
			},
			"push one": func(t *rapid.T) {
				x := &piece{left: 1}
				w := blockWord(id)
				if p.w.PushOf(w, w, 100, heldFunc(func(uint64) { x.back++ })) == Sent {
					pieces = append(pieces, x)
					unread = append(unread, &message{word: w, piece: x})
				}
				id++
			},
			"receive": func(t *rapid.T) {
				p.w.Commit()
				recs := []*Record{{}, {}, {}, {}}[:rapid.IntRange(1, 4).Draw(t, "batch")]
				for _, rec := range recs {
					rec.Payload = []byte("of the message that was here before")
				}
				n, err := 1, error(nil)
				if len(recs) == 1 {
					var ok bool
					if ok, err = p.r.TryReceive(recs[0]); !ok {
						n = 0
					}
				} else {
					n, err = p.r.TryReceiveBatch(recs)
				}
				if err != nil {
					t.Fatal(err)
				}
				room := int(spec.holdLimit()) - len(held)
				if (n > 0) != (len(unread) > 0 && room > 0) || n > room {
					t.Fatalf("received %d of %d unread, with %d held", n, len(unread), len(held))
				}
				for _, rec := range recs[:n] {
					m := unread[0]
					unread = unread[1:]
					if rec.Word != m.word {
						t.Fatalf("received %#x, want %#x", rec.Word, m.word)
					}
					if rec.Run() != recs[0].Run() || rec.Payload != nil {
						t.Fatal("messages of a run come with others, or with the bytes of others")
					}
					m.seq, m.run = rec.Seq, rec.Run()
					held = append(held, m)
				}
			},
			"release": func(t *rapid.T) {
				together := map[*Run]int{}
				k := rapid.IntRange(0, len(held)).Draw(t, "how many")
				for range k {
					i := rapid.IntRange(0, len(held)-1).Draw(t, "which")
					m := held[i]
					held = slices.Delete(held, i, i+1)
					m.piece.left--
					if m.run != nil {
						together[m.run]++
					} else {
						p.r.Return(m.seq)
					}
				}
				for run, n := range together {
					p.r.ReturnRun(run, n)
				}
			},
			"": func(t *rapid.T) {
				if _, err := p.w.Reclaim(); err != nil {
					t.Fatal(err)
				}
				out := 0
				for _, x := range pieces {
					if want := map[bool]int{true: 1}[x.left == 0]; x.back != want {
						t.Fatalf("%d of a block's messages are not released, and it came back %d times", x.left, x.back)
					}
					if x.left > 0 {
						out++
					}
				}
				if p.w.Out() != out || p.w.OutBytes() != uint64(100*out) || p.r.HeldCount() != len(held) || p.w.Unread() != len(unread) || p.w.BadReturns() != 0 {
					t.Fatalf("%d out, %d bytes, %d held, %d unread, %d bad returns; want %d, %d, %d", p.w.Out(), p.w.OutBytes(), p.r.HeldCount(), p.w.Unread(),
						p.w.BadReturns(), out, len(held), len(unread))
				}
			},
		})
	})
}

// What is released before the rest has come waits for it.
func TestRunReleasedOneByOne(t *testing.T) {
	p := newPair(t, RouteSpec{ID: 7, Slots: 8, Depth: 8, Out: 16, Policy: BlockOnFull})
	for round := range 3 {
		x, _ := pushRun(p, uint64(10*round), 5, 100)
		p.w.Commit()
		var rec Record
		for i := range 5 {
			if ok, err := p.r.TryReceive(&rec); !ok || err != nil {
				t.Fatal(ok, err)
			}
			p.r.ReturnRecord(&rec)
			p.w.Reclaim()
			if x.back != i/4 {
				t.Errorf("after %d of 5: came back %d times", i+1, x.back)
			}
		}
		if len(p.r.runs) != 1 {
			t.Errorf("%d runs to be used again", len(p.r.runs))
		}
	}
}

// A block whose messages found room in two parts comes back once for each: the sender knows whose it is.
func TestRunInTwoParts(t *testing.T) {
	p := newPair(t, RouteSpec{ID: 7, Slots: 8, Depth: 4, Out: 16, Policy: DropNewest})
	x, _ := pushRun(p, 0, 6, 100)
	p.w.Commit()
	recs := []*Record{{}, {}, {}, {}}
	if n, err := p.r.TryReceiveBatch(recs); x.left != 4 || n != 4 || err != nil {
		t.Fatal(x.left, n, err)
	}
	y, _ := pushRun(p, 4, 2, 100)
	p.w.Commit()
	if p.w.Out() != 2 || y.left != 2 {
		t.Errorf("%d out", p.w.Out())
	}
	p.r.ReturnRun(recs[0].Run(), 4)
	if n, err := p.r.TryReceiveBatch(recs); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	p.w.Reclaim()
	if x.back != 1 || y.back != 0 {
		t.Error(x.back, y.back)
	}
	p.r.ReturnRecord(recs[0])
	p.r.ReturnRecord(recs[1])
	p.w.Reclaim()
	if y.back != 1 || p.w.Out() != 0 {
		t.Error(y.back, p.w.Out())
	}
}

// A run that doesn't end keeps nothing but itself from its sender; where the oldest is dropped there are none.
func TestRunsOfAHostileWriter(t *testing.T) {
	p := newPair(t, RouteSpec{ID: 7, Slots: 4, Depth: 4, Out: 8, Policy: BlockOnFull})
	var rec Record
	for i := range uint64(100) {
		p.w.ring[i&3] = uint64(blockWord(i).WithMore())
		p.w.half.tail.Store(i + 1)
		if ok, err := p.r.TryReceive(&rec); !ok || err != nil {
			t.Fatal(ok, err)
		}
		p.r.ReturnRecord(&rec)
	}
	if p.r.HeldCount() != 0 || p.r.retTail != 0 || len(p.r.runs) != 0 {
		t.Errorf("%d held, %d returned, %d runs", p.r.HeldCount(), p.r.retTail, len(p.r.runs))
	}
	if !p.r.Leave() {
		t.Error("it can't be left")
	}
	p = newPair(t, RouteSpec{ID: 7, Slots: 4, Depth: 4, Out: 8, Policy: DropOldest})
	if x, _ := pushRun(p, 0, 2, 100); x.left != 0 {
		t.Errorf("%d of a run pushed where the oldest is dropped", x.left)
	}
	p.w.ring[0] = uint64(blockWord(0).WithMore())
	p.w.half.tail.Store(1)
	if ok, err := p.r.TryReceive(&rec); ok || !errors.Is(err, ErrCorruptRoute) {
		t.Errorf("received %v, %v", ok, err)
	}
}
