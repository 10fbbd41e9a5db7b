package actors

import (
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio"
	"github.com/bhome-bus/bhome/wire"
)

const (
	growMost      = 64 << 20         // segments grow by doubling up to this size
	firstOfGroup  = 128 << 10        // the first of an access group is twice as large
	maxWaiting    = 4096             // requests of a node that wait for a segment
	waitForGrowth = 10 * time.Second // then they are refused
	dropAfter     = 5 * time.Second  // an empty segment is let go
	sweepLeast    = 10000            // records a second, or a tenth of all
)

// msgRecords is the only allocator. Nothing that a node writes takes part in what it decides.
type msgRecords struct {
	cfg   Config
	log   *slog.Logger
	nodes map[uint64]*nodeRecord
	uids  map[uint32]segmentUse
	bus   uint64 // segment bytes

	segments, mostSegments int // of all nodes

	refusals           refusals
	background         *sync.WaitGroup // mappings being closed, collections
	garbage            shmio.Garbage
	lateFrees, refused uint64
	sweepAt            uint64 // session where the sweep goes on
	swept              bool   // all of it, and until a message comes a sweep has nothing to do
}

// segmentUse is what the nodes of a uid have in segments.
type segmentUse struct {
	bytes  uint64
	number int
}

type nodeRecord struct {
	session uint64
	uid     uint32
	process int32
	name    string     // what it calls itself, until it has registered
	pid     *actor.PID // its Session
	pages   *nodePages
	control uint64             // bytes of segments that hold no blocks
	number  int                // segments
	growing map[string]*growth // by access group
	waiting int                // requests that wait for them
	warned  bool               // that its control segments exceed a limit
	nextID  uint32             // request ids of the center's own grants
}

// identity is who the node is, for the log.
func (n *nodeRecord) identity() *Identity {
	return &Identity{Session: n.session, PID: n.process, UID: n.uid, Name: n.name}
}

// growth is a segment that a node was asked for, and the requests that wait for it.
type growth struct {
	group   string
	size    uint64
	place   segmentPlace
	since   int64
	waiting []msgOp
}

func newMsgRecords(cfg Config) *msgRecords {
	most := segmentsMost()
	if cfg.hooks.mostSegments > 0 {
		most = cfg.hooks.mostSegments
	}
	return &msgRecords{cfg: cfg, log: cfg.Logger, refusals: newRefusals(cfg.Logger), nodes: map[uint64]*nodeRecord{}, uids: map[uint32]segmentUse{}, mostSegments: most, background: new(sync.WaitGroup)}
}

func monotonic() int64 { return int64(shmio.CoarseNow()) }

// Receive is the actor.
func (m *msgRecords) Receive(c actor.Context) {
	if _, only := c.Message().(*tick); !only {
		m.swept = false
	}
	switch msg := c.Message().(type) {
	case *nodeAttach:
		base, gen, err := m.attach(msg)
		c.Send(msg.from, &nodeAttached{base: base, generation: gen, err: err})
	case *nodeNamed:
		if n := m.nodes[msg.session]; n != nil && n.pid.Id == msg.from.Id {
			n.name = msg.name
		}
	case *chunk:
		if m.cfg.hooks.beforeGrant != nil {
			m.cfg.hooks.beforeGrant()
		}
		m.serve(c, msg)
	case *segmentAdd:
		m.addSegment(c, msg)
	case *segmentGone:
		m.segmentGone(msg)
	case *reportGrants:
		m.adoptGrants(msg)
	case *sessionGone:
		if m.cfg.hooks.dropSessionEnd != nil && m.cfg.hooks.dropSessionEnd(msg.id.Session) {
			return
		}
		m.release(msg.id.Session, msg.reason)
	case *tick:
		m.sweep(c, msg)
	case *msgPage:
		c.Respond(m.page(msg))
	case *nodeUse:
		c.Respond(m.use())
	case *auditMsgs:
		audited(c, func() any { return m.audit() })
	case *auditBlocks:
		audited(c, func() any { return m.auditBlocks(msg) })
	case *actor.Stopping:
		for s := range m.nodes {
			m.release(s, "the center stops")
		}
	}
}

