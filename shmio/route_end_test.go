package shmio

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/bhome-bus/bhome/wire"
)

// endSpecs are routes of every policy, whose cursors wrap.
func endSpecs() map[string]RouteSpec {
	specs := map[string]RouteSpec{}
	for _, policy := range []Policy{DropOldest, DropNewest, BlockOnFull} {
		for _, depth := range []uint32{1, 4} {
			specs[fmt.Sprintf("%v depth %d", policy, depth)] = RouteSpec{Slots: 4 * depth, Depth: depth, Out: depth + 2, Policy: policy, First: math.MaxUint64 - 1}
		}
	}
	return specs
}

// fill pushes a block and as many inline messages as there is room for besides.
func (p *pair) fill(t *testing.T) {
	t.Helper()
	if o := p.w.Push(blockWord(1), 1, nil); o != Sent {
		t.Fatal(o)
	}
	for range p.w.spec.Depth - 1 {
		if o := p.w.PushInline(wire.Inline{}, nil); o != Sent {
			t.Fatal(o)
		}
	}
}

// readAll reads what there is, and returns how many messages that were and the blocks among them.
func (p *pair) readAll(t *testing.T) (n int, seqs []uint64) {
	t.Helper()
	var rec Record
	for {
		ok, err := p.r.TryReceive(&rec)
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return n, seqs
		}
		n++
		if rec.IsBlock() {
			seqs = append(seqs, rec.Seq)
		}
	}
}

// What was pushed before End, staged or not, is read to the end; nothing is pushed after it, and only then is the writer's half
// known to be over.
func TestEnd(t *testing.T) {
	for name, spec := range endSpecs() {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, spec)
			p.fill(t)
			p.r.Arm()
			if p.r.WriterOver() {
				t.Fatal("it is over before End")
			}
			p.w.End()
			p.w.End()
			if !p.r.WriterOver() || p.r.WriterClosed() || p.w.Err() != nil {
				t.Fatalf("over %v, closed %v, %v", p.r.WriterOver(), p.r.WriterClosed(), p.w.Err())
			}
			if p.toReader.n != 1 {
				t.Errorf("the sleeping reader was rung %d times", p.toReader.n)
			}
			if o := p.w.Push(blockWord(2), 1, nil); o != Ended {
				t.Errorf("pushing after End: %v", o)
			}
			if o := p.w.PushInline(wire.Inline{}, nil); o != Ended {
				t.Errorf("pushing after End: %v", o)
			}
			n, seqs := p.readAll(t)
			if n != int(spec.Depth) || len(seqs) != 1 {
				t.Fatalf("%d messages, %d of them blocks", n, len(seqs))
			}
			p.r.Return(seqs...)
			if p.w.Out() != 1 {
				t.Error("the block is back before Reclaim")
			}
			if n, err := p.w.Reclaim(); n != 1 || err != nil || p.w.Unread() != 0 {
				t.Errorf("%d came back (%v), %d unread", n, err, p.w.Unread())
			}
		})
	}
}

// End wakes a sender that waits for room: it will get none.
func TestEndWakesWhoWaitsForSpace(t *testing.T) {
	p := newPair(t, RouteSpec{Slots: 1, Depth: 1, Out: 3, Policy: BlockOnFull})
	p.w.Push(blockWord(1), 1, nil)
	if o := p.w.Push(blockWord(2), 1, nil); o != Full || !p.w.ArmSpace() {
		t.Fatal(o)
	}
	p.w.End()
	select {
	case <-p.w.SpaceC():
	default:
		t.Error("nobody is woken")
	}
}

// A route that ends before its ends know each other's halves is introduced yet, and read. One that is closed isn't.
func TestJoinAfterEnd(t *testing.T) {
	for name, spec := range endSpecs() {
		t.Run(name, func(t *testing.T) {
			p := halfPair(t, spec)
			p.fill(t)
			p.w.End()
			if p.w.ReaderLeft() || p.r.WriterOver() {
				t.Fatal("an end that isn't known has ended")
			}
			if err := p.r.Join(p.wmem, p.toWriter); err != nil {
				t.Fatal(err)
			}
			if n, _ := p.readAll(t); n != 0 {
				t.Fatalf("%d messages before the writer has joined", n)
			}
			if err := p.w.Join(p.rmem, p.toReader); err != nil {
				t.Fatal(err)
			}
			n, seqs := p.readAll(t)
			if n != int(spec.Depth) || !p.r.WriterOver() {
				t.Fatalf("%d messages, over %v", n, p.r.WriterOver())
			}
			p.r.Return(seqs...)
			if !p.r.Leave() || !p.w.ReaderLeft() {
				t.Error("the reader can't leave")
			}
			for what, end := range map[string]func(w *Writer){"Close": (*Writer).Close, "End, Close": func(w *Writer) { w.End(); w.Close() },
				"ReclaimAll": func(w *Writer) { w.ReclaimAll() }} {
				p := halfPair(t, spec)
				end(p.w)
				if err := p.w.Join(p.rmem, p.toReader); !errors.Is(err, errEnded) {
					t.Errorf("Join after %s: %v", what, err)
				}
			}
		})
	}
}

