package shmio

import (
	"errors"
	"testing"
)

func TestBellRingsOncePerSleep(t *testing.T) {
	p := newPair(t, RouteSpec{Slots: 8, Depth: 8, Out: 16, Policy: BlockOnFull})
	push := func() { p.w.PushCommand(cmdWord(1)); p.w.Commit() }
	push()
	if p.toReader.n != 0 {
		t.Fatal("rang a reader that is awake")
	}
	if p.r.Arm() {
		t.Fatal("Arm overlooked a message")
	}
	p.drain(t, true)
	p.r.Disarm()
	if !p.r.Arm() {
		t.Fatal("not empty?")
	}
	push()
	push()
	if p.toReader.n != 1 {
		t.Fatal("rang", p.toReader.n, "times")
	}
	p.r.Disarm()
	p.drain(t, true)
	p.r.Arm()
	push()
	if p.toReader.n != 2 {
		t.Fatal("rang", p.toReader.n, "times in two sleeps")
	}
}

// TestTwoGoroutinesRingOnce: one that reads is overtaken, while it looks whether a sender waits, by one that returns a
// block and rings for the sender's next wait. integration/models/space.pml found it (EPOCH_BEFORE_LAST).
func TestTwoGoroutinesRingOnce(t *testing.T) {
	p := newPair(t, RouteSpec{Slots: 2, Depth: 2, Out: 2, Policy: BlockOnFull})
	for i := range uint64(2) {
		p.w.Push(blockWord(i), 1, nil)
	}
	var rec Record
	if p.w.Push(blockWord(2), 1, nil) != Full || !p.w.ArmSpace() {
		t.Fatal("room?")
	}
	if ok, err := p.r.TryReceive(&rec); !ok || err != nil { // a quarter: it rings
		t.Fatal(ok, err)
	}
	first := rec.Seq
	if !p.w.ArmSpace() { // one is read, but both blocks are out
		t.Fatal("room?")
	}
	p.r.step = func(point string) {
		if point != "wantsSpace" {
			return
		}
		p.r.step = nil
		p.w.DisarmSpace() // the sender gave up, and comes again
		if !p.w.ArmSpace() {
			t.Fatal("room?")
		}
		p.r.Return(first)
	}
	if ok, err := p.r.TryReceive(&rec); !ok || err != nil {
		t.Fatal(ok, err)
	}
	p.r.Return(rec.Seq)
	if p.toWriter.n > 2 {
		t.Fatalf("rang %d times, but one of three waits was over before anybody looked", p.toWriter.n)
	}
}

func TestSenderWaitsForSpace(t *testing.T) {
	p := newPair(t, RouteSpec{Slots: 2, Depth: 2, Out: 4, Policy: BlockOnFull})
	p.toWriter.on = p.w.WakeSpace
	fill := func() (i uint64) {
		for p.w.Push(blockWord(i), 1, nil) == Sent {
			i++
		}
		return i
	}
	if n := fill(); n != 2 {
		t.Fatal(n)
	}
	if !p.w.ArmSpace() { // commits, too
		t.Fatal("room?")
	}
	var rec Record
	p.r.TryReceive(&rec)
	p.r.TryReceive(&rec)
	if p.toWriter.n != 1 {
		t.Fatal("rang", p.toWriter.n, "times")
	}
	<-p.w.SpaceC()
	p.w.DisarmSpace()
	if n := fill(); n != 2 { // now all four may be out
		t.Fatal(n)
	}
	if !p.w.ArmSpace() {
		t.Fatal("room?")
	}
	p.r.Return(rec.Seq)
	if p.toWriter.n != 2 {
		t.Fatal("a return rang", p.toWriter.n, "times")
	}
	if p.w.ArmSpace() != true { // depth is 2: the return alone is no room
		t.Fatal("room?")
	}
	p.r.TryReceive(&rec)
	if p.w.ArmSpace() {
		t.Fatal("ArmSpace overlooked room")
	}
	p.w.DisarmSpace()
	p.w.Close()
	select {
	case <-p.w.SpaceC():
	default:
		t.Fatal("Close must wake who waits for space")
	}
}

func TestJoinRefuses(t *testing.T) {
	spec := RouteSpec{ID: 5, Slots: 8, Depth: 4, Out: 8, First: 3}
	other := map[string]RouteSpec{}
	for name, f := range map[string]func(*RouteSpec){
		"id": func(s *RouteSpec) { s.ID = 6 }, "slots": func(s *RouteSpec) { s.Slots = 16 }, "depth": func(s *RouteSpec) { s.Depth = 5 },
		"out": func(s *RouteSpec) { s.Out = 17 }, "policy": func(s *RouteSpec) { s.Policy = 1 }, "first": func(s *RouteSpec) { s.First = 4 },
	} {
		s := spec
		f(&s)
		other[name] = s
	}
	for name, s := range other {
		q := halfPair(t, s)
		p := halfPair(t, spec)
		big := append(q.wmem, make([]byte, 4096)...)
		if err := p.r.Join(big, nil); !errors.Is(err, ErrCorruptRoute) {
			t.Errorf("reader joins another %s: %v", name, err)
		}
		if name == "id" || name == "out" {
			if err := p.w.Join(append(q.rmem, make([]byte, 4096)...), nil); !errors.Is(err, ErrCorruptRoute) {
				t.Errorf("writer joins another %s: %v", name, err)
			}
		}
	}
	p := halfPair(t, spec)
	if err := p.r.Join(p.wmem[:len(p.wmem)-128], nil); !errors.Is(err, ErrRouteSpec) {
		t.Error("short writer half:", err)
	}
	if err := p.w.Join(p.rmem[:511], nil); !errors.Is(err, ErrRouteSpec) {
		t.Error("short reader half:", err)
	}
}

// A sender that waits is rung when a quarter of what waited is read; where the reader has enough else to read, when three are, or all.
func TestSenderIsRungLaterInACrowd(t *testing.T) {
	for _, tc := range []struct{ others, want int }{{0, 2}, {manyOthers - 1, 2}, {manyOthers, 6}, {crowdOfOthers - 1, 6}, {crowdOfOthers, 8}} {
		in := NewInbox(Park)
		pair := func() *pair {
			p := newPair(t, RouteSpec{Slots: 8, Depth: 8, Out: 8, Policy: BlockOnFull})
			in.Add(p.r)
			return p
		}
		p := pair()
		for range tc.others {
			o := pair()
			o.w.PushCommand(cmdWord(1))
			o.w.Commit()
		}
		for range 8 {
			p.w.PushCommand(cmdWord(1))
		}
		if p.w.PushCommand(cmdWord(1)) != Full || !p.w.ArmSpace() {
			t.Fatal("room?")
		}
		var rec Record
		read := 0
		for p.toWriter.n == 0 && read < 8 {
			if ok, err := p.r.TryReceive(&rec); !ok || err != nil {
				t.Fatal(ok, err)
			}
			read++
		}
		if read != tc.want {
			t.Errorf("with %d others it is rung after %d of 8 are read, want %d", tc.others, read, tc.want)
		}
		in.Close()
	}
}
