package shmio

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"
)

// belledInbox makes an inbox with n routes that have bells of their own.
func belledInbox(t *testing.T, s WaitStrategy, n int) (*Inbox, []*pair) {
	t.Helper()
	in, r := NewInbox(s), mustReactor(t)
	t.Cleanup(in.Close)
	var ps []*pair
	for i := range n {
		p := newPair(t, RouteSpec{Slots: 64, Depth: 64, Out: 80, Policy: DropNewest})
		read, write, err := NewBell()
		noErr(t, err)
		b, err := OpenBell(write)
		noErr(t, err)
		t.Cleanup(func() { _ = b.Close() })
		p.toReader.on = func() { b.Ring(1) }
		p.r.SetTag(i)
		noErr(t, in.AddWithBell(p.r, r, read))
		ps = append(ps, p)
	}
	return in, ps
}

// receiving receives in a goroutine and tells the tags.
func (in *Inbox) receiving(ctx context.Context) (got chan int, end chan error) {
	got, end = make(chan int), make(chan error, 1)
	go func() {
		var rec Record
		for {
			r, err := in.Receive(ctx, &rec)
			if err != nil {
				end <- err
				return
			}
			got <- r.Tag().(int)
		}
	}()
	return got, end
}

func TestBellsWakeTheOneWhoSleepsAtThem(t *testing.T) {
	for _, s := range []WaitStrategy{Adaptive, Park, BusySpin} {
		t.Run(s.String(), func(t *testing.T) {
			checkLeaks(t)
			in, ps := belledInbox(t, s, 3)
			got, end := in.receiving(t.Context())
			for i := range 120 {
				k := i / 10 % 3 // each for a while: the favourite changes
				if s != BusySpin {
					in.untilParked(1)
				}
				ps[k].send(uint64(i))
				if g := await(t, got, "a message"); g != k {
					t.Fatalf("message of route %d, want %d", g, k)
				}
			}
			in.mu.Lock()
			favourite := in.favourite
			in.mu.Unlock()
			if s == Park && favourite != ps[2].r {
				t.Error("the bell that rings isn't the one that is slept at")
			}
			in.Close()
			if err := await(t, end, "the end"); !errors.Is(err, ErrInboxClosed) {
				t.Error(err)
			}
		})
	}
}

func TestLeaderHearsItsContextAndHandsOver(t *testing.T) {
	checkLeaks(t)
	in, ps := belledInbox(t, Park, 2)
	ctx, cancel := context.WithCancel(t.Context())
	_, firstEnd := in.receiving(ctx)
	in.untilParked(1)
	got, end := in.receiving(t.Context())
	in.untilParked(2)
	cancel()
	if err := await(t, firstEnd, "the leader's end"); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	for i := range 10 {
		in.untilParked(1)
		ps[i%2].send(1)
		if g := await(t, got, "a message"); g != i%2 {
			t.Fatalf("route %d", g)
		}
	}
	for i := len(ps) - 1; i >= 0; i-- { // the favourite last: its sleeper is awake without a bell
		in.Remove(ps[i].r)
	}
	in.Add(ps[0].r)
	ps[0].toReader.on = func() { in.Wake(ps[0].r) }
	ps[0].send(1)
	await(t, got, "a message without a bell")
	in.Close()
	await(t, end, "the end")
}

// All of several sleepers get work, and none of it is lost.
func TestManyReceiversAtOneBell(t *testing.T) {
	checkLeaks(t)
	in, ps := belledInbox(t, Adaptive, 2)
	const messages = 2000
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen := 0
	done := make(chan struct{})
	for range 4 {
		wg.Go(func() {
			var rec Record
			for {
				if _, err := in.Receive(context.Background(), &rec); err != nil {
					return
				}
				mu.Lock()
				if seen++; seen == messages {
					close(done)
				}
				mu.Unlock()
			}
		})
	}
	var senders sync.WaitGroup
	for _, p := range ps {
		senders.Go(func() {
			for i := range messages / 2 {
				p.send(uint64(i))
				if i%50 == 0 { // never more than the depth
					in.untilIdle()
				}
			}
		})
	}
	senders.Wait()
	await(t, done, "all messages")
	in.Close()
	wg.Wait()
}

// untilIdle waits until everything sent has been taken.
func (in *Inbox) untilIdle() {
	for {
		in.mu.Lock()
		idle := true
		for _, r := range in.all {
			idle = idle && !r.hasNews()
		}
		in.mu.Unlock()
		if idle {
			return
		}
		time.Sleep(50 * time.Microsecond)
	}
}

// The bell's writer goes away: whoever sleeps there is not kept busy by it, and the other bells are heard.
func TestBellWhoseRingerIsGone(t *testing.T) {
	checkLeaks(t)
	in, ps := belledInbox(t, Park, 1)
	r := mustReactor(t)
	orphan := newPair(t, RouteSpec{Slots: 64, Depth: 64, Out: 80, Policy: DropNewest})
	read, write, err := NewBell()
	noErr(t, err)
	orphan.r.SetTag(1)
	in.mu.Lock()
	in.unfavour()
	in.mu.Unlock()
	noErr(t, in.AddWithBell(orphan.r, r, read))
	got, end := in.receiving(t.Context())
	in.untilParked(1)
	noErr(t, write.Close())
	for range 3 {
		in.untilParked(1)
		ps[0].send(1)
		if g := await(t, got, "a message of the other"); g != 0 {
			t.Fatal(g)
		}
	}
	in.Close()
	await(t, end, "the end")
}
