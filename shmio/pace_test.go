package shmio

import "testing"

// A reader that finds its writer's messages one by one, as they come, is at its heels: until it has looked a few times for nothing,
// finds many at once, or another route has something.
func TestAtTheHeels(t *testing.T) {
	in, ps := inboxOf(t, Adaptive, 2)
	p, other := ps[0], ps[1]
	var rec Record
	look := func() bool {
		t.Helper()
		r, err := in.TryReceive(&rec)
		if err != nil {
			t.Fatal(err)
		}
		return r == p.r
	}
	in.Remove(other.r)
	follow := func() {
		for n := range paceAfter {
			p.send(uint64(n))
			if !look() {
				t.Fatal("nothing came")
			}
		}
	}
	if p.r.atHeels() {
		t.Error("at first")
	}
	if follow(); !p.r.atHeels() {
		t.Error("it isn't there")
	}
	for range soonLooks {
		look()
	}
	if p.r.atHeels() {
		t.Error("nothing has come for long")
	}
	p.send(0)
	look() // late
	if p.r.atHeels() {
		t.Error("what came was late")
	}
	if follow(); !p.r.atHeels() {
		t.Error("it isn't there again")
	}
	if p.r.Arm(); p.r.atHeels() {
		t.Error("it has slept")
	}
	p.r.Disarm()
	follow()
	in.Add(other.r)
	if p.r.atHeels() {
		t.Error("another has something")
	}
	in.Remove(other.r)

	big := newPair(t, RouteSpec{Slots: 2048, Depth: 2048, Out: 2048, Policy: DropNewest})
	in.Remove(p.r)
	in.Add(big.r)
	big.r.heels = paceAfter
	for n := range littleSlots {
		big.w.PushCommand(cmdWord(uint64(n)))
	}
	big.w.Commit()
	if !big.r.atHeels() {
		t.Error("it was there")
	}
	if r, err := in.TryReceive(&rec); r != big.r || err != nil || big.r.atHeels() {
		t.Error("there is much to read", err)
	}
}
