package hostile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/bhome-bus/bhome/cmd/internal/child"
	"github.com/bhome-bus/bhome/cmd/internal/procfs"
)

// Config is what Run measures on: a bus that is running, and the pid of its bhomed.
type Config struct {
	Socket  string
	Daemon  int
	Log     func() string // what bhomed has logged lately
	Each    time.Duration // of one measurement
	Size    int           // bytes of an honest message
	Attacks []string      // names; empty: all
	Seed    uint64
}

// Row is one measurement: the honest pair beside one attack.
type Row struct {
	Attack  string  `json:"attack"` // "nothing" and "spinner" are the controls
	PerSec  float64 `json:"msgs_per_sec"`
	Ratio   float64 `json:"of_undisturbed"`
	Fair    float64 `json:"of_spinner"`  // against an innocent process that computes
	NsEach  float64 `json:"cpu_ns_each"` // what a message costs the pair, by the kernel's accounts
	Center  float64 `json:"center_cpu"`  // cores
	RSS     int64   `json:"center_private_bytes"`
	Threads int     `json:"center_threads"`
	FDs     int     `json:"center_fds"`
	Did     int     `json:"did"`   // what the attacker did, in its own units
	Named   bool    `json:"named"` // bhomed's log has the attacker's pid
}

// Launcher starts a child process in a role.
type Launcher func(role string, config any) (*child.Process, error)

// pair is the honest ones.
type pair struct{ pub, sub *child.Process }

// Start starts the honest pair, publishing.
func startPair(ctx context.Context, cfg Config, launch Launcher) (*pair, error) {
	p := &pair{}
	var err error
	for _, r := range []struct {
		role string
		to   **child.Process
	}{{SubRole, &p.sub}, {PubRole, &p.pub}} {
		if *r.to, err = launch(r.role, honestConfig{cfg.Socket, cfg.Size}); err == nil {
			err = (*r.to).Await(ctx, "ready", nil)
		}
		if err != nil {
			p.kill()
			return nil, err
		}
	}
	return p, p.pub.Send("go", nil)
}

func (p *pair) kill() {
	for _, c := range []*child.Process{p.pub, p.sub} {
		if c != nil {
			c.Kill()
		}
	}
}

func (p *pair) count(ctx context.Context) (c Count, err error) {
	if err := p.sub.Send("count", nil); err != nil {
		return c, errors.Join(err, p.sub.Await(ctx, "count", nil)) // what it died of says more
	}
	err = p.sub.Await(ctx, "count", &c)
	return c, err
}

// stop ends the pair and compares: everything that was sent has come.
func (p *pair) stop(ctx context.Context) (all uint64, err error) {
	if err := p.pub.Send("stop", nil); err != nil {
		return 0, errors.Join(err, p.pub.Await(ctx, "sent", nil))
	}
	if err := p.pub.Await(ctx, "sent", &all); err != nil {
		return 0, err
	}
	for {
		c, err := p.count(ctx)
		if err != nil {
			return all, err
		}
		if c.Good == all {
			break
		}
	}
	for _, c := range []*child.Process{p.pub, p.sub} {
		if err := c.Send("close", nil); err != nil {
			return all, err
		}
	}
	return all, errors.Join(p.pub.Wait(ctx), p.sub.Wait(ctx))
}

// nothing is the control without anybody.
const nothing = "nothing"

