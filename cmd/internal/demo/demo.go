// Package demo is the bus at its main job, on real input: processes stream every file of the Go toolchain's source to
// others that check each against the disk, while some are killed and replaced, and every count is held against the
// center's own.
//
// It starts processes by package child and talks to the bus by package node alone; what it claims it has checked.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/bhome-bus/bhome/cmd/internal/child"
	"github.com/bhome-bus/bhome/cmd/internal/latency"
	"github.com/bhome-bus/bhome/cmd/internal/private"
	"github.com/bhome-bus/bhome/node"
)

// Fault is an injected mistake that the demo must notice.
type Fault string

// The faults that can be injected.
const (
	NoFault Fault = ""
	Corrupt Fault = "corrupt" // a publisher flips a bit of one file
	Leak    Fault = "leak"    // a subscriber never gives one message back
)

// Config says what to run.
type Config struct {
	Tree   string // folder whose files are streamed; "": the source of the Go toolchain
	Passes int    // of each publisher through the tree
	Inject Fault
	Limit  time.Duration // the whole demo ends within this time
	// Self is this program's path: bhomed is looked for beside it.
	Self string
	// Launch starts a child in the named role.
	Launch func(label, role string, config any) (*child.Process, error)
	// Out is told what goes on; Tables, where to show procs, msgs and topics (nil: nowhere).
	Out, Tables io.Writer
}

// Roles are what this package's children do, by the name of their hidden command.
func Roles() map[string]child.Role {
	return map[string]child.Role{"demo-pub": pubRole, "demo-sub": subRole, "demo-words": wordRole, "demo-load": loadRole}
}

// Summary is how it went.
type Summary struct {
	Files          int                 `json:"files"` // in the tree
	Published      uint64              `json:"published"`
	Delivered      uint64              `json:"delivered"` // to the subscribers that lived
	Bytes          uint64              `json:"bytes"`     // delivered
	Seconds        float64             `json:"seconds"`
	MsgsPerSec     float64             `json:"msgs_per_sec"`
	BytesPerSec    float64             `json:"bytes_per_sec"`
	Latency        latency.Percentiles `json:"percentiles_ns"` // from Send to receipt, queueing included
	Requests       uint64              `json:"requests"`
	RequestLatency latency.Percentiles `json:"request_percentiles_ns"`
	Killed         int                 `json:"killed"`
	GoneAfterMs    float64             `json:"gone_after_ms"` // until the center had forgotten the killed
	Corrupted      uint64              `json:"corrupted"`
	Leaked         uint64              `json:"leaked"`
	Faults         []string            `json:"faults"` // all that was not as it must be
}

// OK says whether everything was as it must be.
func (s Summary) OK() bool { return len(s.Faults) == 0 && s.Corrupted == 0 && s.Leaked == 0 }

// Run runs the demo. An error means that it could not be run to its end; what it found wrong is in the Summary.
func Run(ctx context.Context, cfg Config) (sum Summary, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, cfg.Limit, fmt.Errorf("the demo wasn't done after %v", cfg.Limit))
	defer cancel()
	if cfg.Tree == "" {
		if cfg.Tree, err = goTree(ctx); err != nil {
			return sum, err
		}
	}
	t, err := openTree(cfg.Tree)
	if err != nil {
		return sum, err
	}
	bus, err := private.Start(ctx, cfg.Self, "demo", "--log-level", "warn")
	if err != nil {
		return sum, err
	}
	d := &director{cfg: cfg, tree: t, bus: bus, notes: make(chan note), over: make(chan struct{})}
	defer func() {
		d.killAll()
		if cerr := bus.Close(); cerr != nil && err == nil {
			err = fmt.Errorf("bhomed did not end well: %w", cerr)
		}
		if log := lastLines(bus.Log(), shownLog); log != "" && (err != nil || !sum.OK()) {
			fmt.Fprintf(cfg.Out, "the last of bhomed's log:\n%s", log)
		}
	}()
	if d.inspector, err = node.Attach(ctx, node.Config{Name: directorName, Bus: bus.Name, Socket: bus.Socket, Inspect: true}); err != nil {
		return sum, err
	}
	defer func() { err = errors.Join(err, leave(d.inspector, leaveTimeout)) }()
	d.say("bhomed %d serves the private bus %s\n%d files in %s", bus.PID(), bus.Socket, len(t.files), cfg.Tree)
	err = d.play(ctx)
	return d.sum, err
}

// shownLog is how many lines of bhomed's log are shown when something went wrong.
const shownLog = 20

func lastLines(text string, n int) string {
	lines := strings.SplitAfter(text, "\n")
	return strings.Join(lines[max(0, len(lines)-1-n):], "")
}

// play is the demo, act by act.
func (d *director) play(ctx context.Context) error {
	for _, act := range []func(context.Context) error{d.begin, d.strike, d.replace, d.finish, d.compare, d.part} {
		if err := act(ctx); err != nil {
			d.tellWhere()
			return err
		}
	}
	return nil
}