// charge counts bytes of segments, or says which limit refuses them.
func (m *msgRecords) charge(n *nodeRecord, bytes uint64) *bhomev1.ErrorMsg {
	l := m.cfg.Limits
	node := n.pages.segSize + n.control
	for _, g := range n.growing {
		node += g.size
	}
	for _, c := range []struct {
		limit, whose string
		used, max    uint64
	}{
		{"node", n.name, node, l.NodeBytes},
		{"uid", uidName(n.uid), m.uids[n.uid].bytes, l.UIDBytes},
		{"bus", m.cfg.Bus, m.bus, l.BusBytes},
	} {
		if c.used+bytes > c.max {
			m.refused++
			return &bhomev1.ErrorMsg{Code: bhomev1.ErrorCode_ERROR_CODE_NO_MEMORY, Limit: c.limit, Whose: c.whose, InUse: c.used, Max: c.max,
				Message: fmt.Sprintf("%d bytes more are needed", bytes)}
		}
	}
	if m.segments >= m.mostSegments {
		m.refused++
		return &bhomev1.ErrorMsg{Code: bhomev1.ErrorCode_ERROR_CODE_NO_MEMORY, Limit: limitMappings, Whose: "bhomed", InUse: uint64(m.segments), Max: uint64(m.mostSegments),
			Message: "segments of all nodes; sysctl vm.max_map_count says how many mappings a process may have"}
	}
	if n.number >= l.SegmentsPerNode {
		m.refused++
		return &bhomev1.ErrorMsg{Code: bhomev1.ErrorCode_ERROR_CODE_NO_MEMORY, Limit: "segments_per_node", Whose: n.name, InUse: uint64(n.number), Max: uint64(l.SegmentsPerNode)}
	}
	if u := m.uids[n.uid]; u.number >= l.SegmentsPerUID {
		m.refused++
		return &bhomev1.ErrorMsg{Code: bhomev1.ErrorCode_ERROR_CODE_NO_MEMORY, Limit: "segments_per_uid", Whose: uidName(n.uid), InUse: uint64(u.number), Max: uint64(l.SegmentsPerUID)}
	}
	m.count(n, bytes)
	return nil
}

// limitMappings is the limit of segments of the whole bus.
const limitMappings = "mappings"

// segmentsMost is how many segments the bus may have: each takes up to two mappings of ours, a session one besides, and a
// program in Go that finds no room for one more of its own ends.
func segmentsMost() int {
	const own, each = 4096, 3
	return max(1, (int(shmio.MaxMappings())-own)/each)
}

// count counts a segment, whatever the limits say.
func (m *msgRecords) count(n *nodeRecord, bytes uint64) {
	u := m.uids[n.uid]
	m.uids[n.uid] = segmentUse{u.bytes + bytes, u.number + 1}
	m.bus += bytes
	n.number++
	m.segments++
}

func (m *msgRecords) uncharge(n *nodeRecord, bytes uint64) { m.unchargeAll(n, bytes, 1) }

// unchargeAll is uncharge for several segments.
func (m *msgRecords) unchargeAll(n *nodeRecord, bytes uint64, segments int) {
	m.bus -= bytes
	n.number -= segments
	m.segments -= segments
	u := m.uids[n.uid]
	if u = (segmentUse{u.bytes - bytes, u.number - segments}); u == (segmentUse{}) {
		delete(m.uids, n.uid)
		return
	}
	m.uids[n.uid] = u
}

// attachGarbage is what is left over of an attachment in all actors, bytes: some 50 KiB are allocated for it, some 20 stay.
const attachGarbage = 30 << 10

