package shmio

import (
	"bytes"
	"math"
	"slices"
	"testing"

	"github.com/bhome-bus/bhome/wire"
)

// drain receives all there is and returns block by block; it yields the words' numbers.
func (p *pair) drain(t testing.TB, give bool) (got []uint64) {
	t.Helper()
	var rec Record
	for {
		ok, err := p.r.TryReceive(&rec)
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return got
		}
		if rec.IsBlock() {
			place, _, _ := rec.Word.Message()
			got = append(got, uint64(place/4-1))
			if give {
				p.r.Return(rec.Seq)
			}
		} else {
			got = append(got, uint64(rec.Word>>4))
		}
	}
}

func upTo(from, to uint64) (s []uint64) {
	for ; from < to; from++ {
		s = append(s, from)
	}
	return s
}

func TestStalledReaderSeesExactlyTheNewest(t *testing.T) {
	for _, first := range []uint64{0, math.MaxUint64 - 500} {
		p := newPair(t, RouteSpec{Slots: 64, Depth: 64, Out: 72, First: first})
		back := 0
		for i := range uint64(1000) {
			if o := p.w.Push(blockWord(i), 10, heldFunc(func(uint64) { back++ })); o != Sent {
				t.Fatal(i, o)
			}
			p.w.Commit()
		}
		if back != 936 || p.w.Dropped() != 936 || p.w.Out() != 64 || p.w.OutBytes() != 640 || p.w.Sent() != 1000 {
			t.Fatalf("%d back, %d dropped, %d out, %d sent", back, p.w.Dropped(), p.w.Out(), p.w.Sent())
		}
		if got := p.drain(t, true); !slices.Equal(got, upTo(936, 1000)) {
			t.Fatalf("got %d", got)
		}
		if n, err := p.w.Reclaim(); n != 64 || err != nil || p.w.Out() != 0 || p.w.BadReturns() != 0 || p.w.Dropped() != 936 {
			t.Fatalf("%d %v, %d out, %d bad", n, err, p.w.Out(), p.w.BadReturns())
		}
	}
}

func TestPolicies(t *testing.T) {
	for _, c := range []struct {
		policy  Policy
		fifth   Outcome
		want    []uint64
		dropped uint64
	}{
		{DropOldest, Sent, upTo(1, 5), 1},
		{DropNewest, DroppedNewest, upTo(0, 4), 1},
		{BlockOnFull, Full, upTo(0, 4), 0},
	} {
		p := newPair(t, RouteSpec{Slots: 8, Depth: 4, Out: 8, Policy: c.policy})
		for i := range uint64(4) {
			if o := p.w.Push(blockWord(i), 1, nil); o != Sent {
				t.Fatal(c.policy, o)
			}
		}
		if o := p.w.Push(blockWord(4), 1, nil); o != c.fifth {
			t.Errorf("%v: the fifth of four was %v", c.policy, o)
		}
		p.w.Commit()
		if got := p.drain(t, true); !slices.Equal(got, c.want) || p.w.Dropped() != c.dropped {
			t.Errorf("%v: got %d, %d dropped", c.policy, got, p.w.Dropped())
		}
		if o := p.w.PushCommand(cmdWord(7)); o != Sent {
			t.Errorf("%v: %v after all was read", c.policy, o)
		}
	}
}

func TestInlineRecordsWrapAround(t *testing.T) {
	p := newPair(t, RouteSpec{Slots: 64, Depth: 1, Out: 2, Policy: BlockOnFull, First: math.MaxUint64 - 200})
	var rec Record
	for n := 0; n <= wire.MaxInline; n++ {
		payload := bytes.Repeat([]byte{byte(n), 0xff}, (n+1)/2)[:n]
		in := wire.Inline{Kind: wire.KindReply, Topic: uint32(n), Seq: 7, Stamp: 9, Corr: uint64(n), Trace: [24]byte{1, 2, 3}}
		in.HasCorr, in.HasTrace = n%2 == 1, n%3 == 1
		if !in.HasCorr {
			in.Corr = 0
		}
		if !in.HasTrace {
			in.Trace = [24]byte{}
		}
		in.Len = n
		o := p.w.PushInline(in, payload)
		if in.Slots() > 2+wire.MaxInline/8 {
			if o != TooLarge {
				t.Fatalf("%d bytes and more: %v", n, o)
			}
			continue
		}
		p.w.Commit()
		ok, err := p.r.TryReceive(&rec)
		if o != Sent || !ok || err != nil || !rec.IsInline() || rec.Head != in.Head() || rec.Corr != in.Corr || !bytes.Equal(rec.Payload, payload) {
			t.Fatalf("%d bytes: %v %v %v %+v", n, o, ok, err, rec)
		}
	}
	if o := p.w.PushInline(wire.Inline{}, make([]byte, wire.MaxInline+1)); o != TooLarge {
		t.Error(o)
	}
}

