// Package soak tries for as long as one likes to break the bus: real processes attach, publish, subscribe, serve, request,
// stall, are stopped and killed, the center included, on a schedule that a seed decides; all the while, and at quiescent
// points, what arrived is held against what was sent, and what the bus and its processes hold against what they should.
//
// It starts processes by package child and talks to the bus by package node alone. It must never call anything right that
// it has not checked, nor wrong what the bus doesn't promise.
package soak

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"time"

	"github.com/bhome-bus/bhome/cmd/internal/child"
	"github.com/bhome-bus/bhome/cmd/internal/private"
	"github.com/bhome-bus/bhome/node"
)

// Config says what to run.
type Config struct {
	For  time.Duration // of disturbance and checks; the round that is under way then is finished
	Seed uint64
	// Inject is a mistake that must be found.
	Inject Fault
	// Self is this program's path: bhomed is looked for beside it.
	Self string
	// Launch starts a child in the named role.
	Launch func(label, role string, config any) (*child.Process, error)
	// Out is told what goes on.
	Out io.Writer
}

// Fault is an injected mistake.
type Fault string

// The faults that can be injected.
const (
	NoFault Fault = ""
	Corrupt Fault = "corrupt" // a bit of a payload
	Double  Fault = "double"  // a message is taken twice
)

// injectAt is the position of the message, of an anchor's, that an injected fault befalls.
const injectAt = 50

// Roles are what this package's children do, by the name of their hidden command.
func Roles() map[string]child.Role { return map[string]child.Role{"soak-member": memberRole} }

// Summary is how it went.
type Summary struct {
	Seed        uint64         `json:"seed"`
	Seconds     float64        `json:"seconds"`
	Rounds      int            `json:"rounds"`
	Processes   int            `json:"processes"` // started
	Published   uint64         `json:"published"`
	PublishedB  uint64         `json:"published_bytes"`
	Received    uint64         `json:"received"`
	ReceivedB   uint64         `json:"received_bytes"`
	Refused     uint64         `json:"refused"` // sends for which there was no memory, or no room in time
	Requests    uint64         `json:"requests"`
	Replies     uint64         `json:"replies"`
	ClearErrors uint64         `json:"clear_errors"` // requests that ended with an error that is as it should be
	Acts        map[string]int `json:"acts"`         // what was done to whom
	Pairs       int            `json:"pairs"`        // of publisher and subscription whose counts were compared
	Looks       int            `json:"looks"`        // at the whole bus
	Center      Growth         `json:"center"`
	Members     Growth         `json:"members"` // the one of those that lived throughout that has the most
	Faults      []string       `json:"faults"`
}

// OK says whether everything was as it must be.
func (s Summary) OK() bool { return len(s.Faults) == 0 }

// Kills is how many processes were killed.
func (s Summary) Kills() (n int) {
	for _, act := range []string{actKill, actKillStopped, actKillCenter, actExit} {
		n += s.Acts[act]
	}
	return n
}

// The bus's limits: small enough that refusals happen, large enough that they stay rare.
func daemonArgs() []string {
	return []string{"--log-level", "warn", "--offline", "1s", "--limit-bus", "6GiB", "--limit-node", "1GiB"}
}

// Run runs the soak. An error means that it could not be run; what it found wrong is in the Summary.
func Run(ctx context.Context, cfg Config) (sum Summary, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	bus, err := private.Start(ctx, cfg.Self, "soak", daemonArgs()...)
	if err != nil {
		return sum, err
	}
	d := &director{cfg: cfg, bus: bus, r: rand.New(rand.NewPCG(cfg.Seed, 0)), began: time.Now(),
		notes: make(chan note), over: make(chan struct{}), members: map[uint32]*member{}}
	d.sum.Seed, d.sum.Acts = cfg.Seed, map[string]int{}
	d.centerUp()
	defer func() {
		d.killAll()
		if cerr := bus.Close(); cerr != nil && err == nil && d.sum.OK() {
			d.fault("bhomed did not end well: %v", cerr)
		}
		d.nothingBehind(bus.Dir())
		d.sum.Seconds = time.Since(d.began).Seconds()
		sum = d.sum
	}()
	if d.inspector, err = node.Attach(ctx, node.Config{Name: "soak-inspector", Bus: bus.Name, Socket: bus.Socket, Inspect: true}); err != nil {
		return sum, err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		err = errors.Join(err, d.inspector.Close(ctx))
	}()
	fmt.Fprintf(cfg.Out, "soak: seed %d, for %v; bhomed %d on %s\n", cfg.Seed, cfg.For, bus.PID(), bus.Socket)
	err = d.play(ctx)
	switch {
	case errors.Is(err, errFault):
		d.tellWhere()
		err = nil
	case err != nil && ctx.Err() == nil: // what keeps it from going on is a fault of the bus, or of the soak
		d.fault("%v", err)
		d.tellWhere()
		err = nil
	}
	return d.sum, err
}

// play is rounds of disturbance, each with a check at its end, and the end.
func (d *director) play(ctx context.Context) error {
	if err := d.startAnchors(ctx); err != nil {
		return err
	}
	for round := 0; round == 0 || time.Since(d.began) < d.cfg.For; round++ {
		d.round, d.calm = round, calm(round)
		for _, act := range []func(context.Context) error{d.disturb, d.settle} {
			if err := act(ctx); err != nil {
				return err
			}
		}
		d.sum.Rounds++
	}
	return d.part(ctx)
}

// calm says whether the center lives through a round: in stretches that grow, so that what it loses a little of each time
// has time to show.
func calm(round int) bool {
	for length, at := 2, 0; ; length, at = min(2*length, 64), at+2*length {
		if round < at+length {
			return false
		}
		if round < at+2*length {
			return true
		}
	}
}

// nothingBehind looks for what should be gone with the bus.
func (d *director) nothingBehind(dir string) {
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		d.fault("the bus's folder %s is left (%v)", dir, err)
	}
	for pid, name := range processesOf(d.bus.Socket) {
		d.fault("process %d (%s) is left", pid, name)
	}
}
