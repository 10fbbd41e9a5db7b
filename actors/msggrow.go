package actors

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/asynkron/protoactor-go/actor"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio"
)

// addSegment takes a segment that a node has made, and serves the requests that waited for it.
func (m *msgRecords) addSegment(c actor.Context, a *segmentAdd) {
	n := m.nodes[a.session]
	if n == nil {
		closeSegment(a.seg)
		return
	}
	switch {
	case a.kind == shmio.KindControl:
		if err := m.charge(n, a.size); err != nil {
			// It exists, and the node has mapped it: to refuse the record would only hide it.
			m.count(n, a.size)
			if err.GetLimit() == limitMappings { // the one limit that we can't go beyond
				c.Send(n.pid, &misuses{fmt.Errorf("limit %q of %s: %d of %d in use", err.GetLimit(), err.GetWhose(), err.GetInUse(), err.GetMax())})
			}
			if !n.warned {
				n.warned = true
				m.refusals.warn("a node's control segments exceed a limit", n.identity(), monotonic(), limitAttrs(err)...)
			}
		}
		n.control += a.size
	case a.report:
		claimed := a.seg != nil && n.pages.claim(a.place.base, a.size)
		attrs := []any{"base", a.place.base, "size", a.size}
		var over *bhomev1.ErrorMsg
		if claimed {
			if over = m.charge(n, a.size); over != nil {
				attrs = append(attrs, limitAttrs(over)...)
			}
		}
		if !claimed || over != nil {
			m.refusals.warn("a reported data segment is refused", n.identity(), monotonic(), attrs...)
			if claimed {
				n.pages.unreserve(a.place.base, a.size)
			}
			closeSegment(a.seg)
			return
		}
		n.pages.add(&dataSegment{base: a.place.base, generation: a.place.generation, number: a.number, group: a.group, size: a.size, seg: a.seg})
	default:
		m.grown(c, n, a)
	}
}

// grown ends a node's growth, one way or the other.
func (m *msgRecords) grown(c actor.Context, n *nodeRecord, a *segmentAdd) {
	g := n.growing[a.group]
	if g == nil || a.place != g.place {
		closeSegment(a.seg)
		m.refusals.warn("a data segment that nobody asked for is ignored", n.identity(), monotonic(), "base", a.place.base)
		return
	}
	delete(n.growing, g.group)
	n.waiting -= len(g.waiting)
	refused := a.refused
	if refused == nil && (a.seg == nil || a.size != g.size) {
		refused = errorMsg(bhomev1.ErrorCode_ERROR_CODE_INVALID_INPUT, "the node made a segment of %d bytes where %d were asked for", a.size, g.size)
	}
	late := &lateReplies{}
	if refused != nil {
		closeSegment(a.seg)
		n.pages.unreserve(g.place.base, g.size)
		m.uncharge(n, g.size)
		m.refuseAll(n, g, refused, late)
		m.refusals.note(n.identity(), refused, monotonic())
	} else {
		n.pages.add(&dataSegment{base: g.place.base, generation: g.place.generation, number: a.number, group: g.group, size: g.size, seg: a.seg, emptySince: 0})
		now := monotonic()
		for _, op := range g.waiting {
			m.grant(c, n, op, now, &late.replies, &late.refusals)
		}
	}
	c.Send(n.pid, late)
}

func (m *msgRecords) refuseAll(n *nodeRecord, g *growth, why *bhomev1.ErrorMsg, late *lateReplies) {
	for _, op := range g.waiting {
		late.replies = append(late.replies, socketWord{wireSocket(op.req.Socket), m.answer(false, op.req.ID, 0)})
		late.refusals = append(late.refusals, refusal{wireSocket(op.req.Socket), op.req.ID, why})
	}
}

// segmentGone forgets a segment that a node has let go.
func (m *msgRecords) segmentGone(g *segmentGone) {
	n := m.nodes[g.session]
	if n == nil {
		return
	}
	if g.kind == shmio.KindControl {
		n.control -= g.size
		m.uncharge(n, g.size)
		return
	}
	if d := n.pages.drop(g.place.base, g.place.generation); d != nil {
		m.uncharge(n, d.size)
		closeSegment(d.seg)
	}
}

// release frees all records of a session that is over.
func (m *msgRecords) release(session uint64, reason string) {
	n := m.nodes[session]
	if n == nil {
		return
	}
	delete(m.nodes, session)
	if n.pages.blocks > 0 {
		m.log.Debug("blocks released", "node", n.name, "blocks", n.pages.blocks, "bytes", n.pages.bytes, "reason", reason)
	}
	total := n.control + n.pages.segSize
	for _, g := range n.growing {
		total += g.size
	}
	m.unchargeAll(n, total, n.number)
	segs := n.pages.segs
	garbage := n.pages.garbage + blockRecord*n.pages.blocks
	for _, d := range segs {
		garbage += pageRecord * len(d.pages)
	}
	m.garbage.Let(garbage)
	// The last reference to a gigabyte takes long to let go of: not in the actor.
	m.background.Go(func() {
		for _, d := range segs {
			closeSegment(d.seg)
		}
	})
}

// adoptGrants records what a node that attached again holds: its word is the sole truth, as far as it can be true.
func (m *msgRecords) adoptGrants(r *reportGrants) {
	n := m.nodes[r.session]
	if n == nil {
		return
	}
	now := monotonic()
	refused := 0
	for _, g := range r.grants {
		if g.GetClass() > 255 || g.GetId()>>59 != 0 || !n.pages.adopt(wireGrant(g.GetId()), uint8(g.GetClass()), now) {
			refused++
		}
	}
	if refused > 0 {
		m.refusals.warn("reported grants are refused: they overlap or lie outside the node's segments", n.identity(), monotonic(), "count", refused)
	}
}

