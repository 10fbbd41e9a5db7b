package shmio

import (
	"testing"
	"time"
)

// A sleeper that comes again and again leaves its deadline as it is, but for what a kick did to it: it sleeps until there is a ring, however
// often it was kicked, and it is woken in time.
func TestSeatKeepsItsDeadline(t *testing.T) {
	r := mustReactor(t)
	read, write, err := NewBell()
	noErr(t, err)
	heard := make(chan uint32, 1)
	w, err := r.WatchBell(read, func(h uint32) { heard <- h })
	noErr(t, err)
	bell, err := OpenBell(write)
	noErr(t, err)
	s, err := w.TakeSeat()
	noErr(t, err)
	defer func() {
		s.Leave()
		noErr(t, w.Close())
		noErr(t, bell.Close())
		noErr(t, write.Close())
	}()
	asleep := func(until time.Time) <-chan bool {
		s.Prepare(until)
		done := make(chan bool, 1)
		go func() { done <- s.Sleep() }()
		return done
	}
	rung := func(until time.Time) {
		t.Helper()
		done := asleep(until)
		bell.Ring(7)
		if !await(t, done, "the ring") {
			t.Fatal("the seat is gone")
		}
		s.Tell() // nothing, if it woke for nothing
		select {
		case <-heard:
		default:
			t.Fatal("it woke up, and nobody had rung")
		}
	}
	hour := func(n int) time.Time { return time.Now().Add(time.Duration(n) * time.Hour) }
	for _, until := range []time.Time{{}, hour(3), hour(3), hour(5), {}} {
		rung(until)
		for range 3 {
			done := asleep(until)
			s.Kick()
			if !await(t, done, "the kick") {
				t.Fatal("the seat is gone")
			}
		}
		s.Kick() // of which nobody hears
		rung(until)
	}
	first := hour(3)
	rung(first)
	rung(first.Add(time.Hour))
	if !s.until.Equal(first) {
		t.Errorf("the deadline was changed to %v, which has more than half of the time to go", s.until)
	}
	rung(first.Add(4 * time.Hour))
	if s.until.Equal(first) {
		t.Error("who has seven hours is woken after three")
	}
	for range 2 {
		done := asleep(time.Now().Add(time.Millisecond))
		if !await(t, done, "the deadline") {
			t.Fatal("the seat is gone")
		}
	}
}
