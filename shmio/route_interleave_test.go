package shmio

import (
	"bytes"
	"fmt"
	"iter"
	"slices"
	"testing"

	"github.com/bhome-bus/bhome/wire"
)

// script is what the two sides do between the ends of an interleaving.
type script struct {
	name    string
	spec    RouteSpec
	prefill int             // messages that wait already
	inline  func(n int) int // slots of message n: 1 is a block, more an inline record; nil: all blocks
	push    int             // messages that the writer then pushes, committing each
	batch   bool            // or all at once
	receive int             // TryReceive calls of the reader
	hold    bool            // return only at the end
	strict  bool            // the newest message is never the one that is dropped
}

// run is one execution of a script under one schedule.
type run struct {
	s         script
	p         *pair
	pushed    int
	got       []uint64
	atEnd     []uint64
	state     map[uint64]string // block → out, held, back
	newest    int               // DroppedNewest outcomes
	seqs      map[uint64]uint64 // of held blocks
	violation string
}

func (x *run) fault(format string, args ...any) {
	if x.violation == "" {
		x.violation = fmt.Sprintf(format, args...)
	}
}

// Returned implements Held for all blocks, by their place in the order of pushing.
type heldBlock struct {
	x *run
	n uint64
}

func (h heldBlock) Returned(uint64) {
	if s := h.x.state[h.n]; s == "held" || s == "back" {
		h.x.fault("block %d came back while %s", h.n, s)
	}
	h.x.state[h.n] = "back"
}

func (x *run) pushOne(commit bool) {
	n := uint64(x.pushed)
	x.pushed++
	var o Outcome
	if k := x.slots(int(n)); k == 1 {
		x.state[n] = "out"
		if o = x.p.w.Push(blockWord(n), 1, heldBlock{x, n}); o != Sent {
			delete(x.state, n)
		}
	} else {
		o = x.p.w.PushInline(wire.Inline{Topic: uint32(n)}, bytes.Repeat([]byte{byte(n)}, 8*(k-2)))
	}
	switch o {
	case Sent:
	case DroppedNewest:
		x.newest++
	default:
		x.fault("message %d: %v %v", n, o, x.p.w.Err())
	}
	if commit {
		x.p.w.Commit()
	}
}

func (x *run) slots(n int) int {
	if x.s.inline == nil {
		return 1
	}
	return x.s.inline(n)
}

func (x *run) receiveOne(hold bool) bool {
	var rec Record
	ok, err := x.p.r.TryReceive(&rec)
	if err != nil {
		x.fault("receiving: %v", err)
	}
	if !ok {
		return false
	}
	var n uint64
	if rec.IsBlock() {
		place, _, _ := rec.Word.Message()
		n = uint64(place/4 - 1)
		if s := x.state[n]; s != "out" {
			x.fault("received block %d, which is %q", n, s)
		}
		x.state[n] = "held"
		if x.seqs[n] = rec.Seq; !hold {
			x.giveBack(n, rec.Seq)
		}
	} else {
		n = uint64(rec.Head.Topic())
		if want := bytes.Repeat([]byte{byte(n)}, 8*(x.slots(int(n))-2)); !bytes.Equal(rec.Payload, want) {
			x.fault("message %d is %x", n, rec.Payload)
		}
	}
	x.got = append(x.got, n)
	return true
}

func (x *run) giveBack(n, seq uint64) {
	x.state[n] = "out" // for Returned: it may come back from now on
	x.p.r.Return(seq)
}

// sides are two pieces of code that run against each other on one route, and what must hold when both are done.
type sides struct {
	p                *pair
	sender, receiver func()
	check            func() (violation string)
}

// explore runs what setup makes under every schedule that takes the processor from a side at most `switches` times
// while it could go on, and returns how many there are. (All of them would be millions; what goes wrong does so with few.)
func explore(t *testing.T, switches int, setup func() sides) int {
	var schedule []bool // true: the other side goes on
	for n := 1; ; n++ {
		s := setup()
		taken, steps := execute(s, schedule)
		if v := s.check(); v != "" {
			t.Fatalf("%s\n%v", v, steps)
		}
		// Next: the last choice that may yet be true. Choices are recorded only where both sides could go on.
		left := switches
		for _, c := range taken {
			if c {
				left--
			}
		}
		k := len(taken) - 1
		for ; k >= 0; k-- {
			if taken[k] {
				left++
			} else if left > 0 {
				break
			}
		}
		if k < 0 {
			return n
		}
		schedule = append(slices.Clone(taken[:k]), true)
	}
}

