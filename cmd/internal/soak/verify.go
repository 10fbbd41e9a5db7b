package soak

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bhome-bus/bhome/node"
	"github.com/bhome-bus/bhome/wire"
)

// source is one publisher: member and slot.
type source [2]uint32

// claim is where a subscription's claim to a publisher's messages begins.
type claim struct {
	from    uint64 // what it began to send from here on must come
	loose   bool   // but not all: center and publisher may not have known each other then
	unheard bool   // the publisher was stopped then: it may still have to hear of the subscription, and won't if its center ends first
}

// subState is what the director knows of a subscription.
type subState struct {
	gen        int
	subscribed bool
	epoch      int               // of the center then
	low        map[source]uint64 // where publishers were before Subscribe was called: nothing from before that comes
	claims     map[source]claim  // of those that were there when it had returned; of all later ones, it is owed everything
	lossy      uint64            // received of publishers that don't wait, and dropped, until what was compared last
	dropped    uint64
}

// positions is how far all publishers on topics that match have come: cBegun or cSent.
func (d *director) positions(pattern string, counter int) map[source]uint64 {
	at := map[source]uint64{}
	for _, m := range d.members {
		j := d.journal(m)
		if j == nil {
			continue
		}
		for i := range j.slots() {
			if s := j.slot(i); s.kind() == slotPub && wire.MatchTopic(pattern, m.cfg.Pubs[s.spec()].Topic) {
				at[source{m.cfg.Member, uint32(i)}] = s.get(counter)
			}
		}
	}
	return at
}

// resumed is how long after a center was seen to know a process it surely knows all that process publishes and subscribes
// to. Until then less is claimed: this never makes wrong what is right.
const resumed = 3 * time.Second

func (d *director) settled(m *member, at time.Time) bool {
	return m.epoch == d.epoch && (m.bornIn == d.epoch || at.Sub(m.known) >= resumed)
}

// subscribed hears that a Subscribe has returned.
func (d *director) subscribed(m *member, e subscribedEvent) {
	st := &m.subs[e.Sub]
	d.note("%s has subscribed to %q, generation %d", m.name(), m.cfg.Subs[e.Sub].Pattern, e.Gen)
	low := st.low
	if e.Gen > 0 { // nobody knows when it was called
		low = nil
	}
	*st = subState{gen: e.Gen, subscribed: true, epoch: d.epoch, low: low, claims: map[source]claim{}}
	called := m.started
	if e.Gen > 0 {
		called = d.epochBegan // at the earliest
	}
	for src, from := range d.positions(m.cfg.Subs[e.Sub].Pattern, cBegun) {
		p := d.members[src[0]]
		old := d.down || m.bornIn != d.epoch && e.Gen == 0
		st.claims[src] = claim{from, old || p.bornIn != d.epoch && !d.settled(p, called), !p.stopped.IsZero() || time.Since(p.continued) < resumed}
	}
}

// centerEnds loosens the claims to those who can't have heard of them: who is stopped, or just was, has not read its socket. A
// Subscribe doesn't wait for such a publisher, and what the center had still to tell it is gone.
func (d *director) centerEnds() {
	d.haveHeard()
	for _, m := range d.members {
		for i := range m.subs {
			for src, c := range m.subs[i].claims {
				if c.unheard {
					c.loose = true
					m.subs[i].claims[src] = c
				}
			}
		}
	}
}

// haveHeard notes who has run for long enough since. It is called before anybody is stopped, or the center ends.
func (d *director) haveHeard() {
	for _, m := range d.members {
		for i := range m.subs {
			for src, c := range m.subs[i].claims {
				if p := d.members[src[0]]; c.unheard && (p == nil || p.heard()) {
					c.unheard = false
					m.subs[i].claims[src] = c
				}
			}
		}
	}
}

// heard tells whether a process has run for long enough to have read its socket.
func (m *member) heard() bool { return m.stopped.IsZero() && time.Since(m.continued) >= resumed/3 }

// claim is what a subscription is owed of a publisher.
func (d *director) claim(m *member, st *subState, p *member, src source) claim {
	c, ok := st.claims[src]
	if ok || st.epoch == d.epoch {
		return c
	}
	// It came later, and centers have come and gone: the one that it met may not yet have known the subscription.
	return claim{loose: !(p.bornIn == p.readyIn && m.cfg.Member < p.cfg.Member && slices.Contains(p.settledBefore, m.cfg.Member) && src[1] < p.readySlots)}
}

// differences are what subscriptions got other than what they should have, now that nobody publishes.
func (d *director) differences() (wrong []string, pairs int) {
	for _, m := range d.alive() {
		for i := range m.subs {
			if i >= len(m.report.Subs) {
				wrong = append(wrong, fmt.Sprintf("%s has %d of %d subscriptions", m.name(), len(m.report.Subs), len(m.subs)))
				break
			}
			w, n := d.difference(m, i)
			wrong, pairs = append(wrong, w...), pairs+n
		}
	}
	return wrong, pairs
}

