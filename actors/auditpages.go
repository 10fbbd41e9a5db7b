package actors

import (
	"slices"

	"github.com/bhome-bus/bhome/shmio"
)

// audit looks at the sums over all nodes, and lists them.
func (m *msgRecords) audit() *auditMsgsR {
	r := &auditMsgsR{findings: findings{where: "MsgRecords"}}
	bus, uids := uint64(0), map[uint32]segmentUse{}
	for session, n := range m.nodes {
		total := n.control + n.pages.segSize
		a := auditNode{session: session, pid: n.pid.Id, name: n.name, number: n.number, control: n.control}
		for _, g := range n.growing {
			total += g.size
			a.growing++
		}
		for _, d := range n.pages.segs {
			a.segments = append(a.segments, segmentPlace{d.base, d.generation})
		}
		bus += total
		u := uids[n.uid]
		uids[n.uid] = segmentUse{u.bytes + total, u.number + n.number}
		r.nodes = append(r.nodes, a)
	}
	if m.bus != bus {
		r.add(faultAccounts, "the bus is charged %d bytes of segments; its nodes have %d", m.bus, bus)
	}
	for uid, has := range m.uids {
		if has != uids[uid] {
			r.add(faultAccounts, "uid %d is charged %d bytes in %d segments; its nodes have %d in %d", uid, has.bytes, has.number, uids[uid].bytes, uids[uid].number)
		}
	}
	for uid, has := range uids {
		if _, ok := m.uids[uid]; !ok {
			r.add(faultAccounts, "uid %d is charged nothing; its nodes have %d bytes of segments", uid, has.bytes)
		}
	}
	return r
}

// auditBlocks looks at the pages of one node, and whether what is out of it was granted.
func (m *msgRecords) auditBlocks(q *auditBlocks) *auditBlocksR {
	r := &auditBlocksR{}
	n := m.nodes[q.session]
	if n == nil {
		return r
	}
	r.where = "MsgRecords: the pages of " + n.name
	growing := uint64(0)
	for _, g := range n.growing {
		growing += (g.size + pageBytes - 1) / pageBytes * pageBytes
	}
	n.pages.audit(&r.findings, growing)
	r.blocks = uint64(n.pages.blocks)
	where := "the blocks of " + n.name
	for _, o := range q.out {
		if run, k := n.pages.find(o.place); run == nil {
			r.suspect(faultBlock, where, "route %#x to %s has %#x out (sequence number %d), where no block begins", o.route, o.name, o.place, o.seq)
		} else if run.recs[k].since == 0 {
			r.suspect(faultBlock, where, "route %#x to %s has block %#x out (sequence number %d), which isn't granted", o.route, o.name, o.place, o.seq)
		}
	}
	return r
}

// audit counts the pages anew: free and held blocks are the granted runs, runs and free pages the segments, and the
// sums say so. growing is the address space that is reserved for segments to come.
func (n *nodePages) audit(f *findings, growing uint64) {
	blocks, bytes, size, places, partial := 0, uint64(0), uint64(0), uint64(0), 0
	for _, d := range n.segs {
		size += d.size
		places += (d.size + pageBytes - 1) / pageBytes * pageBytes
		runs, free := 0, uint64(0)
		for p := uint64(shmio.FirstBlock / pageBytes); p < uint64(len(d.pages)); {
			r := d.pages[p]
			if r == nil {
				p++
				free += pageBytes
				continue
			}
			if r.seg != d || r.at != p*pageBytes || r.pages == 0 || p+r.pages > uint64(len(d.pages)) {
				f.add(faultAccounts, "the run of class %d in page %d of the segment at %#x says it is in page %d", r.class, p, d.base, r.at/pageBytes)
				p++
				continue
			}
			runs++
			if len(r.free) > 0 {
				partial++
			}
			held := n.auditRun(f, d, r)
			blocks += held
			bytes += uint64(held) * r.block
			p += r.pages
		}
		if runs != d.used {
			f.add(faultAccounts, "the segment at %#x has %d runs, and counts %d", d.base, runs, d.used)
		}
		if left := d.free.Left(); left != free {
			f.add(faultAccounts, "the segment at %#x has %d bytes in free pages, and %d to give out", d.base, free, left)
		}
	}
	rows := 0
	for _, g := range n.groups {
		for _, row := range g.partial.all() {
			rows += len(row)
		}
	}
	if rows != partial {
		f.add(faultAccounts, "%d runs have room, %d are listed so", partial, rows)
	}
	if blocks != n.blocks || bytes != n.bytes {
		f.add(faultAccounts, "%d blocks of %d bytes are held; counted are %d of %d", blocks, bytes, n.blocks, n.bytes)
	}
	if size != n.segSize {
		f.add(faultAccounts, "its data segments have %d bytes; counted are %d", size, n.segSize)
	}
	if taken := spaceBytes - pageBytes - n.places.Left(); taken != places+growing {
		f.add(faultAccounts, "%d bytes of its address space are taken; its segments have %d", taken, places+growing)
	}
}

// auditRun counts what a run holds; what isn't held must be free, once.
func (n *nodePages) auditRun(f *findings, d *dataSegment, r *run) (held int) {
	seen := make([]bool, len(r.recs))
	for _, k := range r.free {
		switch {
		case int(k) >= len(r.recs):
			f.add(faultAccounts, "the run at %#x lists block %d of %d as free", r.place(0), k, len(r.recs))
			return 0
		case seen[k]:
			f.add(faultAccounts, "block %#x of class %d is free twice: two could be granted the same memory", r.place(k), r.class)
		case r.recs[k].since != 0:
			f.add(faultAccounts, "block %#x of class %d is granted and free: two could use the same memory", r.place(k), r.class)
		}
		seen[k] = true
	}
	for k := range r.recs {
		switch {
		case r.recs[k].since != 0:
			held++
		case !seen[k]:
			f.add(faultAccounts, "block %#x of class %d is neither free nor granted: it is lost", r.place(uint16(k)), r.class)
		}
	}
	row := d.rows.partial.row(r.class)
	if listed := r.inRow >= 0 && r.inRow < len(row) && row[r.inRow] == r; listed != (len(r.free) > 0) || !listed && slices.Contains(row, r) {
		f.add(faultAccounts, "the run at %#x of class %d has %d free blocks, and is wrongly listed among those with room (or not)", r.place(0), r.class, len(r.free))
	}
	return held
}