func TestQuota(t *testing.T) {
	p := newPair(t, RouteSpec{Slots: 8, Depth: 4, Out: 8, Policy: DropNewest, Quota: 100})
	push := func(n uint64, size uint64, want Outcome) {
		t.Helper()
		if o := p.w.Push(blockWord(n), size, nil); o != want {
			t.Fatalf("%d bytes with %d out: %v", size, p.w.OutBytes(), o)
		}
		p.w.Commit()
	}
	push(0, 5000, Sent) // larger than the quota, but alone
	push(1, 1, DroppedNewest)
	p.drain(t, true)
	push(2, 60, Sent)
	push(3, 40, Sent)
	push(4, 1, DroppedNewest)
	push(5, math.MaxUint64, DroppedNewest)
	if o := p.w.PushCommand(cmdWord(1)); o != Sent {
		t.Fatal("a command costs no quota:", o)
	}
}

// TestQuotaIsTheReadersOwnLoss: what a reader holds can't be dropped, so unread messages aren't dropped in vain.
func TestQuotaIsTheReadersOwnLoss(t *testing.T) {
	p := newPair(t, RouteSpec{Slots: 8, Depth: 4, Out: 8, Policy: DropOldest, Quota: 100})
	var rec Record
	for i, size := range []uint64{80, 10, 10} {
		p.w.Push(blockWord(uint64(i)), size, nil)
	}
	p.w.Commit()
	if ok, err := p.r.TryReceive(&rec); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if o := p.w.Push(blockWord(3), 30, nil); o != DroppedNewest || p.w.Out() != 3 {
		t.Fatal(o, p.w.Out())
	}
	if o := p.w.Push(blockWord(4), 20, nil); o != Sent || p.w.Out() != 2 || p.w.Dropped() != 3 {
		t.Fatal(o, p.w.Out(), p.w.Dropped())
	}
	p.w.Commit()
	if got := p.drain(t, true); !slices.Equal(got, []uint64{4}) {
		t.Fatal(got)
	}
}

func TestHoldLimit(t *testing.T) {
	for _, policy := range []Policy{DropOldest, DropNewest, BlockOnFull} {
		p := newPair(t, RouteSpec{Slots: 4, Depth: 4, Out: 6, Policy: policy})
		for i := range uint64(3) {
			p.w.Push(blockWord(i), 1, nil)
		}
		p.w.Commit()
		if got := p.drain(t, false); !slices.Equal(got, upTo(0, 2)) || p.r.HeldCount() != 2 {
			t.Fatalf("%v: got %d, holds %d", policy, got, p.r.HeldCount())
		}
		p.r.Return(1)
		if got := p.drain(t, false); !slices.Equal(got, upTo(2, 3)) {
			t.Fatalf("%v: got %d after a return", policy, got)
		}
		p.w.PushCommand(cmdWord(3))
		p.w.Commit()
		if got := p.drain(t, false); len(got) == 1 != (policy != DropOldest) {
			t.Fatalf("%v: got %d while holding all there may be", policy, got)
		}
	}
}