func (d *director) difference(m *member, i int) (wrong []string, pairs int) {
	st, spec, rep := &m.subs[i], m.cfg.Subs[i], m.report.Subs[i]
	say := func(format string, args ...any) {
		wrong = append(wrong, fmt.Sprintf("%s, subscription %d of %q (%v, depth %d, hold %d, generation %d): ", m.name(), i, spec.Pattern, spec.Policy, spec.Depth, spec.Hold, st.gen)+fmt.Sprintf(format, args...))
	}
	if !st.subscribed || st.gen != rep.Gen {
		say("is at generation %d", rep.Gen)
		return wrong, 0
	}
	if rep.Stats.Unread > 0 || rep.Stats.Held > 0 {
		say("%d messages are unread, %d held", rep.Stats.Unread, rep.Stats.Held)
	}
	tracks := map[source]track{}
	for _, t := range rep.Tracks {
		tracks[source{t.Member, t.Slot}] = t
	}
	var least, most, got uint64
	var lossy []string
	for src := range d.positions(spec.Pattern, cBegun) {
		p := d.members[src[0]]
		s := d.journal(p).slot(int(src[1]))
		pub := p.cfg.Pubs[s.spec()]
		begun, sent, c := s.get(cBegun), s.get(cSent), d.claim(m, st, p, src)
		t, had := tracks[src]
		delete(tracks, src)
		pairs++
		// A publisher that died with the center away may have taken with it what only they two knew of: the way to it.
		unknown := p.gone() && p.bornIn != p.diedIn && !had
		waits := pub.lossless() && spec.Policy == node.Block
		if p.alone && !had && (!waits || sent-min(sent, c.from) <= uint64(spec.Depth)) {
			unknown = true // so has one that died just before the center did; who waits sends no more to a queue that is never read
		}
		if had && t.Next > begun {
			say("message %d came of %s, which has begun to send %d", t.Next-1, p.name(), begun)
		}
		if waits {
			// One that died when the center did may have taken with it what the center had still to pass on: where some of
			// its memory is. The subscriber then says that it met messages it couldn't read.
			unreadable := p.gone() && p.alone && m.report.Stats.BadWords > 0
			// What it had begun to send when it was told to close, it may have sent to some; the others count it as dropped.
			most += begun - min(begun, sent)
			if t.Lost > 0 && t.LostAt < sent && !unreadable {
				say("of %s (%q, slot %d, gone %v) %d messages are lost, the first is %d; it has %d to %d, and can't read %d words", p.name(), pub.Topic, src[1], p.gone(), t.Lost, t.LostAt, t.First, t.Next-1, m.report.Stats.BadWords)
			}
			switch {
			case had && t.Next < sent && !unreadable:
				say("of %s (%q, slot %d, gone %v) it has messages %d to %d; %d to %d are missing", p.name(), pub.Topic, src[1], p.gone(), t.First, t.Next-1, t.Next, sent-1)
			case had && t.First > c.from && !c.loose && !spec.History:
				say("of %s (%q, slot %d) the first message is %d; it is owed all from %d on", p.name(), pub.Topic, src[1], t.First, c.from)
			case !had && sent > c.from && !c.loose && !unknown:
				say("of %s (%q, slot %d, gone %v) it has nothing; it is owed messages %d to %d", p.name(), pub.Topic, src[1], p.gone(), c.from, sent-1)
			}
			continue
		}
		if had {
			got += t.Count
		}
		low := st.low[src]
		if spec.History && pub.Keep > 0 {
			low -= min(low, uint64(pub.Keep))
		}
		most += begun - min(begun, low)
		if !c.loose && !unknown {
			least += sent - min(sent, c.from)
		}
		lossy = append(lossy, fmt.Sprintf("%s, slot %d, %q: begun %d, sent %d, from %d (loose %v), not before %d, got %d (%d to %d), born and died in %d and %d, gone %v, alone %v, unknown %v", p.name(), src[1],
			pub.Topic, begun, sent, c.from, c.loose, low, t.Count, t.First, t.Next, p.bornIn, p.diedIn, p.gone(), p.alone, unknown))
	}
	for src, t := range tracks {
		say("%d messages came of member %d, slot %d, which doesn't publish on such a topic", t.Count, src[0], src[1])
	}
	dropped := rep.Stats.Dropped + rep.Stats.Expired
	if n := got - st.lossy + dropped - st.dropped; n < least || n > most {
		say("of publishers that don't wait it got %d messages, and %d were counted as dropped and %d as expired, of which %d and %d before: %d in all, it should be %d to %d; it can't read %d words; they are:\n    %s",
			got, rep.Stats.Dropped, rep.Stats.Expired, st.lossy, st.dropped, n, least, most, m.report.Stats.BadWords, strings.Join(lossy, "\n    "))
	}
	return wrong, pairs
}

// rebase begins the accounts of the anchors' subscriptions anew: only they live, and all has been compared.
func (d *director) rebase() {
	for _, m := range d.alive() {
		for i := range m.subs {
			st, rep := &m.subs[i], m.report.Subs[i]
			at := d.positions(m.cfg.Subs[i].Pattern, cSent)
			st.low, st.claims = at, map[source]claim{}
			st.dropped, st.lossy = rep.Stats.Dropped+rep.Stats.Expired, 0
			for src, from := range at {
				st.claims[src] = claim{from: from}
			}
			for _, t := range rep.Tracks {
				if src := (source{t.Member, t.Slot}); !t.Lossless && d.members[src[0]] != nil {
					st.lossy += t.Count
				}
			}
		}
	}
}
