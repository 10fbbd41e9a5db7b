package demo

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bhome-bus/bhome/cmd/internal/listing"
	"github.com/bhome-bus/bhome/cmd/internal/tables"
	"github.com/bhome-bus/bhome/node"
)

// view is what the center shows of the bus.
type view struct {
	procs  []*node.ProcRow
	msgs   []*node.MsgRow
	total  node.MsgTotals
	topics []*node.TopicRow
}

func (d *director) look(ctx context.Context) (v view, err error) {
	if v.procs, err = d.inspector.Procs(ctx); err != nil {
		return v, err
	}
	if v.msgs, v.total, err = d.inspector.Msgs(ctx); err != nil {
		return v, err
	}
	v.topics, err = d.inspector.Topics(ctx)
	return v, err
}

// shownMsgs is how many blocks the demo shows of the thousands there are.
const shownMsgs = 6

// show prints procs, msgs and topics, and holds who is on the bus against who should be.
func (d *director) show(ctx context.Context, when string) error {
	v, err := d.look(ctx)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "\n== %s\n", when)
	held := v.held()
	slices.SortStableFunc(held, func(x, y *node.MsgRow) int { return cmp.Compare(y.GetSize(), x.GetSize()) })
	more := ""
	if len(held) > shownMsgs {
		more = fmt.Sprintf("and %d more that somebody holds", len(held)-shownMsgs)
		held = held[:shownMsgs]
	}
	totals := append([]listing.Extra{{Text: more}}, tables.MsgTotals(v.total)...)
	err = errors.Join(
		tables.Procs(time.Now).Render(&b, v.procs, listing.Options{}),
		writeNewline(&b),
		tables.Msgs().Render(&b, held, listing.Options{Sort: "-size"}, totals...),
		writeNewline(&b),
		tables.Topics().Render(&b, v.topics, listing.Options{}),
		writeNewline(&b),
	)
	if d.cfg.Tables != nil && err == nil {
		_, err = d.cfg.Tables.Write(b.Bytes())
	}
	d.fault(d.differences(v)...)
	return err
}

func writeNewline(b *bytes.Buffer) error { return b.WriteByte('\n') }

// held are the blocks that somebody has.
func (v view) held() (held []*node.MsgRow) {
	for _, m := range v.msgs {
		if len(m.GetHolders()) > 0 {
			held = append(held, m)
		}
	}
	return held
}

// differences are what the center says of who is there, other than what the director knows.
func (d *director) differences(v view) (faults []string) {
	want := map[int]*member{}
	var pubs, subs []string
	for _, m := range d.living() {
		want[m.p.PID()] = m
		switch {
		case slices.Contains(d.pubs, m):
			pubs = append(pubs, m.name)
		case slices.Contains(d.subs, m):
			subs = append(subs, m.name)
		}
	}
	for _, r := range v.procs {
		pid := int(r.GetPid())
		m := want[pid]
		delete(want, pid)
		switch {
		case m == nil && r.GetSession() == d.inspector.Session():
		case m == nil && r.GetState() == "gone":
		case m == nil:
			faults = append(faults, fmt.Sprintf("procs shows %s (pid %d, %s), which isn't there", r.GetName(), pid, r.GetState()))
		case r.GetName() != m.name || r.GetUid() != uid() || r.GetSession() != m.session || r.GetState() != "online":
			faults = append(faults, fmt.Sprintf("procs shows pid %d as %s, uid %d, session %x, %s; it is %s, uid %d, session %x, online",
				pid, r.GetName(), r.GetUid(), r.GetSession(), r.GetState(), m.name, uid(), m.session))
		}
	}
	for pid, m := range want {
		faults = append(faults, fmt.Sprintf("procs doesn't show %s (pid %d)", m.name, pid))
	}
	for _, t := range []struct {
		topic, kind string
		ends        func(*node.TopicRow) [][]string
		want        [][]string
	}{
		{filesTopic, "pubsub", func(r *node.TopicRow) [][]string { return [][]string{r.GetPublishers(), r.GetSubscribers()} }, [][]string{pubs, subs}},
		{serviceTopic, "service", func(r *node.TopicRow) [][]string { return [][]string{r.GetProviders()} }, [][]string{{wordsName}}},
	} {
		i := slices.IndexFunc(v.topics, func(r *node.TopicRow) bool { return r.GetTopic() == t.topic && r.GetKind() == t.kind })
		if i < 0 {
			faults = append(faults, fmt.Sprintf("topics doesn't show the %s %s", t.kind, t.topic))
			continue
		}
		row := v.topics[i]
		for j, got := range t.ends(row) {
			if !sameNames(got, t.want[j]) {
				faults = append(faults, fmt.Sprintf("topics shows %s at %s, there are %s", strings.Join(got, ","), t.topic, strings.Join(t.want[j], ",")))
			}
		}
		if row.GetDrops() > 0 {
			faults = append(faults, fmt.Sprintf("topics shows %d drops on %s", row.GetDrops(), t.topic))
		}
	}
	return faults
}