// Run measures an honest pair undisturbed, beside a process that only computes, and beside each attack, and prints a table.
// An error is also that a message was lost, doubled or changed.
func Run(ctx context.Context, cfg Config, launch Launcher, out io.Writer) ([]Row, error) {
	names := cfg.Attacks
	if len(names) == 0 {
		for _, a := range Attacks() {
			names = append(names, a.Name)
		}
	}
	for _, n := range names {
		if _, err := find(n); err != nil {
			return nil, err
		}
	}
	p, err := startPair(ctx, cfg, launch)
	if err != nil {
		return nil, err
	}
	defer p.kill()
	var rows []Row
	row := func(name string) (r Row, err error) {
		if r, err = measure(ctx, cfg, p, name, launch); err != nil {
			err = fmt.Errorf("beside %s: %w", name, err)
		}
		return r, err
	}
	if _, err := row(nothing); err != nil { // warm
		return nil, err
	}
	for _, name := range append([]string{nothing, spinName}, names...) {
		r, err := row(name)
		if err != nil {
			return rows, err
		}
		rows = append(rows, r)
	}
	last, err := row(nothing)
	if err != nil {
		return rows, err
	}
	rows = append(rows, last)
	base := (rows[0].PerSec + last.PerSec) / 2
	for i := range rows {
		rows[i].Ratio, rows[i].Fair = rows[i].PerSec/base, rows[i].PerSec/rows[1].PerSec
	}
	all, err := p.stop(ctx)
	if err != nil {
		return rows, err
	}
	return rows, printRows(out, cfg, rows, all)
}

// measure counts what the pair does while name attacks.
func measure(ctx context.Context, cfg Config, p *pair, name string, launch Launcher) (r Row, err error) {
	r.Attack = name
	var a *child.Process
	if name != nothing {
		if a, err = launch(AttackRole, attackConfig{Socket: cfg.Socket, Attack: name, Seed: cfg.Seed}); err != nil {
			return r, err
		}
		defer a.Kill()
		if err := a.Await(ctx, "ready", nil); err != nil {
			return r, err
		}
	}
	used := func() (pair, center time.Duration) {
		return procfs.Of(p.pub.PID()).CPU + procfs.Of(p.sub.PID()).CPU, procfs.Of(cfg.Daemon).CPU
	}
	before, err := p.count(ctx)
	if err != nil {
		return r, err
	}
	pair0, center0 := used()
	select {
	case <-time.After(cfg.Each):
	case <-ctx.Done():
		return r, context.Cause(ctx)
	}
	after, err := p.count(ctx)
	if err != nil {
		return r, err
	}
	pair1, center1 := used()
	if after.Good == before.Good {
		return r, errors.New("the honest pair stands still")
	}
	seconds := float64(after.AtNs-before.AtNs) / 1e9
	r.PerSec = float64(after.Good-before.Good) / seconds
	r.NsEach = float64(pair1-pair0) / float64(after.Good-before.Good)
	r.Center = (center1 - center0).Seconds() / seconds
	use := procfs.Of(cfg.Daemon)
	r.RSS, r.Threads, r.FDs = use.Private, use.Threads, use.FDs
	if a == nil {
		return r, nil
	}
	if err := a.Send("close", nil); err != nil {
		return r, errors.Join(err, a.Await(ctx, "done", nil))
	}
	if err := a.Await(ctx, "done", &r.Did); err != nil {
		return r, err
	}
	r.Named = strings.Contains(cfg.Log(), fmt.Sprintf("pid=%d ", a.PID()))
	return r, a.Wait(ctx)
}

func printRows(out io.Writer, cfg Config, rows []Row, all uint64) error {
	what := map[string]string{nothing: "", spinName: "an innocent process that computes"}
	for _, a := range Attacks() {
		what[a.Name] = a.What
	}
	w := tabwriter.NewWriter(out, 2, 0, 2, ' ', 0)
	fmt.Fprintf(w, "beside\tmessages/s\tof undisturbed\tof spinner's\tCPU ns each\tcenter: cores\tMiB\tthreads\tfds\tin the log\twhat it does\n")
	for _, r := range rows {
		named := "no"
		if r.Named {
			named = "by pid"
		}
		fmt.Fprintf(w, "%s\t%.0f\t%.2f\t%.2f\t%.0f\t%.2f\t%.0f\t%d\t%d\t%s\t%s\n", r.Attack, r.PerSec, r.Ratio, r.Fair, r.NsEach, r.Center, float64(r.RSS)/(1<<20), r.Threads, r.FDs, named, what[r.Attack])
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "all %d honest messages of %d bytes came, each once, in order and unchanged\n", all, cfg.Size)
	return err
}
