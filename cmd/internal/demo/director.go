package demo

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/bhome-bus/bhome/cmd/internal/child"
	"github.com/bhome-bus/bhome/cmd/internal/latency"
	"github.com/bhome-bus/bhome/cmd/internal/private"
	"github.com/bhome-bus/bhome/node"
)

// director starts the processes, hears them, and keeps its own count of everything.
type director struct {
	cfg       Config
	tree      *tree
	bus       *private.Bus
	inspector *node.Node
	notes     chan note
	over      chan struct{} // closed when nobody listens any more
	sum       Summary

	subs   []*member // the survivor, the one to be killed, its replacement
	pubs   []*member // the same
	words  *member
	load   *member
	went   time.Time
	lastNs int64
}

// member is one process and what it has said so far.
type member struct {
	name    string
	p       *child.Process
	session uint64
	ready   bool
	mayEnd  bool // its end is no surprise
	ended   bool

	progress pubProgress // publishers: what it says it has sent
	got      subProgress // subscribers
	marked   *pubProgress
	done     *pubDone
	report   *subReport
	load     *loadReport
}

// note is what a member said, or its end.
type note struct {
	m     *member
	event child.Event
	ended bool
}

func (d *director) say(format string, args ...any) { fmt.Fprintf(d.cfg.Out, format+"\n", args...) }

// start starts a process and has its events come to notes.
func (d *director) start(name, role string, config any) (*member, error) {
	p, err := d.cfg.Launch(name, role, config)
	if err != nil {
		return nil, err
	}
	m := &member{name: name, p: p}
	go func() {
		for e := range p.Events() {
			select {
			case d.notes <- note{m: m, event: e}:
			case <-d.over:
			}
		}
		select {
		case d.notes <- note{m: m, ended: true}:
		case <-d.over:
		}
	}()
	return m, nil
}

func (d *director) base(name string) base {
	return base{Name: name, Bus: d.bus.Name, Socket: d.bus.Socket, Root: d.cfg.Tree}
}

// until takes notes until cond holds.
func (d *director) until(ctx context.Context, what string, cond func() bool) error {
	for !cond() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting until %s: %w", what, context.Cause(ctx))
		case <-d.bus.Done():
			return fmt.Errorf("waiting until %s: bhomed has ended", what)
		case n := <-d.notes:
			if err := d.take(n); err != nil {
				return fmt.Errorf("waiting until %s: %w", what, err)
			}
		}
	}
	return nil
}

func (d *director) take(n note) error {
	m := n.m
	if n.ended {
		m.ended = true
		if m.mayEnd {
			return nil
		}
		return fmt.Errorf("%s has ended: %w", m.name, m.p.Await(context.Background(), "anything", nil))
	}
	switch n.event.Name {
	case child.Failed:
		var text string
		_ = n.event.Read(&text) // what can't be read says nothing
		return fmt.Errorf("%s (pid %d): %s", m.name, m.p.PID(), text)
	case "ready", "subscribed":
		var r subReady
		if err := n.event.Read(&r); err != nil {
			return err
		}
		m.session, m.ready = r.Session, true
	case "progress":
		if isPub(d, m) {
			return n.event.Read(&m.progress)
		}
		return n.event.Read(&m.got)
	case "mark":
		m.marked = new(pubProgress)
		return n.event.Read(m.marked)
	case "done":
		m.done = new(pubDone)
		err := n.event.Read(m.done)
		m.progress = m.done.pubProgress
		return err
	case "report":
		if m == d.load {
			m.load = &loadReport{Latency: latency.New()}
			return n.event.Read(m.load)
		}
		m.report = &subReport{Latency: latency.New()}
		err := n.event.Read(m.report)
		m.got = m.report.subProgress
		return err
	}
	return nil
}

func isPub(d *director, m *member) bool {
	for _, p := range d.pubs {
		if p == m {
			return true
		}
	}
	return false
}

// living are the members that should be on the bus.
func (d *director) living() (all []*member) {
	for _, m := range append(append([]*member{d.words, d.load}, d.subs...), d.pubs...) {
		if m != nil && !m.mayEnd {
			all = append(all, m)
		}
	}
	return all
}

// tellWhere says how far everybody was when it went wrong, and shows the bus if it still answers.
func (d *director) tellWhere() {
	for _, m := range d.living() {
		d.say("%s (pid %d): ended %v, sent %d, received %d", m.name, m.p.PID(), m.ended, m.progress.Sent, m.got.Received)
	}
	ctx, cancel := context.WithTimeout(context.Background(), settleTimeout)
	defer cancel()
	d.cfg.Tables = d.cfg.Out
	if err := d.show(ctx, "when it went wrong"); err != nil {
		d.say("the bus doesn't answer: %v", err)
	}
}

func (d *director) killAll() {
	close(d.over)
	for _, m := range append(append([]*member{d.words, d.load}, d.subs...), d.pubs...) {
		if m != nil {
			m.p.Kill()
		}
	}
}

// startSub and startPub start the next of their kind. A publisher goes on until it is told that a pass is the last.
func (d *director) startSub(ctx context.Context, name, leak string) (*member, error) {
	m, err := d.start(name, "demo-sub", subConfig{d.base(name), leak})
	if err != nil {
		return nil, err
	}
	d.subs = append(d.subs, m)
	return m, d.until(ctx, name+" has subscribed", func() bool { return m.ready })
}

func (d *director) startPub(name string, corrupt int) (*member, error) {
	m, err := d.start(name, "demo-pub", pubConfig{base: d.base(name), Subscribers: 2, Corrupt: corrupt})
	if err == nil {
		d.pubs = append(d.pubs, m)
	}
	return m, err
}

// uid is that of all processes of the demo.
func uid() uint32 { return uint32(os.Getuid()) }
