package shmio

import (
	"fmt"
	"runtime"
	"syscall"
	"time"
)

// WaitStrategy says how a receiver waits when there is nothing.
type WaitStrategy int

// The strategies.
const (
	// Adaptive spins briefly, as long as that lately paid and no more threads want to run than there are cores, then
	// parks: no OS thread is held.
	Adaptive WaitStrategy = iota
	// Park parks at once.
	Park
	// BusySpin never parks. It needs a core of its own.
	BusySpin
)

// String names the strategy as ParseWaitStrategy takes it.
func (s WaitStrategy) String() string {
	switch s {
	case Adaptive:
		return "adaptive"
	case Park:
		return "park"
	case BusySpin:
		return "spin"
	}
	return fmt.Sprintf("wait(%d)", int(s))
}

// ParseWaitStrategy understands adaptive, park and spin.
func ParseWaitStrategy(s string) (WaitStrategy, error) {
	for _, w := range []WaitStrategy{Adaptive, Park, BusySpin} {
		if w.String() == s {
			return w, nil
		}
	}
	return 0, fmt.Errorf("shmio: wait strategy %q: want adaptive, park or spin", s)
}

const (
	minSpin    = 1 * time.Microsecond   // as good as none
	preempted  = 50 * time.Microsecond  // between two looks at the clock, turnsCheck turns apart: somebody else had the core
	maxSpin    = 200 * time.Microsecond // 1 MiB there and back takes 300
	wakeUp     = 50 * time.Microsecond  // what a park takes beyond the wait: across cores, and as much of the sleeper's core
	startSpin  = 10 * time.Microsecond
	looksATurn = 32  // looks a turn: some 0.3 µs
	turnsSoon  = 4   // what comes in fewer turns comes soon, as an answer from another core does
	soonAtMost = 31  // waits in turn that don't look at the clock and the crowd as long as what they wait for comes soon
	turnsCheck = 8   // turns between two looks at the clock and the context
	turnsGo    = 16  // between two yields to other goroutines: each costs as much as a turn, and may wake another thread
	turnsOS    = 256 // between two yields to other processes, where there is no end to the spinning
)

// spinner decides how long a receiver spins before it parks. It belongs to one receiver at a time.
type spinner struct {
	strategy WaitStrategy
	budget   time.Duration
	turns    int
	first    int // the turn in which the clock is looked at first
	soon     int // waits that need not look before turnsSoon, if the one before hasn't either
	start    time.Time
	last     time.Duration // from start to the last look at the clock
	crowd    *crowd
}

func newSpinner(s WaitStrategy) spinner {
	if s == Adaptive && (runtime.NumCPU() == 1 || runtime.GOMAXPROCS(0) == 1) {
		s = Park // on one core spinning keeps the sender from sending
	}
	return spinner{strategy: s, budget: startSpin, crowd: &theCrowd}
}

// begin starts a wait. A look at the clock takes as long as half a turn, in which what comes isn't seen.
func (sp *spinner) begin() {
	if sp.soon > 0 && sp.turns < turnsSoon && !sp.crowd.here.Load() {
		sp.first = turnsSoon
		sp.soon--
	} else {
		sp.first, sp.soon = 1, soonAtMost
	}
	sp.turns, sp.last = 0, 0
}

// again is called after every looksATurn looks that found nothing, and yields now and then. more: look on instead of
// parking; check: look at the context, too.
func (sp *spinner) again() (more, check bool) {
	if sp.strategy == Park {
		return false, true
	}
	sp.turns++
	if sp.turns%turnsGo == 0 {
		runtime.Gosched()
	}
	check = sp.turns%turnsCheck == 0
	if sp.strategy == BusySpin {
		if sp.turns%turnsOS == 0 {
			osYield() // there may be more spinning processes than cores
		}
		return true, check
	}
	switch {
	case sp.turns < sp.first:
		return true, false
	case sp.turns == sp.first: // what came at once cost no look at the clock
		sp.start, sp.last = time.Now(), 0
		every := crowdLook
		if sp.budget <= minSpin {
			every = crowdGlance
		}
		if sp.crowd.is(sp.start, every) {
			osYield() // to those that could send: then one more look
			return false, true
		}
		return sp.budget > minSpin, true
	case check:
		took := time.Since(sp.start)
		if took-sp.last > preempted { // more processes than cores: who spins keeps others from sending
			sp.budget = minSpin
			return false, true
		}
		sp.last = took
		return took < sp.budget, true
	}
	return true, false
}

// parked learns from how long a park lasted: if spinning longer would have met what came, as long as one may, the next waits
// spin for twice of what this one took; if not, the spinning before it was wasted.
func (sp *spinner) parked(d time.Duration) {
	if sp.strategy != Adaptive {
		return
	}
	sp.soon = 0 // it didn't come soon, however few the turns were
	if waited := sp.last + d; waited < maxSpin+wakeUp {
		sp.budget = min(maxSpin, max(2*waited, 2*minSpin))
	} else {
		sp.budget = max(minSpin, sp.budget/2)
	}
}

// osYield lets other processes run. The thread stays with its goroutine: it is ready again at once.
func osYield() { syscall.RawSyscall(syscall.SYS_SCHED_YIELD, 0, 0, 0) }
