package demo

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/bhome-bus/bhome/cmd/internal/latency"
)

// The roles' names on the bus. A replacement takes the name of whom it replaces.
const (
	survivorSub  = "demo.reader-1"
	victimSub    = "demo.reader-2"
	survivorPub  = "demo.streamer-1"
	victimPub    = "demo.streamer-2"
	wordsName    = "demo.words"
	loadName     = "demo.asker"
	directorName = "demo.director"
)

// slowThird is how long a third of a pass may take before the number of passes is reduced to end in time.
const slowThird = 3 * time.Second

// begin: two subscribers, the service and its load, two publishers; then they go.
func (d *director) begin(ctx context.Context) (err error) {
	d.sum.Files = len(d.tree.files)
	leak := ""
	if d.cfg.Inject == Leak {
		leak = survivorPub // what the dead published is nobody's any more
	}
	if _, err := d.startSub(ctx, survivorSub, leak); err != nil {
		return err
	}
	if _, err := d.startSub(ctx, victimSub, ""); err != nil {
		return err
	}
	if d.words, err = d.start(wordsName, "demo-words", d.base(wordsName)); err != nil {
		return err
	}
	if err := d.until(ctx, "the word-count service is there", func() bool { return d.words.ready }); err != nil {
		return err
	}
	if d.load, err = d.start(loadName, "demo-load", d.base(loadName)); err != nil {
		return err
	}
	corrupt := -1
	if d.cfg.Inject == Corrupt {
		corrupt = len(d.tree.files) / 2
	}
	if _, err := d.startPub(survivorPub, corrupt); err != nil {
		return err
	}
	if _, err := d.startPub(victimPub, -1); err != nil {
		return err
	}
	if err := d.until(ctx, "the publishers are ready", func() bool { return d.pubs[0].ready && d.pubs[1].ready && d.load.ready }); err != nil {
		return err
	}
	d.went = time.Now()
	for _, p := range d.pubs {
		if err := p.p.Send("go", nil); err != nil {
			return err
		}
	}
	d.say("2 publishers stream to 2 subscribers that check SHA-256; 1 service answers requests")
	return nil
}

// strike: in the middle of a pass, a publisher and a subscriber are killed.
func (d *director) strike(ctx context.Context) error {
	pub, sub := d.pubs[1], d.subs[1]
	third := uint64(len(d.tree.files)+2) / 3
	if err := d.until(ctx, "a third of a pass is done", func() bool { return pub.progress.Sent >= third }); err != nil {
		return err
	}
	if err := d.show(ctx, "in the middle of the first pass"); err != nil {
		return err
	}
	if took := time.Since(d.went); took > slowThird && d.cfg.Passes > 1 {
		d.say("this machine is slow (%v for a third of a pass): one pass each", took.Round(time.Millisecond))
		d.cfg.Passes = 1
	}
	pub.mayEnd, sub.mayEnd = true, true
	struck := time.Now()
	pub.p.Signal(syscall.SIGKILL)
	sub.p.Signal(syscall.SIGKILL)
	if err := d.until(ctx, "the killed have ended", func() bool { return pub.ended && sub.ended }); err != nil {
		return err
	}
	<-pub.p.Done()
	<-sub.p.Done()
	d.sum.Killed = 2
	dead := time.Now()
	if err := d.poll(ctx, "the center has noticed the deaths", func(ctx context.Context) (bool, error) {
		rows, err := d.inspector.Procs(ctx)
		for _, r := range rows {
			if pid := int(r.GetPid()); r.GetState() != "gone" && (pid == pub.p.PID() || pid == sub.p.PID()) {
				return false, nil
			}
		}
		return true, err
	}); err != nil {
		return err
	}
	d.sum.GoneAfterMs = float64(time.Since(dead).Microseconds()) / 1000
	d.say("killed %s (pid %d, after it had said %d files) and %s (pid %d) with SIGKILL; gone %v after their death (%v after the signal)",
		pub.name, pub.p.PID(), pub.progress.Sent, sub.name, sub.p.PID(), time.Since(dead).Round(100*time.Microsecond), time.Since(struck).Round(100*time.Microsecond))
	return nil
}

// replace: a new subscriber, of which everything is due that is published after its Subscribe returned; a new publisher.
func (d *director) replace(ctx context.Context) error {
	if _, err := d.startSub(ctx, victimSub, ""); err != nil {
		return err
	}
	// What the surviving publisher says now, it had sent no earlier than Subscribe returned.
	if err := d.pubs[0].p.Send("mark", nil); err != nil {
		return err
	}
	if err := d.until(ctx, "the publisher has marked its place", func() bool { return d.pubs[0].marked != nil }); err != nil {
		return err
	}
	p, err := d.startPub(victimPub, -1)
	if err != nil {
		return err
	}
	if err := d.until(ctx, "the new publisher is ready", func() bool { return p.ready }); err != nil {
		return err
	}
	if err := p.p.Send("go", nil); err != nil {
		return err
	}
	d.say("replaced both; the new subscriber is owed everything from file %d of %s on", d.pubs[0].marked.Sent, d.pubs[0].name)
	if err := d.show(ctx, "with the replacements"); err != nil {
		return err
	}
	for _, p := range []*member{d.pubs[0], d.pubs[2]} {
		if err := p.p.Send("last", d.cfg.Passes); err != nil {
			return err
		}
	}
	return nil
}

