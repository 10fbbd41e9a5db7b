package shmio

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
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
	words := make([]wire.Word, k)
	ms := make([]Outgoing, k)
	for i := range k {
		words[i] = blockWord(id + uint64(i)).WithMore()
		ms[i].Word = words[i]
	}
	x.left, _ = p.w.PushRun(ms, blockWord(id), size, heldFunc(func(uint64) { x.back++ }))
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
				if p.w.Push(w, 100, heldFunc(func(uint64) { x.back++ })) == Sent {
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

// A run that never ends, or has something else in it, cuts its route; where the oldest is dropped there is none of more than one message.
func TestRunsOfAHostileWriter(t *testing.T) {
	spec := RouteSpec{ID: 7, Slots: 16, Depth: 10, Out: 20, Policy: BlockOnFull}
	more := func(i uint64) uint64 { return uint64(blockWord(i).WithMore()) }
	inline := wire.NewInlineHead(wire.KindPublish, 1, 8, 0).At(8, 1)
	control, err := wire.Control{}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		slots    []uint64
		received int
		says     string
	}{
		"endless":       {[]uint64{more(0), more(1), more(2), more(3), more(4), more(5), more(6), more(7), more(8), more(9), more(10)}, 10, "after 10 messages"},
		"with a record": {[]uint64{more(0), more(1), uint64(inline.First), inline.Meta, 0, uint64(blockWord(2))}, 2, "between the messages of a block"},
		"with a word":   {[]uint64{more(0), uint64(control), uint64(blockWord(1))}, 1, "between the messages of a block"},
		"with rubbish":  {[]uint64{more(0), more(1), 0x30, uint64(blockWord(1))}, 2, "slot 0x2"},
	} {
		for _, into := range []int{1, 3, 20} {
			t.Run(fmt.Sprint(name, "/", into), func(t *testing.T) {
				p := newPair(t, spec)
				copy(p.w.ring, c.slots)
				p.w.half.tail.Store(uint64(len(c.slots)))
				var received []*Record
				for {
					recs := make([]*Record, into)
					for i := range recs {
						recs[i] = new(Record)
					}
					n, err := 0, error(nil)
					if into > 1 {
						n, err = p.r.TryReceiveBatch(recs)
					} else if ok, e := p.r.TryReceive(recs[0]); ok {
						n = 1
					} else {
						err = e
					}
					received = append(received, recs[:n]...)
					if err != nil {
						if !errors.Is(err, ErrCorruptRoute) || !strings.Contains(err.Error(), c.says) {
							t.Error(err)
						}
						break
					}
					if n == 0 {
						t.Fatalf("after %d: neither a message nor an error", len(received))
					}
				}
				if len(received) > c.received || into == 1 && len(received) < c.received-1 {
					t.Errorf("%d messages before the error, want %d", len(received), c.received)
				}
				for _, rec := range received {
					p.r.ReturnRecord(rec)
				}
				if p.r.HeldCount() != 0 || p.r.retTail != 0 {
					t.Errorf("%d held, %d returned", p.r.HeldCount(), p.r.retTail)
				}
				if !p.r.Leave() {
					t.Error("it can't be left")
				}
			})
		}
	}
	spec.Policy = DropOldest
	p := newPair(t, spec)
	if x, _ := pushRun(p, 0, 2, 100); x.left != 1 {
		t.Errorf("%d of a run pushed where the oldest is dropped", x.left)
	}
	p.w.ring[0] = more(0)
	p.w.half.tail.Store(1)
	var rec Record
	if ok, err := p.r.TryReceive(&rec); ok || !errors.Is(err, ErrCorruptRoute) {
		t.Errorf("received %v, %v", ok, err)
	}
}
