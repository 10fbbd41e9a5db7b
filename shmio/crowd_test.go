package shmio

import (
	"testing"
	"time"
)

func TestCrowdCounts(t *testing.T) {
	for text, want := range map[string]int{
		"0.20 0.18 0.12 1/80 11206\n": 1, "7.25 8.88 7.81 20/238 18835\n": 20,
		"": 0, "/": 0, "0.20": 0, "0.20 x/80 1": 0,
	} {
		if got := parseRunning([]byte(text)); got != want {
			t.Errorf("%q: %d running, want %d", text, got, want)
		}
	}
	for text, want := range map[string]int{
		"0\n": 1, "0-1\n": 2, "0-3,8,10-11\n": 7, "": 0, "3-1": 0, "a-b": 0, "1-": 0, "0-1,": 0,
	} {
		if got := countCPUs([]byte(text)); got != want {
			t.Errorf("%q: %d cores, want %d", text, got, want)
		}
	}
}

// The kernel that this runs on tells: this thread runs.
func TestCrowdLooks(t *testing.T) {
	var c crowd
	if running, cpus := c.look(); running < 1 || cpus < 1 {
		t.Errorf("%d running on %d cores", running, cpus)
	}
}

// What counts is the mean of many looks: threads that run for a moment are no crowd, and who parks in one isn't the end of it.
// Between looks time must pass, and after a long time nothing is known.
func TestCrowdIsSure(t *testing.T) {
	running, looks := 0, 0
	c := crowd{count: func() (int, int) { looks++; return running, 2 }}
	now := time.Unix(0, 0)
	after := func(d time.Duration, want bool, wantLooks int) {
		t.Helper()
		now = now.Add(d)
		if got := c.is(now, crowdLook); got != want || looks != wantLooks {
			t.Fatalf("after %v: %v after %d looks, want %v after %d", d, got, looks, want, wantLooks)
		}
	}
	until := func(want bool, few int) {
		t.Helper()
		for k := 1; c.is(now, crowdLook) != want; k++ {
			if k > few {
				t.Fatalf("with %d running %d looks don't make it %v", running, few, want)
			}
			now = now.Add(crowdLook)
		}
	}
	never := func(want bool) {
		t.Helper()
		for range 100 * crowdWeight {
			now = now.Add(crowdLook)
			if c.is(now, crowdLook) == want {
				t.Fatalf("with %d running it becomes %v", running, want)
			}
		}
	}
	running = 3
	after(0, false, 1)
	after(crowdLook-1, false, 1)
	after(1, false, 2)
	never(true) // two that spin, and their monitors
	running = 5
	until(true, 3*crowdWeight)
	running = 4
	never(false)
	running = 2
	until(false, 3*crowdWeight)
	running = 6
	until(true, 3*crowdWeight)
	looks = 0
	after(crowdForget+1, false, 1)
}

// Where there is a crowd a receiver lets others run once and then parks; else it spins as long as that paid.
func TestSpinnerInACrowd(t *testing.T) {
	for _, there := range []bool{false, true} {
		sp := spinner{strategy: Adaptive, budget: time.Hour}
		sp.crowd = &crowd{count: func() (int, int) { return 3, 2 }, last: time.Now(), mean: 3 * crowdOne}
		sp.crowd.here.Store(there)
		sp.begin()
		more, check := sp.again()
		if !check || more == there {
			t.Errorf("crowd %v: more %v, check %v", there, more, check)
		}
	}
}

// Who waits for what comes soon, again and again, looks at the clock and the crowd now and then; who has parked, or is in a crowd, at
// once.
func TestSpinnerWaitsForWhatComesSoon(t *testing.T) {
	sp := spinner{strategy: Adaptive, budget: time.Hour}
	sp.crowd = &crowd{count: func() (int, int) { return 1, 2 }, last: time.Now()}
	look := func() (turns int) { // in which turn it looks
		sp.begin()
		for {
			turns++
			more, check := sp.again()
			if !more {
				t.Fatal("parks")
			}
			if check {
				return turns
			}
		}
	}
	soon := func() { // what is waited for comes after one turn
		sp.begin()
		sp.again()
	}
	if n := look(); n != 1 {
		t.Fatalf("the first wait looks in turn %d", n)
	}
	if n := look(); n != turnsSoon {
		t.Fatalf("after one that ended soon it looks in turn %d", n)
	}
	if n := look(); n != 1 {
		t.Fatalf("after one that didn't it looks in turn %d", n)
	}
	for range soonAtMost {
		soon()
	}
	if n := look(); n != 1 {
		t.Fatalf("after %d in turn it looks in turn %d", soonAtMost, n)
	}
	sp.parked(10 * time.Microsecond)
	sp.budget = time.Hour
	if n := look(); n != 1 {
		t.Fatalf("after a park it looks in turn %d", n)
	}
	sp.crowd.here.Store(true)
	sp.begin()
	if more, check := sp.again(); more || !check {
		t.Fatal("spins in a crowd")
	}
}