// finish: the publishers come to their end, and what the subscribers say is checked.
func (d *director) finish(ctx context.Context) error {
	a, b := d.pubs[0], d.pubs[2]
	if err := d.until(ctx, "the publishers are done", func() bool { return a.done != nil && b.done != nil }); err != nil {
		return err
	}
	if err := d.load.p.Send("finish", nil); err != nil {
		return err
	}
	killed := d.pubs[1]
	survivor, replacement := d.subs[0], d.subs[2]
	if err := survivor.p.Send("finish", due{a.session: a.done.Sent, b.session: b.done.Sent, killed.session: killed.progress.Sent}); err != nil {
		return err
	}
	if err := replacement.p.Send("finish", due{a.session: a.done.Sent, b.session: b.done.Sent}); err != nil {
		return err
	}
	if err := d.until(ctx, "all have reported", func() bool {
		return survivor.report != nil && replacement.report != nil && d.load.load != nil
	}); err != nil {
		return err
	}
	whole := func(m *member, from uint64, exact bool) expectation {
		return expectation{m.name, m.session, from, m.done.Sent, m.done.Sent, exact}
	}
	// The killed one had sent what it said, and at most what it hadn't yet said, the file in its hands among it.
	partial := expectation{killed.name, killed.session, 0, killed.progress.Sent, killed.progress.Sent + reportEvery, true}
	d.fault(check(survivor.name, survivor.report.Tracks, []expectation{whole(a, 0, true), whole(b, 0, true), partial})...)
	d.fault(check(replacement.name, replacement.report.Tracks, []expectation{whole(a, a.marked.Sent, false), whole(b, 0, true)})...)
	d.tally()
	return nil
}

// tally adds up what was reported.
func (d *director) tally() {
	all := latency.New()
	for _, m := range []*member{d.subs[0], d.subs[2]} {
		r := m.report
		d.sum.Delivered += r.Received
		d.sum.Bytes += r.Bytes
		d.sum.Corrupted += r.Corrupted
		d.lastNs = max(d.lastNs, r.LastNs)
		all.Merge(r.Latency)
		for _, c := range r.Corrupt {
			d.fault(fmt.Sprintf("%s: %s of %s is corrupt: SHA-256 %s, on the disk %s", m.name, c.File, c.Publisher, c.Got, c.Disk))
		}
		if r.Dropped > 0 {
			d.fault(fmt.Sprintf("%s: its queue dropped %d files", m.name, r.Dropped))
		}
	}
	for _, m := range d.pubs {
		d.sum.Published += m.progress.Sent
	}
	for _, w := range d.load.load.Wrong {
		d.fault(loadName + ": " + w)
	}
	d.sum.Seconds = time.Unix(0, d.lastNs).Sub(d.went).Seconds()
	d.sum.MsgsPerSec = float64(d.sum.Delivered) / d.sum.Seconds
	d.sum.BytesPerSec = float64(d.sum.Bytes) / d.sum.Seconds
	d.sum.Latency = all.Percentiles()
	d.sum.Requests, d.sum.RequestLatency = d.load.load.Requests, d.load.load.Latency.Percentiles()
}

func (d *director) fault(texts ...string) { d.sum.Faults = append(d.sum.Faults, texts...) }

// part: everybody leaves, and nothing may be left of them.
func (d *director) part(ctx context.Context) error {
	members := d.living()
	for _, m := range members {
		m.mayEnd = true
		if err := m.p.Send("close", nil); err != nil {
			return err
		}
	}
	var errs []error
	for _, m := range members {
		if err := d.until(ctx, m.name+" has left", func() bool { return m.ended }); err != nil {
			return err
		}
		errs = append(errs, m.p.Wait(ctx))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return d.nothingLeft(ctx)
}

// pollEvery is how often the center is asked about what comes about by itself.
const pollEvery = 2 * time.Millisecond

// settleTimeout is how long what must come about by itself may take.
const settleTimeout = 3 * time.Second

var errUnsettled = errors.New("it didn't come about")

// poll asks until the answer is true.
func (d *director) poll(ctx context.Context, what string, ask func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, settleTimeout, errUnsettled)
	defer cancel()
	for {
		ok, err := ask(ctx)
		if ctx.Err() != nil {
			return fmt.Errorf("waiting until %s: %w", what, context.Cause(ctx))
		}
		if err != nil {
			return fmt.Errorf("waiting until %s: %w", what, err)
		}
		if ok {
			return nil
		}
		select {
		case <-ctx.Done():
		case n := <-d.notes: // nobody is held up meanwhile
			if err := d.take(n); err != nil {
				return err
			}
		case <-time.After(pollEvery):
		}
	}
}
