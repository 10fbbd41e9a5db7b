package shmio

import (
	"context"
	"errors"
	"testing"
)

func TestRingsForNothingAreTold(t *testing.T) {
	var j Rings
	for range 10 * MaxEmptyRings { // as honest ringers come to be heard at worst
		if !j.Heard(true) || !j.Heard(false) {
			t.Fatal("one that rings for something is refused")
		}
	}
	for i := range 4 * MaxEmptyRings {
		ok := j.Heard(i%4 == 0) // a quarter for something
		if ok != (i < 2*MaxEmptyRings) && (i < 2*MaxEmptyRings-4 || i > 2*MaxEmptyRings+4) {
			t.Fatal(i, ok)
		}
	}
}

// ringingRoute is an inbox with an honest route and one whose writer rings as it likes.
func ringingRoute(t *testing.T, s WaitStrategy) (in *Inbox, honest, hostile *pair, ring func()) {
	t.Helper()
	in, ps := belledInbox(t, s, 1)
	hostile = newPair(t, RouteSpec{Slots: 64, Depth: 64, Out: 80, Policy: DropNewest})
	read, write, err := NewBell()
	noErr(t, err)
	b, err := OpenBell(write)
	noErr(t, err)
	t.Cleanup(func() { _ = b.Close() })
	hostile.r.SetTag(1)
	noErr(t, in.AddWithBell(hostile.r, mustReactor(t), read))
	return in, ps[0], hostile, func() { b.Ring(7) }
}

// One who rings without end is heard a bounded number of times, whoever hears it: then its route is corrupt, and the other
// routes go on.
func TestOneWhoRingsForNothingLosesItsRoute(t *testing.T) {
	for _, s := range []WaitStrategy{Adaptive, Park} {
		for _, favourite := range []bool{false, true} { // heard by the reactor, or by the receiver itself
			in, honest, hostile, ring := ringingRoute(t, s)
			in.mu.Lock()
			if favourite {
				in.favour(hostile.r)
			}
			in.mu.Unlock()
			ctx, cancel := context.WithCancel(t.Context())
			fail, got := make(chan error, 1), make(chan int, 1)
			end := make(chan struct{})
			go func() {
				defer close(end)
				var rec Record
				for {
					r, err := in.Receive(ctx, &rec)
					switch {
					case err != nil && r != hostile.r:
						return
					case err != nil:
						fail <- err
					default:
						got <- r.Tag().(int)
					}
				}
			}()
			for over := false; !over; {
				select {
				case err := <-fail:
					if !errors.Is(err, ErrCorruptRoute) {
						t.Error(err)
					}
					over = true
				default:
					ring()
				}
			}
			for range 2 * bellBuffer / 4 {
				ring() // nobody hears it any more: the bell fills
			}
			in.untilParked(1)
			honest.send(1)
			if g := await(t, got, "a message of the honest route"); g != 0 {
				t.Error(g)
			}
			cancel()
			await(t, end, "the receiver's end")
		}
	}
}

// A writer that rings for what it sends, and for nothing now and then, is heard for ever.
func TestRingsForSomethingAreHeard(t *testing.T) {
	in, _, p, ring := ringingRoute(t, Park)
	got, end := in.receiving(t.Context())
	for i := range 2 * MaxEmptyRings {
		in.untilParked(1)
		p.send(uint64(i))
		ring()
		ring()
		if g := await(t, got, "a message"); g != 1 {
			t.Fatal(g)
		}
	}
	in.Close()
	await(t, end, "the end")
}
