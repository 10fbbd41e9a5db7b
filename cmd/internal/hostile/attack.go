// Package hostile attacks a bus from a process of its own, and measures what that costs honest ones: it is the adversary of
// the promise that a hostile node harms only its own messages.
//
// Its nodes use no client library: they write into their own memory and their socket whatever they like, as any process
// could. It must never be needed by anything but measurements and tests, nor attack a bus that wasn't named to it.
package hostile

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"time"

	"github.com/bhome-bus/bhome/cmd/internal/child"
)

// The victims' topics: the honest pair's own, and what their subscriber gets from strangers.
const (
	goodTopic  = "arena.good"
	evilTopic  = "arena.evil"
	runTopic   = "arena.runs" // as evilTopic, where the oldest isn't dropped: messages may share a block
	arenaTopic = "arena.>"
)

// Attack is one way to misuse a bus.
type Attack struct {
	Name string `json:"name"`
	What string `json:"what"` // it does, in a few words
	// Cut says that the center, or the victim, ends it and names it in bhomed's log. The others stay within what a node may
	// do, or are refused before there is anything to end; those are in the log as refused, or nowhere.
	Cut bool `json:"cut"`
	run func(ctx context.Context, a *attacker) error
}

// Attacks are all of them.
func Attacks() []Attack {
	return slices.Concat(bellAttacks(), memoryAttacks(), linkAttacks(), socketAttacks(), loadAttacks())
}

func find(name string) (Attack, error) {
	for _, a := range Attacks() {
		if a.Name == name {
			return a, nil
		}
	}
	return Attack{}, fmt.Errorf("no attack is called %q", name)
}

// attackConfig is what an attacking process is told.
type attackConfig struct {
	Socket string
	Attack string // spinName: an innocent process that only computes
	Seed   uint64
}

// attacker is the state of an attack.
type attacker struct {
	attackConfig
	rand    *rand.Rand
	count   int // what it did, so to say
	running bool
	started chan struct{}
}

// ready says that the attack is under way. It is called by the attack's goroutine.
func (a *attacker) ready() {
	if !a.running {
		a.running = true
		close(a.started)
	}
}

// spinName is the control: what any process costs that takes a core.
const spinName = "spinner"

// attackRole attacks from "ready" to "close". That it is refused or cut off is its lot, and no failure.
func attackRole(ctx context.Context, s *child.Session) error {
	a := &attacker{started: make(chan struct{})}
	if err := s.Config(&a.attackConfig); err != nil {
		return err
	}
	a.rand = rand.New(rand.NewPCG(a.Seed, 1))
	run := spin
	if a.Attack != spinName {
		attack, err := find(a.Attack)
		if err != nil {
			return err
		}
		run = attack.run
	}
	actx, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- run(actx, a) }()
	select {
	case <-a.started:
	case err := <-done:
		stop()
		return fmt.Errorf("attack %s: it could not begin: %w", a.Attack, err)
	}
	if err := s.Emit("ready", os.Getpid()); err != nil {
		stop()
		return err
	}
	err := s.Await(ctx, "close", nil)
	stop()
	<-done
	if err != nil {
		return err
	}
	return s.Emit("done", a.count)
}

func spin(ctx context.Context, a *attacker) error {
	a.ready()
	for ctx.Err() == nil {
		a.count++
	}
	return nil
}

// again repeats an attack on nodes of its own until ctx ends: who is cut off comes again. The first must come so
// far as to begin.
func (a *attacker) again(ctx context.Context, once func(ctx context.Context, r *rawNode) error, opts ...option) error {
	for ctx.Err() == nil {
		r, err := attachRaw(ctx, a.Socket, opts...)
		if err == nil {
			err = once(ctx, r)
			r.close()
		}
		switch {
		case err != nil && !a.running && ctx.Err() == nil:
			return err
		case err != nil:
			pause(ctx, time.Millisecond)
		}
	}
	return nil
}

// pause waits, but no longer than ctx lasts.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// noise is n random bytes.
func (a *attacker) noise(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(a.rand.Uint32())
	}
	return b
}

// oddNumber is one of the numbers that break things, or any.
func (a *attacker) oddNumber(near uint64) uint64 {
	switch a.rand.IntN(6) {
	case 0:
		return near + uint64(a.rand.IntN(1024)) - 512
	case 1:
		return 1 << a.rand.IntN(64)
	case 2:
		return ^uint64(0) >> a.rand.IntN(64)
	case 3:
		return near
	case 4:
		return 0
	}
	return a.rand.Uint64()
}