// sweep goes through the records, each second at most a tenth of them or ten thousand, going on where it stopped: it
// frees those of sessions whose end was missed, refuses requests that waited too long, and lets empty segments go.
// Nothing is taken from a living process. Where nothing has happened since, and nothing waits for its time, it costs nothing.
func (m *msgRecords) sweep(c actor.Context, t *tick) {
	m.refusals.expire(t.now)
	if m.garbage.Due() { // of the last sweep, too: one collection isn't all
		m.background.Go(func() { m.garbage.Collect() })
	}
	if m.swept && len(m.nodes) == t.sessions {
		return
	}
	sessions := make([]uint64, 0, len(m.nodes))
	total := 0
	m.export(t.public)
	m.swept = true
	for s, n := range m.nodes {
		sessions = append(sessions, s)
		total += n.pages.blocks
	}
	slices.Sort(sessions)
	at, _ := slices.BinarySearch(sessions, m.sweepAt)
	limit := max(sweepLeast, total/10)
	for i := range sessions {
		n := m.nodes[sessions[(at+i)%len(sessions)]]
		m.sweepAt = n.session
		if limit -= n.pages.blocks + 1; limit < 0 {
			m.swept = false
			break
		}
		m.sweepAt++
		if !t.alive(n.session) {
			m.log.Info("records of a session whose end was missed are freed", append(n.identity().attrs(), "blocks", n.pages.blocks)...)
			m.release(n.session, "its end was missed")
			continue
		}
		for _, g := range n.growing {
			if len(g.waiting) > 0 && t.now-g.since > int64(waitForGrowth) {
				m.giveUpGrowth(c, n, g)
			}
			m.swept = m.swept && len(g.waiting) == 0
		}
		if !m.dropEmpty(c, n, t.now) {
			m.swept = false
		}
		m.garbage.Let(n.pages.garbage)
		n.pages.garbage = 0
	}
}

// giveUpGrowth refuses what waits for a segment. The segment itself may still come: its place stays reserved.
func (m *msgRecords) giveUpGrowth(c actor.Context, n *nodeRecord, g *growth) {
	late := &lateReplies{}
	m.refuseAll(n, g, errorMsg(bhomev1.ErrorCode_ERROR_CODE_NO_MEMORY, "the node has not made the segment of %d bytes it was asked for", g.size), late)
	n.waiting -= len(g.waiting)
	g.waiting = nil
	c.Send(n.pid, late)
}

// dropEmpty asks a node to let a segment go that has been empty for a while; never its first. It says whether that was all:
// no segment has been empty for too short a time.
func (m *msgRecords) dropEmpty(c actor.Context, n *nodeRecord, now int64) (all bool) {
	all = true
	n.pages.releaseIdleRuns(now)
	for i, d := range n.pages.segs {
		if i == 0 {
			continue
		}
		if d.used > 0 || d.dropping {
			continue
		}
		if d.emptySince == 0 {
			d.emptySince = now
		}
		if now-d.emptySince <= int64(dropAfter) {
			all = false
			continue
		}
		d.dropping = true
		c.Send(n.pid, &dropSegment{number: d.number, place: segmentPlace{d.base, d.generation}})
	}
	return all
}

// page lists granted blocks, in order of session and place.
func (m *msgRecords) page(q *msgPage) *msgPageR {
	sessions := make([]*nodeRecord, 0, len(m.nodes))
	r := &msgPageR{lateFrees: m.lateFrees}
	for _, n := range m.nodes {
		sessions = append(sessions, n)
		r.blocks += uint64(n.pages.blocks)
		r.bytes += n.pages.bytes
	}
	slices.SortFunc(sessions, func(a, b *nodeRecord) int { return cmp.Compare(a.session, b.session) })
	now := monotonic()
	at := uint64(0)
	for _, n := range sessions {
		if at+uint64(n.pages.blocks) <= q.offset {
			at += uint64(n.pages.blocks)
			continue
		}
		slices.SortFunc(n.pages.segs[min(1, len(n.pages.segs)):], func(a, b *dataSegment) int { return cmp.Compare(a.base, b.base) })
		n.pages.each(func(d *dataSegment, place uint32, class uint8, rec grantRec) bool {
			at++
			if at <= q.offset {
				return true
			}
			if len(r.rows) == q.limit {
				r.next = at - 1
				return false
			}
			row, topic, kind := describeBlock(n, d, place, class, rec, now)
			r.rows = append(r.rows, row)
			r.topicIDs = append(r.topicIDs, topic)
			r.kinds = append(r.kinds, kind)
			return true
		})
		if r.next != 0 {
			break
		}
	}
	return r
}

func (m *msgRecords) use() *nodeUseR {
	r := &nodeUseR{nodes: make(map[uint64]usage, len(m.nodes))}
	for s, n := range m.nodes {
		r.nodes[s] = usage{uint64(n.pages.blocks), n.pages.bytes, n.pages.segSize + n.control}
	}
	r.lateFrees, r.refused, r.bus = m.lateFrees, m.refused, m.bus
	return r
}

// export shows the sums in the public segment.
func (m *msgRecords) export(public *shmio.Segment) {
	if public == nil {
		return
	}
	var blocks, bytes uint64
	for _, n := range m.nodes {
		blocks += uint64(n.pages.blocks)
		bytes += n.pages.bytes
	}
	for i, v := range map[int]uint64{2: blocks, 3: bytes, 4: m.bus, 8: m.refused, 9: m.lateFrees} {
		public.Counter(i).Store(v) // pairs with whoever reads the mapping
	}
}
