package shmio

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// inboxOf makes an inbox with n routes whose bells wake it.
func inboxOf(t *testing.T, s WaitStrategy, n int) (*Inbox, []*pair) {
	in := NewInbox(s)
	t.Cleanup(in.Close)
	var ps []*pair
	for i := range n {
		p := newPair(t, RouteSpec{Slots: 64, Depth: 64, Out: 80, Policy: DropNewest})
		p.toReader.on = func() { in.Wake(p.r) }
		p.r.SetTag(i)
		in.Add(p.r)
		ps = append(ps, p)
	}
	return in, ps
}

func (p *pair) send(n uint64) {
	p.w.PushCommand(cmdWord(n))
	p.w.Commit()
}

// untilParked waits until n receivers are parked.
func (in *Inbox) untilParked(n int) {
	for {
		in.mu.Lock()
		ok := in.waiters == n && (n == 0 || !in.spinning)
		in.mu.Unlock()
		if ok {
			return
		}
		time.Sleep(50 * time.Microsecond)
	}
}

func TestInboxTakesTurns(t *testing.T) {
	in, ps := inboxOf(t, Park, 3)
	for i := range uint64(inTurn + 3) {
		ps[0].send(i)
	}
	ps[1].send(0)
	ps[1].send(1)
	ps[2].send(0)
	var rec Record
	var order, want []int
	for range inTurn + 6 {
		r, err := in.Receive(t.Context(), &rec)
		if err != nil {
			t.Fatal(err)
		}
		order = append(order, r.Tag().(int))
	}
	for range inTurn {
		want = append(want, 0)
	}
	if want = append(want, 1, 1, 2, 0, 0, 0); !slices.Equal(order, want) {
		t.Fatalf("messages came from %v, want %v", order, want)
	}
}

// A batch is as many turns as it has messages: the next one is another route's.
func TestInboxTakesTurnsInBatches(t *testing.T) {
	in, ps := inboxOf(t, Park, 2)
	for _, p := range ps {
		for i := range uint64(2 * inTurn) {
			p.send(i)
		}
	}
	recs := make([]*Record, inTurn)
	for i := range recs {
		recs[i] = new(Record)
	}
	for k, want := range []int{0, 1, 0, 1} {
		r, n, err := in.ReceiveBatch(t.Context(), recs)
		if err != nil || n != inTurn || r.Tag().(int) != want {
			t.Fatalf("batch %d: %d messages of route %v, %v; want %d of route %d", k, n, r.Tag(), err, inTurn, want)
		}
	}
}

func TestInboxWakesAParkedReceiver(t *testing.T) {
	for _, s := range []WaitStrategy{Adaptive, Park, BusySpin} {
		in, ps := inboxOf(t, s, 2)
		got := make(chan int)
		go func() {
			var rec Record
			for range 100 {
				r, err := in.Receive(context.Background(), &rec)
				if err != nil {
					t.Error(err)
					close(got)
					return
				}
				got <- r.Tag().(int)
			}
		}()
		for i := range 100 {
			if s != BusySpin {
				in.untilParked(1)
			}
			ps[i%2].send(uint64(i))
			if k := <-got; k != i%2 {
				t.Fatal(s, k)
			}
		}
		if s == Park && (ps[0].toReader.n == 0 || ps[1].toReader.n == 0) {
			t.Fatal("a parked receiver was reached without a bell?")
		}
		if s == BusySpin && ps[0].toReader.n+ps[1].toReader.n != 0 {
			t.Fatal("a spinning receiver was rung for")
		}
	}
}

func TestInboxReceiversShare(t *testing.T) {
	for _, s := range []WaitStrategy{Adaptive, Park, BusySpin} {
		in, ps := inboxOf(t, s, 3)
		const receivers, each = 4, 3000
		var got atomic.Int64
		done := make(chan struct{})
		var wg sync.WaitGroup
		for range receivers {
			wg.Go(func() {
				var rec Record
				for {
					if _, err := in.Receive(context.Background(), &rec); err != nil {
						if !errors.Is(err, ErrInboxClosed) {
							t.Error(err)
						}
						return
					}
					if got.Add(1) == 3*each {
						close(done)
					}
				}
			})
		}
		for _, p := range ps {
			p.w.spec.Policy = BlockOnFull // only the writer's own copy: it waits below
			wg.Go(func() {
				for i := range uint64(each) {
					for p.w.PushCommand(cmdWord(i)) != Sent {
						time.Sleep(10 * time.Microsecond)
					}
					p.w.Commit()
				}
			})
		}
		<-done
		in.Close()
		wg.Wait()
	}
}

func TestInboxEndsWithContext(t *testing.T) {
	for _, s := range []WaitStrategy{Adaptive, Park, BusySpin} {
		in, ps := inboxOf(t, s, 1)
		ctx, cancel := context.WithCancel(context.Background())
		errs := make(chan error)
		for range 2 {
			go func() {
				var rec Record
				_, err := in.Receive(ctx, &rec)
				errs <- err
			}()
		}
		if s != BusySpin {
			in.untilParked(2)
		}
		cancel()
		for range 2 {
			if err := <-errs; !errors.Is(err, context.Canceled) {
				t.Fatal(s, err)
			}
		}
		var rec Record
		if _, err := in.Receive(ctx, &rec); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		// Nobody was left armed and forgotten.
		ps[0].send(1)
		if r, err := in.Receive(context.Background(), &rec); r != ps[0].r || err != nil {
			t.Fatal(r, err)
		}
	}
}