// A reader leaves once: when it holds nothing and all that it returned can be seen; what it returned before is there.
func TestLeave(t *testing.T) {
	for name, spec := range endSpecs() {
		t.Run(name, func(t *testing.T) {
			p := halfPair(t, spec)
			if p.r.Leave() {
				t.Fatal("it has left what it doesn't know")
			}
			if err := errors.Join(p.r.Join(p.wmem, p.toWriter), p.w.Join(p.rmem, p.toReader)); err != nil {
				t.Fatal(err)
			}
			p.fill(t)
			p.w.End()
			_, seqs := p.readAll(t)
			if p.r.Leave() || p.w.ReaderLeft() {
				t.Fatal("it has left with a block in its hands")
			}
			p.r.Return(seqs...)
			if p.w.ReaderLeft() {
				t.Fatal("it has left without a word")
			}
			for range 2 {
				if !p.r.Leave() || !p.w.ReaderLeft() {
					t.Fatal("it can't leave, or not twice")
				}
			}
			if n, err := p.w.Reclaim(); n != 1 || err != nil || p.w.Out() != 0 {
				t.Errorf("%d came back (%v)", n, err)
			}
			p.r.Return(seqs...) // too late for anybody
			if n, err := p.w.Reclaim(); n != 0 || err != nil || p.w.BadReturns() != 0 {
				t.Errorf("after it has left: %d came back (%v), %d bad returns", n, err, p.w.BadReturns())
			}
		})
	}
}

// Returns that the writer has no room for keep the reader from leaving: they would be lost.
func TestLeaveWaitsForReturns(t *testing.T) {
	p := newPair(t, RouteSpec{Slots: 8, Depth: 4, Out: 8, Policy: DropNewest})
	back := 0
	const inventions = 24
	for i := range uint64(inventions) { // no Reclaim: the ring of returns gets full
		p.r.Return(1<<40 + i)
	}
	p.w.Push(blockWord(1), 1, heldFunc(func(uint64) { back++ }))
	p.w.End()
	_, seqs := p.readAll(t)
	p.r.Return(seqs...)
	if len(seqs) != 1 || len(p.r.backlog) == 0 {
		t.Fatal("nothing waits")
	}
	for range 10 {
		if p.r.Leave() {
			break
		}
		if p.w.ReaderLeft() || back != 0 {
			t.Fatal("it has left, and says it has not")
		}
		if _, err := p.w.Reclaim(); err != nil {
			t.Fatal(err)
		}
	}
	if !p.w.ReaderLeft() {
		t.Fatal("it doesn't leave")
	}
	if _, err := p.w.Reclaim(); err != nil || back != 1 || p.w.BadReturns() != inventions {
		t.Errorf("%d came back (%v), %d bad returns", back, err, p.w.BadReturns())
	}
}

// Settled is the reader's word that the drops it found are counted by the writer.
func TestSettled(t *testing.T) {
	p := newPair(t, RouteSpec{Slots: 4, Depth: 1, Out: 3})
	if !p.r.Settled() {
		t.Error("nothing was returned, and it waits")
	}
	p.w.Push(blockWord(1), 1, nil)
	p.w.Commit()
	_, seqs := p.readAll(t)
	p.r.Return(seqs...)
	if p.r.Settled() {
		t.Error("settled before Reclaim")
	}
	if _, err := p.w.Reclaim(); err != nil || !p.r.Settled() {
		t.Error(err, p.r.Settled())
	}
	// The next message goes under the reader's hand: the writer counts it once it hears that the reader found it gone.
	p.w.Push(blockWord(2), 1, nil)
	p.w.Commit()
	skipping, pushed, found := make(chan bool), make(chan bool), make(chan bool)
	p.r.step = func(point string) {
		if point == "return" {
			p.r.step = nil
			skipping <- true
			<-pushed
		}
	}
	p.w.step = func(point string) {
		if point == "claim" {
			p.w.step = nil
			go func() {
				var rec Record
				ok, err := p.r.TryReceive(&rec)
				found <- ok || err != nil
			}()
			<-skipping
		}
	}
	p.w.Push(blockWord(3), 1, nil)
	p.w.Commit()
	close(pushed)
	if ok := <-found; ok || p.r.Settled() || p.r.Dropped() != 0 {
		t.Errorf("found %v, settled %v, %d dropped", ok, p.r.Settled(), p.r.Dropped())
	}
	if _, err := p.w.Reclaim(); err != nil || !p.r.Settled() || p.r.Dropped() != 1 {
		t.Error(err, p.r.Settled(), p.r.Dropped())
	}
	p.r.Return(1 << 40)
	if p.r.SetPeerDead(); !p.r.Settled() {
		t.Error("it waits for the dead")
	}
}