// execute runs both sides from step to step, the sender first.
func execute(s sides, schedule []bool) (taken []bool, steps []string) {
	side := func(name string, step *func(string), f func()) (next func() bool, stop func()) {
		n, stop := iter.Pull(func(yield func(struct{}) bool) {
			*step = func(point string) {
				yield(struct{}{})
				steps = append(steps, name+point)
			}
			f()
		})
		return func() bool { _, ok := n(); return ok }, stop
	}
	sender, stopS := side("sender:", &s.p.w.step, s.sender)
	receiver, stopR := side("receiver:", &s.p.r.step, s.receiver)
	defer stopS()
	defer stopR()
	w, r, turn := true, true, false // turn: the receiver's
	for w || r {
		switch {
		case !w:
			r = receiver()
		case !r:
			w = sender()
		default:
			k := len(taken)
			choice := k < len(schedule) && schedule[k]
			taken = append(taken, choice)
			turn = turn != choice
			if turn {
				r = receiver()
			} else {
				w = sender()
			}
		}
	}
	s.p.w.step, s.p.r.step = nil, nil
	return taken, steps
}

// start makes the sides of a script.
func (s script) start(t *testing.T) sides {
	x := &run{s: s, p: newPair(t, s.spec), state: map[uint64]string{}, seqs: map[uint64]uint64{}}
	for range s.prefill {
		x.pushOne(true)
	}
	return sides{p: x.p,
		sender: func() {
			for k := range s.push {
				x.pushOne(!s.batch || k == s.push-1)
			}
		},
		receiver: func() {
			for range s.receive {
				x.receiveOne(s.hold)
			}
		},
		check: func() string {
			x.finish()
			if x.violation == "" {
				return ""
			}
			return fmt.Sprintf("%s: %s\ngot %d, then %d", s.name, x.violation, x.got[:len(x.got)-len(x.atEnd)], x.atEnd)
		},
	}
}

// finish reads what is left and checks what must hold whatever the schedule was.
func (x *run) finish() {
	for n, s := range x.state {
		if s == "held" {
			x.giveBack(n, x.seqs[n])
		}
	}
	before := len(x.got)
	for x.receiveOne(false) {
	}
	x.atEnd = x.got[before:]
	if _, err := x.p.w.Reclaim(); err != nil {
		x.fault("%v", err)
	}
	if !slices.IsSorted(x.got) || len(slices.Compact(slices.Clone(x.got))) != len(x.got) {
		x.fault("out of order or twice")
	}
	if x.p.w.Out() != 0 || x.p.w.BadReturns() != 0 {
		x.fault("%d out, %d bad returns at the end", x.p.w.Out(), x.p.w.BadReturns())
	}
	if d := x.p.w.Dropped(); uint64(x.pushed) != d+uint64(len(x.got)) || x.p.w.Sent()+uint64(x.newest) != uint64(x.pushed) {
		x.fault("%d pushed, %d received, %d counted as dropped, %d as sent", x.pushed, len(x.got), d, x.p.w.Sent())
	}
	if x.s.strict && x.newest > 0 {
		x.fault("the newest was dropped")
	}
	if x.s.strict && len(x.got) > 0 && x.got[len(x.got)-1] != uint64(x.pushed-1) {
		x.fault("the last message was lost")
	}
	if n := min(int(x.s.spec.Depth), x.pushed); x.s.receive == 0 && !slices.Equal(x.got, upTo(uint64(x.pushed-n), uint64(x.pushed))) {
		x.fault("a stalled reader must see the last %d", n)
	}
	for n, s := range x.state {
		if s != "back" {
			x.fault("block %d is %s at the end", n, s)
		}
	}
}

