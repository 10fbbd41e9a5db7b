package soak

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/bhome-bus/bhome/cmd/internal/child"
	"github.com/bhome-bus/bhome/cmd/internal/private"
	"github.com/bhome-bus/bhome/node"
)

// director starts the processes, hears them, disturbs them, and keeps its own count of everything. All of it is one
// goroutine's.
type director struct {
	cfg       Config
	bus       *private.Bus
	inspector *node.Node
	r         *rand.Rand
	began     time.Time
	notes     chan note
	over      chan struct{} // closed when nobody listens any more
	sum       Summary
	history   []string // what was done lately

	members map[uint32]*member // of this round, the dead too
	next    uint32             // member's number
	round   int
	calm    bool // the center isn't ended in this round

	down        bool // there is no center now
	downUntil   time.Time
	centerStill time.Time // the center is stopped until then; zero: it runs
	epoch       int       // how many centers there have been
	epochBegan  time.Time
	nextSay     time.Time
	nextLook    time.Time
	serial      int
	growth      growth
}

// member is one process and what is known of it.
type member struct {
	cfg     memberConfig
	anchor  bool // lives throughout
	p       *child.Process
	j       *journal
	started time.Time
	subs    []subState

	ready, paused, ended bool
	stopped              time.Time // until then; zero: it runs
	continued            time.Time // when it went on last
	killed, closing      bool
	report               report
	stacks               string
	epoch                int       // of the last center that was seen to know it
	known                time.Time // since when
	bornIn, readyIn      int       // epochs
	diedIn               int
	diedAt               time.Time
	alone                bool     // it died while there was no center, or a new one, or one that died before it had told all
	readySlots           uint32   // how many it had then
	settledBefore        []uint32 // members that the center knew well when this one was started
}

// note is what a member said, or its end.
type note struct {
	m     *member
	event child.Event
	ended bool
}

// errFault ends the soak: what is wrong has been told.
var errFault = errors.New("a fault was found")

func (d *director) fault(format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	d.sum.Faults = append(d.sum.Faults, fmt.Sprintf("at %v, round %d: %s", d.now(), d.round, text))
	return errFault
}

func (d *director) now() time.Duration { return time.Since(d.began).Round(time.Millisecond) }

// act notes what was done.
func (d *director) act(what, whom string) {
	d.sum.Acts[what]++
	d.note("%s %s", what, whom)
}

// note keeps what happened, for whoever looks for a fault's cause.
func (d *director) note(format string, args ...any) {
	d.history = append(d.history, fmt.Sprintf("%10v  ", d.now())+fmt.Sprintf(format, args...))
	if len(d.history) > 200 {
		d.history = d.history[1:]
	}
}

func (d *director) dir() string { return d.bus.Dir() }