// After Leave the memory is another route's, or holds anything: a reader that is polled on finds nothing in it, and says nothing of it.
func TestNothingIsReadAfterLeave(t *testing.T) {
	for name, spec := range endSpecs() {
		for what, reuse := range map[string]func(t *testing.T, p *pair){
			"another route": func(t *testing.T, p *pair) {
				p.w.Close()
				spec := p.w.spec
				spec.ID++
				w, err := NewWriter(p.wmem, spec)
				if err != nil {
					t.Fatal(err)
				}
				next := halfPair(t, spec)
				if err := w.Join(next.rmem, nil); err != nil {
					t.Fatal(err)
				}
				for i := range uint64(3 * spec.Depth) {
					w.Push(blockWord(100+i), 1, nil)
				}
				w.Commit()
			},
			"rubbish": func(_ *testing.T, p *pair) {
				for i := range p.wmem {
					p.wmem[i] = byte(i*7 + 3)
				}
			},
			"its own, with rubbish in it": func(_ *testing.T, p *pair) { // hostile: it is still said to be this route's
				for i := range p.wmem[128:512] {
					p.wmem[128+i] = byte(i*7 + 3)
				}
				p.w.half.joined.Store(p.r.id)
			},
		} {
			t.Run(name+", "+what, func(t *testing.T) {
				p := newPair(t, spec)
				p.fill(t)
				p.w.End()
				_, seqs := p.readAll(t)
				p.r.Return(seqs...)
				if !p.r.Leave() || !p.w.ReaderLeft() {
					t.Fatal("it can't leave")
				}
				reader := slices.Clone(p.rmem)
				reuse(t, p)
				rung := p.toWriter.n
				for _, dead := range []bool{false, true} {
					if dead {
						p.r.SetPeerDead()
					}
					var rec Record
					recs := []*Record{&rec, new(Record)}
					for range 3 {
						if ok, err := p.r.TryReceive(&rec); ok || err != nil {
							t.Fatalf("it reads %+v, %v", rec, err)
						}
						if n, err := p.r.TryReceiveBatch(recs); n != 0 || err != nil {
							t.Fatalf("it reads %d messages, %v", n, err)
						}
						if !p.r.Arm() {
							t.Fatal("it finds something to read")
						}
						p.r.Disarm()
						p.r.Return(spec.First)
						if !p.r.Leave() {
							t.Fatal("it is back")
						}
					}
				}
				if !slices.Equal(p.rmem, reader) || p.toWriter.n != rung {
					t.Errorf("it has written, or rung %d times", p.toWriter.n-rung)
				}
			})
		}
	}
}

// What the other end says of another route's end, or of nothing's, isn't this route's.
func TestEndsOfOthers(t *testing.T) {
	for _, id := range []uint64{0, 1, 0x1234567800000043, math.MaxUint64} {
		p := newPair(t, RouteSpec{Slots: 4, Depth: 2, Out: 4})
		p.w.half.over.Store(id)
		if p.r.WriterOver() {
			t.Errorf("the end of route %#x is believed to be this one's", id)
		}
		p.w.Push(blockWord(1), 1, nil)
		p.w.Commit()
		if n, _ := p.readAll(t); n != 1 {
			t.Errorf("%d messages", n)
		}
		p.r.half.left.Store(id)
		if p.w.ReaderLeft() {
			t.Errorf("that route %#x is left is believed to be said of this one", id)
		}
	}
	// A reader that says it has left and reads on: what it does not return stays out, and its returns are still checked.
	p := newPair(t, RouteSpec{Slots: 4, Depth: 2, Out: 4})
	p.w.Push(blockWord(1), 1, nil)
	p.w.Commit()
	p.r.half.left.Store(p.r.id)
	if !p.w.ReaderLeft() || p.w.Out() != 1 || p.w.Unread() != 1 {
		t.Errorf("left %v, %d out, %d unread", p.w.ReaderLeft(), p.w.Out(), p.w.Unread())
	}
	p.r.half.returnedTail.Store(1 << 40)
	if _, err := p.w.Reclaim(); !errors.Is(err, ErrCorruptRoute) {
		t.Error(err)
	}
	// A writer half that is another's altogether is over.
	p = newPair(t, RouteSpec{Slots: 4, Depth: 2, Out: 4})
	p.w.half.routeID.Store(9)
	if !p.r.WriterOver() || !p.r.WriterClosed() {
		t.Error("a half that is another route's isn't over")
	}
}