func (m *msgRecords) attach(a *nodeAttach) (base, generation uint32, err *bhomev1.ErrorMsg) {
	n := &nodeRecord{session: a.id.Session, uid: a.id.UID, process: a.id.PID, name: a.name, pid: a.from, pages: newNodePages(), growing: map[string]*growth{}}
	if err := m.charge(n, a.control); err != nil {
		_ = a.data.Close() // the refusal is what counts
		return 0, 0, err
	}
	n.control = a.control
	fail := func(err *bhomev1.ErrorMsg) (uint32, uint32, *bhomev1.ErrorMsg) {
		m.uncharge(n, a.control)
		_ = a.data.Close() // the refusal is what counts
		return 0, 0, err
	}
	size := a.data.Size()
	if err := m.charge(n, size); err != nil {
		return fail(err)
	}
	if a.resume != nil {
		if !n.pages.claim(a.resume.base, size) {
			m.uncharge(n, size)
			return fail(errorMsg(bhomev1.ErrorCode_ERROR_CODE_INVALID_INPUT, "the reported place %#x of the first data segment can't be", a.resume.base))
		}
		base, generation = a.resume.base, a.resume.generation
	} else {
		base, generation, _ = n.pages.reserve(size) // an empty space has room
	}
	n.pages.add(&dataSegment{base: base, generation: generation, size: size, seg: a.data})
	m.nodes[n.session] = n
	m.garbage.Let(attachGarbage)
	return base, generation, nil
}

// serve answers a chunk and gives it back.
func (m *msgRecords) serve(c actor.Context, k *chunk) {
	n := m.nodes[k.session]
	if n != nil && n.pid.Id != k.from.Id {
		n = nil // of a session whose node has attached again: it has told anew what it holds
	}
	now := monotonic()
	for k.next < len(k.ops) {
		op := k.ops[k.next]
		k.next++ // first: if this one panics, the others are still to be done
		switch {
		case n == nil:
			k.refuse(op, errorMsg(bhomev1.ErrorCode_ERROR_CODE_INVALID_INPUT, "invalid session."))
		case op.free:
			if !n.pages.release(op.grant, now) {
				m.lateFrees++
			}
		default:
			m.grant(c, n, op, now, &k.replies, &k.refusals)
		}
	}
	k.ops, k.next = k.ops[:0], 0
	c.Send(k.from, k)
}

// refuse answers an operation that grants nothing: the word, then the reason.
func (k *chunk) refuse(op msgOp, why *bhomev1.ErrorMsg) {
	if op.free || op.init {
		return // the node waits for no answer, or its handshake runs out of time
	}
	w, err := wire.AllocReply{ID: op.req.ID}.Encode()
	if err != nil {
		return // ids come from words: they fit
	}
	k.replies = append(k.replies, socketWord{wire.Socket(op.req.Socket), w})
	k.refusals = append(k.refusals, refusal{wire.Socket(op.req.Socket), op.req.ID, why})
}

// skipFailed refuses the operation at which the allocator failed, so that it can go on behind it.
func (k *chunk) skipFailed() {
	if len(k.ops) == 0 {
		return
	}
	k.next = max(k.next, 1)
	k.refuse(k.ops[k.next-1], errorMsg(bhomev1.ErrorCode_ERROR_CODE_INTERNAL, "the center failed at this request"))
}

// grant answers one request: blocks, a refusal, or nothing yet when a segment has to come first.
func (m *msgRecords) grant(c actor.Context, n *nodeRecord, op msgOp, now int64, replies *[]socketWord, refusals *[]refusal) {
	req := op.req
	if op.init {
		n.nextID = (n.nextID + 1) % (1 << 28)
		req.ID, req.Class = n.nextID, uint8(wire.CalcAllocIndex(900))
	}
	want, got := 1<<req.Log2, 0
	for ; got < want; got++ {
		place, ok := n.pages.alloc(op.group, req.Class, req.ID, now)
		if !ok {
			break
		}
		*replies = append(*replies, socketWord{wire.Socket(req.Socket), m.answer(op.init, req.ID, place)})
	}
	switch {
	case got == want:
	case got > 0: // fewer: the end of the batch is marked
		*replies = append(*replies, socketWord{wire.Socket(req.Socket), m.answer(false, req.ID, 0)})
	default:
		op.req = req
		if err := m.grow(c, n, op, now); err != nil {
			m.refusals.note(n.identity(), err, now)
			*replies = append(*replies, socketWord{wire.Socket(req.Socket), m.answer(false, req.ID, 0)})
			*refusals = append(*refusals, refusal{wire.Socket(req.Socket), req.ID, err})
		}
	}
}