// TestEveryInterleaving steps a sender that overwrites and a receiver that wakes in the middle of it through every
// order of their atomic operations.
func TestEveryInterleaving(t *testing.T) {
	near := ^uint64(0) - 1 // cursors wrap on the way
	mixed := func(n int) int { return []int{1, 3, 2}[n%3] }
	inline := func(int) int { return 2 }
	scripts := []script{
		{name: "one slot", spec: RouteSpec{Slots: 1, Depth: 1, Out: 3, First: near}, prefill: 1, push: 2, receive: 2},
		{name: "one slot, held", spec: RouteSpec{Slots: 1, Depth: 1, Out: 3}, prefill: 1, push: 2, receive: 2, hold: true},
		{name: "two slots", spec: RouteSpec{Slots: 2, Depth: 2, Out: 5, First: near}, prefill: 2, push: 2, receive: 2},
		{name: "spare slots", spec: RouteSpec{Slots: 4, Depth: 1, Out: 5, First: near}, prefill: 1, push: 2, receive: 2, strict: true},
		{name: "spare slots, three", spec: RouteSpec{Slots: 4, Depth: 1, Out: 5}, prefill: 1, push: 3, receive: 1, strict: true},
		{name: "spare slots, held", spec: RouteSpec{Slots: 8, Depth: 2, Out: 6, First: near}, prefill: 2, push: 2, receive: 2, strict: true, hold: true},
		{name: "batch", spec: RouteSpec{Slots: 8, Depth: 2, Out: 6, First: near}, prefill: 2, push: 3, batch: true, receive: 2, strict: true},
		{name: "batch longer than depth", spec: RouteSpec{Slots: 2, Depth: 2, Out: 6}, push: 4, batch: true, receive: 2},
		{name: "inline", spec: RouteSpec{Slots: 8, Depth: 2, Out: 3, First: near}, prefill: 2, push: 2, receive: 2, inline: inline, strict: true},
		{name: "inline, tight", spec: RouteSpec{Slots: 4, Depth: 2, Out: 3, First: near}, prefill: 2, push: 2, receive: 2, inline: inline},
		{name: "mixed", spec: RouteSpec{Slots: 8, Depth: 2, Out: 5, First: near}, prefill: 2, push: 3, receive: 2, inline: mixed},
		{name: "stalled", spec: RouteSpec{Slots: 4, Depth: 4, Out: 8, First: near}, push: 20},
		{name: "quota", spec: RouteSpec{Slots: 4, Depth: 4, Out: 8, Quota: 2, First: near}, prefill: 2, push: 2, receive: 2},
		{name: "drop newest", spec: RouteSpec{Slots: 2, Depth: 2, Out: 5, Policy: DropNewest, First: near}, prefill: 2, push: 3, receive: 3},
	}
	switches := 4
	if testing.Short() {
		switches = 3
	}
	for _, s := range scripts {
		t.Run(s.name, func(t *testing.T) { t.Log(explore(t, switches, func() sides { return s.start(t) }), "schedules") })
	}
}

// TestNoWakeUpIsLost lets a receiver fall asleep while a sender sends, and a sender while a receiver makes room.
func TestNoWakeUpIsLost(t *testing.T) {
	for _, first := range []uint64{0, ^uint64(0)} {
		for _, policy := range []Policy{DropOldest, DropNewest, BlockOnFull} {
			spec := RouteSpec{Slots: 2, Depth: 2, Out: 4, Policy: policy, First: first}
			explore(t, 5, func() sides {
				p := newPair(t, spec)
				asleep, got := false, 0
				return sides{p: p,
					sender: func() {
						for i := range uint64(2) {
							p.w.Push(blockWord(i), 1, nil)
							p.w.Commit()
						}
					},
					receiver: func() {
						var rec Record
						for range 3 {
							for ok, _ := p.r.TryReceive(&rec); ok; ok, _ = p.r.TryReceive(&rec) {
								got++
							}
							if asleep = p.r.Arm(); asleep {
								return
							}
							p.r.Disarm()
						}
					},
					check: func() string {
						if asleep && got < 2 && p.toReader.n == 0 {
							return fmt.Sprintf("asleep after %d of 2 messages, and nobody rang", got)
						}
						if p.toReader.n > int(p.r.arms) {
							return fmt.Sprintf("rang %d times in %d sleeps", p.toReader.n, p.r.arms)
						}
						return ""
					},
				}
			})
		}
		for _, spec := range []RouteSpec{
			{Slots: 1, Depth: 1, Out: 4, Policy: BlockOnFull, First: first},
			{Slots: 4, Depth: 4, Out: 1, Policy: BlockOnFull, First: first}, // waits for a return
		} {
			explore(t, 5, func() sides {
				p := newPair(t, spec)
				p.w.Push(blockWord(0), 1, nil)
				p.w.Commit()
				asleep := false
				return sides{p: p,
					sender: func() {
						for range 3 {
							if p.w.Push(blockWord(1), 1, nil) == Sent {
								return
							}
							if asleep = p.w.ArmSpace(); asleep {
								return
							}
							p.w.DisarmSpace()
						}
					},
					receiver: func() {
						var rec Record
						if ok, _ := p.r.TryReceive(&rec); ok {
							p.r.Return(rec.Seq)
						}
					},
					check: func() string {
						if asleep && p.toWriter.n == 0 {
							return "the sender sleeps, though there is room, and nobody rang"
						}
						return ""
					},
				}
			})
		}
	}
}