func TestReturnsInAnyOrderTwiceAndInvented(t *testing.T) {
	p := newPair(t, RouteSpec{Slots: 8, Depth: 8, Out: 16, First: math.MaxUint64 - 3})
	back := map[uint64]int{}
	for i := range uint64(8) {
		p.w.Push(blockWord(i), 1, heldFunc(func(seq uint64) { back[seq]++ }))
	}
	p.w.Commit()
	p.drain(t, false)
	first := p.w.Spec().First
	for _, k := range []uint64{5, 5, 1, 7, 1, 3, 900} {
		p.r.Return(first + k)
	}
	if n, err := p.w.Reclaim(); n != 4 || err != nil || p.w.BadReturns() != 3 || p.w.Out() != 4 {
		t.Fatalf("%d %v, %d bad, %d out", n, err, p.w.BadReturns(), p.w.Out())
	}
	for _, k := range []uint64{0, 2, 4, 6} {
		p.r.Return(first + k)
	}
	if n, _ := p.w.Reclaim(); n != 4 || len(back) != 8 {
		t.Fatal(n, back)
	}
	for seq, n := range back {
		if n != 1 {
			t.Errorf("%#x came back %d times", seq, n)
		}
	}
}

func TestFullReturnRingWaitsInTheReader(t *testing.T) {
	p := newPair(t, RouteSpec{Slots: 2, Depth: 2, Out: 2, Policy: DropNewest})
	for i := range uint64(20) {
		p.r.Return(1000 + i) // invented: four fill the ring
	}
	p.w.Push(blockWord(0), 1, nil)
	p.w.Commit()
	var rec Record
	if ok, err := p.r.TryReceive(&rec); ok || err != nil {
		t.Fatal(ok, err, "more returns wait than an honest reader has")
	}
	for range 10 {
		p.w.Reclaim()
		if ok, _ := p.r.TryReceive(&rec); ok {
			p.r.Return(rec.Seq)
		}
	}
	if p.w.Out() != 0 || p.w.BadReturns() != 20 {
		t.Fatal(p.w.Out(), p.w.BadReturns())
	}
}

func TestWriterMaySendBeforeItJoins(t *testing.T) {
	p := halfPair(t, RouteSpec{Slots: 4, Depth: 4, Out: 8})
	for i := range uint64(10) {
		if o := p.w.Push(blockWord(i), 1, nil); o != Sent {
			t.Fatal(o)
		}
		p.w.Commit()
	}
	if err := p.r.Join(p.wmem, nil); err != nil {
		t.Fatal(err)
	}
	if got := p.drain(t, true); got != nil || !p.r.Arm() {
		t.Fatal("read before the writer joined", got)
	}
	if err := p.w.Join(p.rmem, p.toReader); err != nil {
		t.Fatal(err)
	}
	if p.toReader.n != 1 || p.toReader.hint != uint32(p.w.Spec().ID) {
		t.Fatal("the sleeping reader was not told of the joining", p.toReader)
	}
	if got := p.drain(t, true); !slices.Equal(got, upTo(6, 10)) {
		t.Fatal(got)
	}
	p.w.Reclaim()
	if p.w.Out() != 0 || p.w.BadReturns() != 0 {
		t.Fatal(p.w.Out(), p.w.BadReturns())
	}
}

func TestWhatADeadWriterSentIsRead(t *testing.T) {
	p := halfPair(t, RouteSpec{Slots: 4, Depth: 4, Out: 8})
	p.w.Push(blockWord(0), 1, nil)
	p.w.Commit()
	if err := p.r.Join(p.wmem, nil); err != nil {
		t.Fatal(err)
	}
	p.r.SetPeerDead()
	if got := p.drain(t, true); !slices.Equal(got, upTo(0, 1)) {
		t.Fatal(got)
	}
}

func TestDeadReaderGivesAllBack(t *testing.T) {
	p := newPair(t, RouteSpec{Slots: 16, Depth: 16, Out: 32, First: 13})
	back := 0
	for i := range uint64(16) {
		p.w.Push(blockWord(i), 1, heldFunc(func(uint64) { back++ }))
	}
	p.w.Commit()
	p.drain(t, false)
	if n := p.w.ReclaimAll(); n != 16 || back != 16 || p.w.Out() != 0 || p.w.OutBytes() != 0 {
		t.Fatal(n, back, p.w.Out())
	}
	if o := p.w.Push(blockWord(0), 1, nil); o != Ended || p.w.Err() != nil {
		t.Fatal(o, p.w.Err())
	}
	ScanOut(p.wmem, func(seq uint64, _ wire.Word) { t.Errorf("%d is shown to be out", seq) })
}
