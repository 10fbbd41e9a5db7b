package soak

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"
)

// settle ends a round: everybody goes on, publishers and clients pause, what is under way arrives, and everything is compared.
// Then all but the anchors leave, and nothing may be left of them.
func (d *director) settle(ctx context.Context) error {
	d.downUntil = time.Time{}
	if !d.centerStill.IsZero() {
		d.bus.Signal(syscall.SIGCONT)
		d.centerStill = time.Time{}
	}
	for _, m := range d.alive() {
		if !m.stopped.IsZero() {
			d.cont(m)
		}
	}
	if err := d.due(ctx); err != nil { // the center is back
		return err
	}
	every := func(f func(*member) bool) func() bool {
		return func() bool { return !slices.ContainsFunc(d.alive(), func(m *member) bool { return !f(m) }) }
	}
	if err := d.until(ctx, "all have set up what they are to do, or left", every(func(m *member) bool { return m.ready && !m.closing })); err != nil {
		return d.whoIsLate(err, func(m *member) bool { return m.ready && !m.closing })
	}
	d.tell(d.alive(), cmdPause, nil)
	if err := d.until(ctx, "all publishers and clients pause", every(func(m *member) bool { return m.paused })); err != nil {
		return d.whoIsLate(err, func(m *member) bool { return m.paused })
	}
	if err := d.compare(ctx); err != nil {
		return err
	}
	if err := d.handledOnce(); err != nil {
		return err
	}
	if err := d.quiet(ctx, "the bus is quiet"); err != nil {
		return err
	}
	for _, m := range d.alive() {
		if !m.anchor {
			m.closing = true
			_ = m.p.Send(cmdClose, nil) // it may just have exited
		}
	}
	if err := d.until(ctx, "all but the anchors have left", every(func(m *member) bool { return m.anchor })); err != nil {
		return d.whoIsLate(err, func(m *member) bool { return m.anchor })
	}
	for id, m := range d.members {
		if m.anchor {
			continue
		}
		if err := d.until(ctx, m.name()+" has ended", func() bool { return m.ended }); err != nil {
			return err
		}
		d.close(m)
		delete(d.members, id)
	}
	d.tell(d.alive(), cmdForget, d.numbers())
	if err := d.quiet(ctx, "nothing is left of those that have left"); err != nil {
		return err
	}
	if err := d.measure(ctx); err != nil {
		return err
	}
	d.rebase()
	for _, m := range d.alive() {
		m.paused = false
	}
	d.tell(d.alive(), cmdResume, nil)
	return nil
}

func (d *director) whoIsLate(err error, isDone func(*member) bool) error {
	for _, m := range d.alive() {
		if !isDone(m) {
			d.fault("it is waited for %s", m.name())
		}
	}
	return err
}

func (d *director) numbers() (all []uint32) {
	for _, m := range d.alive() {
		all = append(all, m.cfg.Member)
	}
	return all
}

func (d *director) tell(all []*member, command string, data any) {
	for _, m := range all {
		_ = m.p.Send(command, data) // who has just exited needn't be told
	}
}

// reports has everybody say how it stands.
func (d *director) reports(ctx context.Context) error {
	d.serial++
	d.tell(d.alive(), cmdReport, d.serial)
	return d.until(ctx, "all have reported", func() bool {
		return !slices.ContainsFunc(d.alive(), func(m *member) bool { return m.report.Serial != d.serial })
	})
}

// eventually tries until nothing is wrong any more. What is wrong when the guard has passed is a fault.
func (d *director) eventually(ctx context.Context, what string, try func(context.Context) ([]string, error)) error {
	late := time.Now().Add(guard / 3)
	for {
		wrong, err := try(ctx)
		if err != nil || len(wrong) == 0 {
			return err
		}
		if time.Now().After(late) {
			for _, text := range wrong {
				d.fault("%s", text)
			}
			d.askStacks(ctx)
			return d.fault("waited %v until %s", guard/3, what)
		}
		if err := d.listen(ctx, nil, what); err != nil {
			return err
		}
	}
}

// compare holds what all subscriptions got against what was sent.
func (d *director) compare(ctx context.Context) error {
	return d.eventually(ctx, "what was sent has arrived", func(ctx context.Context) ([]string, error) {
		if err := d.reports(ctx); err != nil {
			return nil, err
		}
		wrong, pairs := d.differences()
		if len(wrong) == 0 {
			d.sum.Pairs += pairs
		}
		return wrong, nil
	})
}

