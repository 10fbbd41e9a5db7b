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

// It takes a few looks to believe in a crowd, or in its end; between looks time must pass.
func TestCrowdIsSure(t *testing.T) {
	running, looks := 0, 0
	c := crowd{count: func() (int, int) { looks++; return running, 2 }}
	now := time.Unix(0, 0)
	after := func(d time.Duration, want bool, wantLooks int) {
		t.Helper()
		now = now.Add(d)
		if got := c.is(now); got != want || looks != wantLooks {
			t.Errorf("after %v: %v after %d looks, want %v after %d", d, got, looks, want, wantLooks)
		}
	}
	after(0, false, 1)
	running = 3
	after(crowdLasts-1, false, 1)
	after(1, false, 2)
	running = 2 // it was for a moment
	after(crowdAgain, false, 3)
	running = 3
	after(crowdAgain, false, 3)
	after(crowdLasts, false, 4)
	after(crowdAgain, false, 5)
	after(crowdAgain, true, 6)
	running = 1
	after(crowdAgain, true, 6)
	after(crowdLasts, true, 7)
	after(crowdAgain-1, true, 7)
	after(1, true, 8)
	after(crowdAgain, false, 9)
}

// Where there is a crowd a receiver lets others run once and then parks; else it spins as long as that paid.
func TestSpinnerInACrowd(t *testing.T) {
	for _, running := range []int{1, 2, 3} {
		sp := spinner{strategy: Adaptive, budget: time.Hour}
		sp.crowd = &crowd{count: func() (int, int) { return running, 2 }, score: crowdSure - 1}
		sp.begin()
		more, check := sp.again()
		if !check || more != (running <= 2) {
			t.Errorf("%d running on 2 cores: more %v, check %v", running, more, check)
		}
	}
}