func sameNames(a, b []string) bool {
	a, b = slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	return slices.Equal(a, b)
}

// compare: everything has been sent and received, and all are still there: now the center's counts must be the director's.
func (d *director) compare(ctx context.Context) error {
	var v view
	var open []string
	err := d.poll(ctx, "the bus is quiet", func(ctx context.Context) (ok bool, err error) {
		now, err := d.look(ctx)
		if err != nil {
			return false, err
		}
		v, open = now, d.unequal(now)
		return len(open) == 0, nil
	})
	if err != nil && !errors.Is(err, errUnsettled) {
		return err
	}
	d.fault(open...)
	for _, m := range v.held() {
		d.sum.Leaked++
		if d.sum.Leaked <= maxCorruptions {
			d.fault(fmt.Sprintf("leaked: block %x of %s (%d bytes, topic %s), held by %s for %v", m.GetId(), m.GetOwner(), m.GetSize(), m.GetTopic(),
				strings.Join(m.GetHolders(), ","), time.Duration(m.GetSentAgeNs()).Round(time.Millisecond)))
		}
	}
	return d.show(ctx, "all sent and received")
}

// unequal are the counts of the center that aren't the director's.
func (d *director) unequal(v view) (faults []string) {
	row := func(m *member) *node.ProcRow {
		for _, r := range v.procs {
			if r.GetSession() == m.session {
				return r
			}
		}
		return &node.ProcRow{}
	}
	expect := func(m *member, what string, shown, own uint64) {
		if shown != own {
			faults = append(faults, fmt.Sprintf("procs shows %s of %d %s, it counted %d", m.name, shown, what, own))
		}
	}
	for _, m := range []*member{d.subs[0], d.subs[2]} {
		expect(m, "received", row(m).GetReceived(), m.got.Received)
	}
	for _, m := range []*member{d.pubs[0], d.pubs[2]} {
		expect(m, "sent", row(m).GetSent(), m.done.Pushes)
	}
	for _, t := range v.topics {
		if t.GetTopic() != filesTopic {
			continue
		}
		if t.GetDepth() > 0 {
			faults = append(faults, fmt.Sprintf("topics shows %d messages waiting on %s, there are none", t.GetDepth(), filesTopic))
		}
		if sent := d.pubs[0].done.Sent + d.pubs[2].done.Sent; t.GetSent() != sent {
			faults = append(faults, fmt.Sprintf("topics shows %d messages sent on %s by those there, they counted %d", t.GetSent(), filesTopic, sent))
		}
	}
	if n := len(v.held()); n > 0 {
		faults = append(faults, fmt.Sprintf("msgs shows %d blocks that somebody holds, all were given back", n))
	}
	return faults
}

// nothingLeft waits until the center has nothing of the demo any more: what is then still granted has leaked.
func (d *director) nothingLeft(ctx context.Context) error {
	var v view
	var left []*node.MsgRow
	err := d.poll(ctx, "nothing is left", func(ctx context.Context) (ok bool, err error) {
		now, err := d.look(ctx)
		if err != nil {
			return false, err
		}
		v = now
		// The director's own block is that of its handshake.
		left = slices.DeleteFunc(v.msgs, func(m *node.MsgRow) bool { return m.GetOwnerSession() == d.inspector.Session() })
		return len(left) == 0 && v.total.Blocks <= 1 && len(v.topics) == 0 && d.strangers(v) == 0, nil
	})
	switch {
	case err == nil:
		return nil
	case !errors.Is(err, errUnsettled):
		return err
	}
	for _, m := range left {
		d.fault(fmt.Sprintf("leaked: block %x of %s (%d bytes) is granted though all have left", m.GetId(), m.GetOwner(), m.GetClassBytes()))
	}
	d.sum.Leaked += max(uint64(len(left)), v.total.Blocks-min(v.total.Blocks, 1))
	if len(v.topics) > 0 || d.strangers(v) > 0 {
		d.fault(fmt.Sprintf("%d processes and %d topics are shown though all have left", d.strangers(v), len(v.topics)))
	}
	return nil
}

// strangers counts the processes shown, other than the director and those shown as gone.
func (d *director) strangers(v view) (n int) {
	for _, r := range v.procs {
		if r.GetSession() != d.inspector.Session() && r.GetState() != "gone" {
			n++
		}
	}
	return n
}