// handledOnce looks for requests that more than one handler had, or one twice.
func (d *director) handledOnce() error {
	for _, m := range d.members {
		j := d.journal(m)
		if j == nil {
			continue
		}
		for i := range uint64(handledSlots) {
			if n, by := j.handled(i); n > 1 {
				return d.fault("a request of %s, number %d modulo %d, was handled %d times, the last time by member %d", m.name(), i, handledSlots, n, by)
			}
		}
	}
	return nil
}

// quiet looks at the whole bus, until it shows nothing that isn't so.
func (d *director) quiet(ctx context.Context, what string) error {
	return d.eventually(ctx, what, func(ctx context.Context) ([]string, error) {
		wrong, err := d.look(ctx)
		if len(wrong) == 0 && err == nil {
			d.sum.Looks++
		}
		return wrong, err
	})
}

// look compares who and what the center shows with who is there, now that nothing is sent.
func (d *director) look(ctx context.Context) (wrong []string, err error) {
	say := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	procs, err := d.inspector.Procs(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask for the processes: %w", err)
	}
	expected := map[int32]*member{}
	for _, m := range d.alive() {
		expected[int32(m.p.PID())] = m
	}
	sessions := map[uint64]string{}
	for _, r := range procs {
		m := expected[r.GetPid()]
		delete(expected, r.GetPid())
		switch {
		case r.GetState() == "gone":
		case r.GetSession() == d.inspector.Session():
			sessions[r.GetSession()] = "the inspector"
		case m == nil:
			say("the center shows %s (pid %d, %s), which isn't there", r.GetName(), r.GetPid(), r.GetState())
		case r.GetState() != "online" || r.GetName() != m.cfg.Name || r.GetFaults() > 0:
			say("the center shows %s as %s, %s, with %d faults", m.name(), r.GetName(), r.GetState(), r.GetFaults())
		default:
			sessions[r.GetSession()] = m.name()
		}
	}
	for _, m := range expected {
		say("the center doesn't show %s", m.name())
	}
	found, err := d.inspector.Check(ctx)
	if err != nil {
		return nil, fmt.Errorf("check the bus: %w", err)
	}
	for _, f := range found.Faults {
		say("fsck: %s: %s, at %s", f.GetKind(), f.GetWhat(), f.GetWhere())
	}
	msgs, _, err := d.inspector.Msgs(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask for the blocks: %w", err)
	}
	for _, b := range msgs {
		keeps := slices.ContainsFunc(d.alive(), func(m *member) bool {
			return m.cfg.Name == b.GetOwner() && slices.ContainsFunc(m.cfg.Pubs, func(p pubSpec) bool { return p.Keep > 0 })
		})
		switch {
		case sessions[b.GetOwnerSession()] == "":
			say("block %x of %s is granted, which isn't there", b.GetId(), b.GetOwner())
		case len(b.GetHolders()) > 0 && !keeps:
			say("block %x of %s (%d bytes, on %s) is held by %s; all was given back", b.GetId(), b.GetOwner(), b.GetSize(), b.GetTopic(), strings.Join(b.GetHolders(), ", "))
		}
	}
	topics, err := d.inspector.Topics(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask for the topics: %w", err)
	}
	names := map[string]bool{}
	for _, m := range d.alive() {
		names[m.cfg.Name] = true
	}
	for _, t := range topics {
		for _, name := range slices.Concat(t.GetPublishers(), t.GetSubscribers(), t.GetProviders()) {
			if !names[name] {
				say("the center shows %s on the %s %q, which isn't there", name, t.GetKind(), t.GetTopic())
			}
		}
		if t.GetDepth() > 0 {
			say("the center shows %d messages unread on %s %q", t.GetDepth(), t.GetKind(), t.GetTopic())
		}
	}
	return wrong, nil
}

// part ends the anchors, when all is compared.
func (d *director) part(ctx context.Context) error {
	all := d.alive()
	d.tell(all, cmdPause, nil)
	for _, m := range all {
		m.closing = true
	}
	if err := d.until(ctx, "all publishers and clients pause", func() bool {
		return !slices.ContainsFunc(all, func(m *member) bool { return !m.paused })
	}); err != nil {
		return err
	}
	if err := d.compare(ctx); err != nil {
		return err
	}
	d.tell(all, cmdClose, nil)
	if err := d.until(ctx, "the anchors have left", func() bool {
		return !slices.ContainsFunc(all, func(m *member) bool { return !m.ended })
	}); err != nil {
		return err
	}
	if err := d.quiet(ctx, "nothing is left of anybody"); err != nil {
		return err
	}
	d.sayProgress()
	return nil
}