func TestInboxCloseEndsReceive(t *testing.T) {
	in, ps := inboxOf(t, Park, 1)
	errs := make(chan error)
	go func() {
		var rec Record
		_, err := in.Receive(context.Background(), &rec)
		errs <- err
	}()
	in.untilParked(1)
	in.Close()
	in.Close()
	if err := <-errs; !errors.Is(err, ErrInboxClosed) {
		t.Fatal(err)
	}
	var rec Record
	if _, err := in.TryReceive(&rec); !errors.Is(err, ErrInboxClosed) {
		t.Fatal(err)
	}
	other := NewInbox(Park)
	defer other.Close()
	other.Add(ps[0].r) // let go by the closed one
	in.Add(newPair(t, RouteSpec{Slots: 1, Depth: 1, Out: 1}).r)
}

func TestInboxLetsACorruptRouteGo(t *testing.T) {
	in, ps := inboxOf(t, Park, 2)
	ps[0].w.half.tail.Store(1 << 40)
	ps[1].send(1)
	var rec Record
	r, err := in.Receive(t.Context(), &rec)
	if r != ps[0].r || !errors.Is(err, ErrCorruptRoute) {
		t.Fatal(r, err)
	}
	if r, err := in.Receive(t.Context(), &rec); r != ps[1].r || err != nil {
		t.Fatal("the other route suffered:", err)
	}
	if in.Remove(ps[0].r); len(in.all) != 1 {
		t.Fatal(len(in.all))
	}
}

// TestIdleRoutesCostNothing: routes that have nothing aren't looked at, and those that become idle cool down.
func TestIdleRoutesCostNothing(t *testing.T) {
	in, ps := inboxOf(t, Park, 1001)
	var rec Record
	active := ps[500]
	for i := range uint64(2 * coolAfter) {
		active.send(i)
		if r, err := in.Receive(t.Context(), &rec); r != active.r || err != nil {
			t.Fatal(r, err)
		}
	}
	if len(in.hot) != 1 || in.hot[0] != active.r {
		t.Fatalf("%d routes are polled", len(in.hot))
	}
	for _, k := range []int{0, 1000, 3} { // the bell makes one of them hot again
		ps[k].send(1)
		if ps[k].toReader.n != 1 {
			t.Fatal("no bell for a cold route")
		}
		if r, err := in.Receive(t.Context(), &rec); r != ps[k].r || err != nil {
			t.Fatal(r, err)
		}
	}
	if in.Remove(ps[0].r); len(in.hot) != 3 || len(in.all) != 1000 {
		t.Fatal(len(in.hot), len(in.all))
	}
}

func TestBackstopFindsWhatNoBellTold(t *testing.T) {
	in, ps := inboxOf(t, Park, 200)
	for _, p := range ps {
		p.toReader.on = nil // stolen
	}
	got := make(chan *Reader)
	go func() {
		var rec Record
		for {
			r, err := in.Receive(context.Background(), &rec)
			if err != nil {
				close(got)
				return
			}
			got <- r
		}
	}()
	in.untilParked(1)
	ps[77].send(1)
	ps[199].send(1)
	in.untilParked(1)
	in.Backstop()
	seen := map[*Reader]bool{<-got: true, <-got: true}
	if !seen[ps[77].r] || !seen[ps[199].r] {
		t.Fatal("the wrong routes")
	}
	in.Close()
	<-got
}

func TestReturnWakesAReceiverThatHeldTooMuch(t *testing.T) {
	for _, policy := range []Policy{DropOldest, DropNewest} {
		in := NewInbox(Park)
		p := newPair(t, RouteSpec{Slots: 4, Depth: 4, Out: 5, Policy: policy})
		p.toReader.on = func() { in.Wake(p.r) }
		in.Add(p.r)
		p.w.Push(blockWord(1), 1, nil)
		p.w.Push(blockWord(2), 1, nil)
		p.w.Commit()
		var first Record
		if _, err := in.Receive(t.Context(), &first); err != nil {
			t.Fatal(err)
		}
		second := make(chan error)
		go func() {
			var rec Record
			_, err := in.Receive(context.Background(), &rec)
			second <- err
		}()
		in.untilParked(1)
		p.r.Return(first.Seq)
		if err := <-second; err != nil {
			t.Fatal(err)
		}
		in.Close()
	}
}

func TestSpinnerLearns(t *testing.T) {
	sp := spinner{strategy: Adaptive, budget: startSpin, crowd: &crowd{}}
	for range 20 {
		sp.parked(time.Millisecond) // 1,000 messages/s
	}
	if sp.budget > minSpin {
		t.Fatalf("spins %v for what comes each millisecond", sp.budget)
	}
	sp.begin()
	if more, check := sp.again(); more || !check {
		t.Fatal("still spins")
	}
	for _, c := range []struct{ spun, parked, want time.Duration }{
		{0, 20 * time.Microsecond, 40 * time.Microsecond}, // what came would have been met by then
		{40 * time.Microsecond, 10 * time.Microsecond, 100 * time.Microsecond},
		{100 * time.Microsecond, 70 * time.Microsecond, maxSpin},
		{maxSpin, 2 * wakeUp, maxSpin / 2}, // nor would maxSpin have met it
	} {
		sp.last = c.spun
		sp.parked(c.parked)
		if sp.budget != c.want {
			t.Fatalf("after %v of spinning and %v parked it spins %v, want %v", c.spun, c.parked, sp.budget, c.want)
		}
	}
	sp.begin()
	if more, check := sp.again(); !more || !check {
		t.Fatal("doesn't spin any more")
	}
	sp = newSpinner(Park)
	if more, _ := sp.again(); more {
		t.Fatal("Park spins")
	}
	for _, s := range []WaitStrategy{Adaptive, Park, BusySpin} {
		if got, err := ParseWaitStrategy(s.String()); got != s || err != nil {
			t.Error(got, err)
		}
	}
	if _, err := ParseWaitStrategy("sleep"); err == nil {
		t.Error("sleep is no strategy")
	}
}
