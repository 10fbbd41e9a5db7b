package shmio

import (
	"sync/atomic"
	"time"
)

// Seat is a place at a watched bell for one goroutine at a time, which sleeps there itself instead of being woken by the reactor's. While
// there is a Seat the reactor doesn't hear the bell: whoever waits for it must sleep here, or have the Seat left.
type Seat struct {
	w      *Watch
	bed    *bedside
	seen   [8]uint32
	until  time.Time   // the deadline that is set,
	kicked atomic.Bool // unless there was a kick; pairs with Kick
}

// TakeSeat takes the bell away from the reactor. The error: no descriptor is left, or the watch is closed.
func (w *Watch) TakeSeat() (*Seat, error) {
	bed, err := newBedside(w.fd)
	if err != nil {
		return nil, err
	}
	w.unregister()
	return &Seat{w: w, bed: bed}, nil
}

// Prepare begins a sleep that ends at until at the latest, or for nothing when half of the time is over; zero: not by itself. Kicks of
// before are forgotten: look for what they were about after it.
func (s *Seat) Prepare(until time.Time) {
	// To change the deadline changes a timer, for which Go may wake a thread: who waits for up to a minute, time and again for a
	// moment, leaves it as it is.
	if !s.kicked.Swap(false) && !s.bed.over && (s.until.Equal(until) || s.soonEnough(until)) {
		return
	}
	s.until, s.bed.over = until, false
	_ = s.bed.file.SetReadDeadline(until) // it fails once the seat is left: the sleep tells
}

// soonEnough tells whether the deadline that is set does for until.
func (s *Seat) soonEnough(until time.Time) bool {
	if s.until.IsZero() || until.IsZero() || s.until.After(until) {
		return false
	}
	left := time.Until(s.until)
	return left > 0 && left >= until.Sub(s.until)
}

// Sleep waits for a ring, a Kick, or the time given to Prepare; false: nobody will ring any more, or the seat was left.
func (s *Seat) Sleep() bool { return s.bed.sleep() }

// Tell calls what WatchBell was given with what the last Sleep heard.
func (s *Seat) Tell() {
	if s.bed.rang {
		s.bed.rang = false
		s.w.tell(s.bed.buf[:s.bed.n], s.seen[:0])
	}
}

// Kick ends a Sleep that was prepared. It may be called by anybody.
func (s *Seat) Kick() {
	s.bed.kick()
	s.kicked.Store(true) // after it, or Prepare could put the deadline right before the kick takes effect, and never again
}

// Leave gives the bell back to the reactor, and ends a Sleep.
func (s *Seat) Leave() {
	s.bed.close()
	s.w.register()
}