// start starts a process.
func (d *director) start(cfg memberConfig, anchor bool) (*member, error) {
	d.next++
	cfg.Member, cfg.Bus, cfg.Socket, cfg.Dir, cfg.Mortal = d.next, d.bus.Name, d.bus.Socket, d.dir(), !anchor
	m := &member{cfg: cfg, anchor: anchor, started: time.Now(), bornIn: d.epoch, subs: make([]subState, len(cfg.Subs))}
	for _, other := range d.alive() {
		if d.settled(other, m.started) {
			m.settledBefore = append(m.settledBefore, other.cfg.Member)
		}
	}
	for i := range m.subs {
		m.subs[i].low = d.positions(cfg.Subs[i].Pattern, cSent)
	}
	var err error
	if m.p, err = d.cfg.Launch(cfg.Name, "soak-member", cfg); err != nil {
		return nil, err
	}
	d.members[cfg.Member] = m
	d.sum.Processes++
	go func() {
		for e := range m.p.Events() {
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
	d.act(actStart, m.name())
	return m, nil
}

func (m *member) name() string {
	return fmt.Sprintf("%s (member %d, pid %d)", m.cfg.Name, m.cfg.Member, m.p.PID())
}

// died notes when a process died.
func (d *director) died(m *member) {
	m.diedIn, m.diedAt = d.epoch, time.Now()
	m.alone = d.down || m.epoch != d.epoch || time.Since(d.epochBegan) < resumed
}

func (m *member) gone() bool { return m.ended || m.killed }

// journal is the member's, once there is one.
func (d *director) journal(m *member) *journal {
	if m.j == nil {
		if j, err := openJournal(d.dir(), m.cfg.Member, false); err == nil {
			m.j = j
		}
	}
	return m.j
}

// alive are the members that have not ended and were not killed, by number.
func (d *director) alive() (all []*member) {
	for _, m := range d.members {
		if !m.ended && !m.killed {
			all = append(all, m)
		}
	}
	slices.SortFunc(all, func(a, b *member) int { return int(a.cfg.Member) - int(b.cfg.Member) })
	return all
}

// guard is how long anything may take that comes about by itself. It is far above what is usual: it only bounds hangs.
const guard = 90 * time.Second

// until takes notes until cond holds.
func (d *director) until(ctx context.Context, what string, cond func() bool) error {
	late := time.NewTimer(guard)
	defer late.Stop()
	for !cond() {
		if err := d.listen(ctx, late.C, what); err != nil {
			return err
		}
	}
	return nil
}

// listen takes a note, or lets a moment pass.
func (d *director) listen(ctx context.Context, late <-chan time.Time, what string) error {
	tick := time.NewTimer(pollEvery)
	defer tick.Stop()
	var gone <-chan struct{}
	if !d.down {
		gone = d.bus.Done()
	}
	select {
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", what, context.Cause(ctx))
	case <-late:
		d.askStacks(ctx)
		return d.fault("a hang: %v have passed, and still not: %s", guard, what)
	case <-gone:
		return d.fault("bhomed has ended by itself: %v", d.bus.Log())
	case n := <-d.notes:
		return d.take(n)
	case <-tick.C:
		return nil
	}
}

// pollEvery is how often the director looks around when nobody says anything.
const pollEvery = 5 * time.Millisecond

func (d *director) take(n note) error {
	m := n.m
	if n.ended {
		return d.ended(m)
	}
	var text string
	switch n.event.Name {
	case child.Failed, evFault:
		if err := n.event.Read(&text); err != nil {
			return err
		}
		return d.fault("%s: %s", m.name(), text)
	case evReady:
		m.ready, m.readyIn = true, d.epoch
		if j := d.journal(m); j != nil {
			m.readySlots = uint32(j.slots())
		}
	case evSubscribed:
		var e subscribedEvent
		if err := n.event.Read(&e); err != nil {
			return err
		}
		d.subscribed(m, e)
	case evPaused:
		m.paused = true
	case evStacks:
		return n.event.Read(&m.stacks)
	case evReport:
		m.report = report{}
		return n.event.Read(&m.report)
	}
	return nil
}

// ended judges a process's end.
func (d *director) ended(m *member) error {
	m.ended = true
	if !m.killed {
		d.died(m)
	}
	<-m.p.Done()
	switch j := d.journal(m); {
	case m.killed:
		return nil
	case j != nil && j.exiting():
		d.act(actExit, m.name())
		return nil
	}
	err := m.p.Wait(context.Background())
	if m.closing && err == nil {
		return nil
	}
	return d.fault("%s has ended, and nobody had killed it: %v", m.name(), err)
}

// centerUp notes that there is a center, a new one.
func (d *director) centerUp() {
	d.down = false
	d.epoch++
	d.epochBegan = time.Now()
	d.note("bhomed is back, the %d. of its kind", d.epoch)
}

func (d *director) killAll() {
	close(d.over)
	for _, m := range d.members {
		m.p.Signal(syscall.SIGCONT)
		m.p.Kill()
		d.close(m)
	}
	if !d.centerStill.IsZero() {
		d.bus.Signal(syscall.SIGCONT)
	}
	if d.down { // Close wants a daemon that ends cleanly
		if err := d.bus.Run(context.Background()); err != nil {
			d.fault("bhomed does not start again: %v", err)
		}
		d.down = false
	}
}

// close counts what a member did, and lets go of its journal.
func (d *director) close(m *member) {
	d.count(m, &d.sum)
	if m.j != nil {
		m.j.close()
		m.j = nil
		_ = os.Remove(journalPath(d.dir(), m.cfg.Member)) // the folder goes with the bus
	}
}

// count adds up a member's journal.
func (d *director) count(m *member, sum *Summary) {
	j := d.journal(m)
	if j == nil {
		return
	}
	for i := range j.slots() {
		switch s := j.slot(i); s.kind() {
		case slotPub:
			sum.Published += s.get(cSent)
			sum.PublishedB += s.get(cBytes)
			sum.Refused += s.get(cRefused)
		case slotSub:
			sum.Received += s.get(cBegun)
			sum.ReceivedB += s.get(cBytes)
		case slotAsk:
			sum.Requests += s.get(cBegun)
			sum.Replies += s.get(cSent)
			sum.ClearErrors += s.get(cFailed)
		}
	}
}

// askStacks has everybody write down what its goroutines do: into a folder that outlives the soak.
func (d *director) askStacks(ctx context.Context) {
	all := d.alive()
	for _, m := range all {
		m.p.Signal(syscall.SIGCONT)
		_ = m.p.Send(cmdStacks, nil) // who can't hear it says nothing
	}
	late := time.After(5 * time.Second)
	for waiting := true; waiting; {
		select {
		case n := <-d.notes:
			if !n.ended && n.event.Name == evStacks {
				_ = n.event.Read(&n.m.stacks)
			}
			waiting = slices.ContainsFunc(all, func(m *member) bool { return m.stacks == "" })
		case <-late:
			waiting = false
		case <-ctx.Done():
			return
		}
	}
	dir, err := os.MkdirTemp("", "bhome-soak-stacks-")
	if err != nil {
		return
	}
	for _, m := range all {
		err = errors.Join(err, os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d-%s", m.cfg.Member, m.cfg.Name)), []byte(m.stacks), 0o600))
	}
	if !d.down {
		d.bus.Signal(syscall.SIGQUIT) // a Go program says where it is, and ends
		<-d.bus.Done()
		err = errors.Join(err, os.WriteFile(filepath.Join(dir, "bhomed"), []byte(d.bus.Log()), 0o600))
		d.down = true
	}
	fmt.Fprintf(d.cfg.Out, "what all goroutines do is in %s (%v)\n", dir, err)
}

// tellWhere says what led to a fault.
func (d *director) tellWhere() {
	var b strings.Builder
	fmt.Fprintf(&b, "what was done before it:\n  %s\n", strings.Join(d.history, "\n  "))
	for _, m := range d.alive() {
		fmt.Fprintf(&b, "%s: ready %v, paused %v, stopped %v, ended %v, %d publishers, %d subscriptions, %d services, %d clients\n",
			m.name(), m.ready, m.paused, !m.stopped.IsZero(), m.ended, len(m.cfg.Pubs), len(m.cfg.Subs), len(m.cfg.Serves), len(m.cfg.Asks))
	}
	if log := strings.TrimSpace(d.bus.Log()); log != "" {
		lines := strings.Split(log, "\n")
		fmt.Fprintf(&b, "the last of bhomed's log:\n  %s\n", strings.Join(lines[max(0, len(lines)-20):], "\n  "))
	}
	fmt.Fprint(d.cfg.Out, b.String())
}