func (m *msgRecords) answer(init bool, id, place uint32) wire.Word {
	var w wire.Word
	var err error
	if init {
		w, err = wire.NodeInitReply{Place: place, ID: id}.Encode()
	} else {
		w, err = wire.AllocReply{ID: id, Place: place}.Encode()
	}
	if err != nil {
		panic(fmt.Sprintf("bhome: the allocator made an impossible place %#x: %v", place, err))
	}
	return w
}

// grow parks a request until its node has made another segment; the error refuses it.
func (m *msgRecords) grow(c actor.Context, n *nodeRecord, op msgOp, now int64) *bhomev1.ErrorMsg {
	need := (wire.BlockSize(op.req.Class)+pageBytes-1)/pageBytes*pageBytes + shmio.FirstBlock
	if uint64(wire.GetAllocSize(int(op.req.Class))) > m.cfg.Limits.MaxMessage*2 || need > spaceBytes/2 {
		return &bhomev1.ErrorMsg{Code: bhomev1.ErrorCode_ERROR_CODE_TOO_LARGE, Limit: "max_message", Whose: m.cfg.Bus,
			InUse: uint64(wire.GetAllocSize(int(op.req.Class))), Max: m.cfg.Limits.MaxMessage}
	}
	if g := n.growing[op.group]; g != nil {
		if n.waiting >= maxWaiting {
			return &bhomev1.ErrorMsg{Code: bhomev1.ErrorCode_ERROR_CODE_TOO_MANY, Limit: "waiting requests", Whose: n.name, InUse: maxWaiting, Max: maxWaiting}
		}
		if len(g.waiting) == 0 {
			g.since = now
		}
		g.waiting = append(g.waiting, op)
		n.waiting++
		return nil
	}
	last := uint64(firstOfGroup)
	if g := n.pages.groups[op.group]; g != nil {
		last = g.last
	}
	size := max(need, min(2*last, growMost))
	err := m.charge(n, size)
	if err != nil && size > need {
		size = need // a smaller one may still fit the limits
		err = m.charge(n, size)
	}
	if err != nil {
		return err
	}
	base, gen, ok := n.pages.reserve(size)
	if !ok {
		m.uncharge(n, size)
		return &bhomev1.ErrorMsg{Code: bhomev1.ErrorCode_ERROR_CODE_NO_MEMORY, Limit: "node address space", Whose: n.name, InUse: n.pages.segSize, Max: spaceBytes}
	}
	g := &growth{group: op.group, size: size, place: segmentPlace{base, gen}, since: now, waiting: []msgOp{op}}
	n.growing[op.group] = g
	n.waiting++
	c.Send(n.pid, &wantSegment{size: size, place: g.place, group: op.group})
	return nil
}

func wireSocket(s uint8) wire.Socket { return wire.Socket(s) }

func wireGrant(id uint64) wire.Grant { return wire.Grant(id) }

// closeSegment lets a mapping go; nothing depends on how that ends.
func closeSegment(s *shmio.Segment) {
	if s != nil {
		_ = s.Close()
	}
}

// describeBlock makes the row of a granted block; what its header says is the node's word, and is shown only if it is one.
func describeBlock(n *nodeRecord, d *dataSegment, place uint32, class uint8, rec grantRec, now int64) (row *bhomev1.MsgRow, topic uint32, kind wire.Kind) {
	row = &bhomev1.MsgRow{Id: uint64(place) | uint64(d.generation)<<31, Class: uint32(class), ClassBytes: uint64(wire.GetAllocSize(int(class))),
		Owner: n.name, OwnerSession: n.session, AgeNs: now - rec.since}
	if d.seg == nil {
		return row, 0, 0
	}
	mem, err := d.seg.Memory(uint64(place-d.base)*placeBytes, wire.HeaderSize)
	if err != nil {
		return row, 0, 0
	}
	var h wire.Header
	if err := h.Decode(mem); err != nil || uint64(h.Size) > row.ClassBytes || int64(h.Stamp) > now {
		return row, 0, 0
	}
	if int64(h.Stamp) < rec.since-int64(time.Millisecond) {
		return row, 0, 0 // of an earlier grant of this block
	}
	row.Size, row.SentAgeNs = uint64(h.Size), now-int64(h.Stamp)
	return row, h.Topic, h.Kind
}
