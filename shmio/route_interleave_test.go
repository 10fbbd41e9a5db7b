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
	limit   int             // schedules at most, 0: all
	strict  bool            // the newest message is never the one that is dropped
	wantEnd []uint64        // what a reader gets that only looks afterwards
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
		if !hold {
			x.giveBack(n, rec.Seq)
		}
	} else {
		n = uint64(rec.Inline.Topic)
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

// explore runs the script under every schedule (or the first limit of them, the last choices varied first) and returns
// how many there were.
func explore(t *testing.T, s script) int {
	var schedule []bool // true: the reader goes on
	for n := 1; ; n++ {
		taken, x := execute(t, s, schedule)
		if x.violation != "" {
			t.Fatalf("%s: %s\nschedule %v\ngot %d, then %d", s.name, x.violation, trace(taken), x.got[:len(x.got)-len(x.atEnd)], x.atEnd)
		}
		// Next: the last choice that was false and may be true. Choices are recorded only where both sides could go on.
		k := len(taken) - 1
		for k >= 0 && taken[k] {
			k--
		}
		if k < 0 || n == s.limit {
			return n
		}
		schedule = append(slices.Clone(taken[:k]), true)
	}
}

func trace(b []bool) string {
	s := make([]byte, len(b))
	for i := range b {
		s[i] = "wr"[map[bool]int{false: 0, true: 1}[b[i]]]
	}
	return string(s)
}

func execute(t *testing.T, s script, schedule []bool) (taken []bool, x *run) {
	x = &run{s: s, p: newPair(t, s.spec), state: map[uint64]string{}}
	for range s.prefill {
		x.pushOne(true)
	}
	side := func(step *func(string), f func()) (next func() bool, stop func()) {
		n, stop := iter.Pull(func(yield func(struct{}) bool) {
			*step = func(string) { yield(struct{}{}) }
			f()
		})
		return func() bool { _, ok := n(); return ok }, stop
	}
	writer, stopW := side(&x.p.w.step, func() {
		for k := range s.push {
			x.pushOne(!s.batch || k == s.push-1)
		}
	})
	reader, stopR := side(&x.p.r.step, func() {
		for range s.receive {
			x.receiveOne(s.hold)
		}
	})
	w, r := true, true
	for w || r {
		switch {
		case !w:
			r = reader()
		case !r:
			w = writer()
		default:
			k := len(taken)
			choice := k < len(schedule) && schedule[k]
			taken = append(taken, choice)
			if choice {
				r = reader()
			} else {
				w = writer()
			}
		}
	}
	stopW()
	stopR()
	x.p.w.step, x.p.r.step = nil, nil
	x.finish()
	return taken, x
}

// finish reads what is left and checks what must hold whatever the schedule was.
func (x *run) finish() {
	before := len(x.got)
	for x.receiveOne(false) {
	}
	x.atEnd = x.got[before:]
	if x.s.hold {
		for seq, word := range x.out() {
			place, _, _ := word.Message()
			if n := uint64(place/4 - 1); x.state[n] == "held" {
				x.giveBack(n, seq)
			}
		}
	}
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

func (x *run) out() map[uint64]wire.Word {
	m := map[uint64]wire.Word{}
	ScanOut(x.p.wmem, func(seq uint64, w wire.Word) { m[seq] = w })
	return m
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
	for _, s := range scripts {
		if testing.Short() {
			s.limit = 20_000
		}
		t.Run(s.name, func(t *testing.T) { t.Log(explore(t, s), "schedules") })
	}
}
