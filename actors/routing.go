package actors

import (
	"hash/fnv"
	"math/rand/v2"

	"github.com/asynkron/protoactor-go/actor"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
)

// router is what PubSub and Registry have in common: route ids, and operations that are answered once the sessions of
// all writers have seen to it that their nodes adopt the routes before they send again.
type router struct {
	odd    uint32 // 0 or 1: the two number their routes apart
	next   uint32
	ops    map[uint64]*routeOp
	nextOp uint64
}

type routeOp struct {
	waits map[uint64]int // acks outstanding, by session
	asker uint64         // its session: it is answered when its own frames are on its socket, too
	done  func(c actor.Context)
}

func newRouter(odd uint32) router {
	return router{odd: odd, next: rand.Uint32(), ops: map[uint64]*routeOp{}}
}

// routeID is a new id: the low half is unique among the living (it is what bells say), the rest is random, so that an
// id can't be guessed.
func (r *router) routeID() uint64 {
	r.next++
	low := r.next<<1 | r.odd
	if low == 0 || low == ^uint32(0) {
		return r.routeID()
	}
	return uint64(rand.Uint32()&0x7fffffff)<<32 | uint64(low)
}

// begin starts an operation, for asker's session (0: nobody's), whose done runs when the acks counted in waits have come.
func (r *router) begin(asker uint64, done func(c actor.Context)) (uint64, *routeOp) {
	r.nextOp++
	op := &routeOp{waits: map[uint64]int{}, asker: asker, done: done}
	r.ops[r.nextOp] = op
	return r.nextOp, op
}

// settle ends an operation that waits for nobody.
func (r *router) settle(c actor.Context, id uint64) {
	if op := r.ops[id]; op != nil && len(op.waits) == 0 {
		delete(r.ops, id)
		op.done(c)
	}
}

func (r *router) onAck(c actor.Context, a *routeAck) {
	op := r.ops[a.op]
	if op == nil {
		return
	}
	if op.waits[a.session]--; op.waits[a.session] <= 0 {
		delete(op.waits, a.session)
	}
	r.settle(c, a.op)
}

// sessionGone lets nobody wait for a session that is over.
func (r *router) sessionGone(c actor.Context, session uint64) {
	for id, op := range r.ops {
		if _, ok := op.waits[session]; ok {
			delete(op.waits, session)
			r.settle(c, id)
		}
	}
}

// party is one end's process.
type party struct {
	id  Identity
	pid *actor.PID
}

func partyOf(f *busFrame) party { return party{id: f.id, pid: f.to.session} }

// open sends both ends their RouteOpen, the reader first: the writer's half may be told before the reader has said a
// word, never before it was told.
func (r *router) open(c actor.Context, o *bhomev1.RouteOpen, w, rd party, op uint64, run *routeOp) {
	ro := cloneOpen(o)
	ro.Role, ro.PeerSession, ro.PeerProc, ro.PeerPid = bhomev1.Role_ROLE_READER, w.id.Session, w.id.Name, w.id.PID
	msg := &openRoute{open: ro, peer: w.pid}
	if run != nil && run.asker == rd.id.Session {
		run.waits[rd.id.Session]++
		msg.ack, msg.op = c.Self(), op
	}
	c.Send(rd.pid, msg)
	wo := cloneOpen(o)
	wo.Role, wo.PeerSession, wo.PeerProc, wo.PeerPid = bhomev1.Role_ROLE_WRITER, rd.id.Session, rd.id.Name, rd.id.PID
	msg = &openRoute{open: wo, peer: rd.pid}
	if run != nil {
		run.waits[w.id.Session]++
		msg.ack, msg.op = c.Self(), op
	}
	c.Send(w.pid, msg)
}

func cloneOpen(o *bhomev1.RouteOpen) *bhomev1.RouteOpen {
	return &bhomev1.RouteOpen{Route: o.Route, Kind: o.Kind, Slots: o.Slots, Depth: o.Depth, Out: o.Out, Policy: o.Policy, Quota: o.Quota,
		ExpiryNs: o.ExpiryNs, History: o.History, Access: o.Access, ReplyAccess: o.ReplyAccess, Topics: append([]*bhomev1.TopicID(nil), o.Topics...), Subscription: o.Subscription}
}

// slotsFor is how many slots a route of that depth has: room for depth messages of up to 112 bytes inline.
func slotsFor(depth uint32) uint32 {
	const perMessage, most = 16, 65536
	n := uint32(perMessage)
	for n < depth*perMessage && n < most {
		n *= 2
	}
	return n
}

// topicIDs gives names their ids: by their hashes, so that another center most likely gives the same. Routes that outlive
// a center go on with the ids they have; what came with another one on them could not be told from another topic's.
type topicIDs struct {
	ids   map[string]uint32
	names map[uint32]string
	first uint32 // 0, or firstService
	most  int
	inUse func(name string) bool // whether a name must keep its id
	freed int                    // names that went out of use since the last purge
}

func newTopicIDs(first uint32, most int, inUse func(name string) bool) topicIDs {
	return topicIDs{ids: map[string]uint32{}, names: map[uint32]string{}, first: first, most: most, inUse: inUse}
}

// purge forgets the names that are out of use: they stay known as long as there is room, so that what is still under way
// can be named.
func (t *topicIDs) purge() {
	if t.freed == 0 {
		return
	}
	t.freed = 0
	for name, id := range t.ids {
		if !t.inUse(name) {
			delete(t.ids, name)
			delete(t.names, id)
		}
	}
}

// of is the id of a topic; 0: the table is full.
func (t *topicIDs) of(name string) uint32 {
	if id, ok := t.ids[name]; ok {
		return id
	}
	if len(t.ids) >= t.most {
		if t.purge(); len(t.ids) >= t.most {
			return 0
		}
	}
	h := fnv.New32a()
	h.Write([]byte(name)) // never fails
	id := t.at(h.Sum32())
	for id == 0 || t.names[id] != "" {
		id = t.at(id + 1)
	}
	t.ids[name], t.names[id] = id, name
	return id
}

// at is the id of this kind with the low bits of n.
func (t *topicIDs) at(n uint32) uint32 { return t.first | n&(firstService-1) }

// keep gives a name the id that nodes already use; false: the name or the id is taken by another, or the table is full.
func (t *topicIDs) keep(name string, id uint32) bool {
	if have, ok := t.ids[name]; ok {
		return have == id
	}
	if id == 0 || t.names[id] != "" || len(t.ids) >= t.most {
		return false
	}
	t.ids[name], t.names[id] = id, name
	return true
}

func commonReply(c actor.Context, to asker, err *bhomev1.ErrorMsg) {
	c.Send(to.session, &frameOut{to: to, typ: bhomev1.MsgType_MSG_TYPE_COMMON_REPLY, body: &bhomev1.CommonReply{Errmsg: err}})
}

// log says which process has ended a route of its own accord. It can do so as often as it likes.
func (m *routeClosed) log(r *refusals, writer, reader *party) {
	by, peer := &writer.id, &reader.id
	if m.session == peer.Session {
		by, peer = peer, by
	}
	r.warn("a node closes a route", by, monotonic(), "route", m.route, "peer", peer.Name, "peer_pid", peer.PID, "peer_uid", peer.UID, "reason", m.reason)
}

func tooMany(limit, whose string, inUse, most int) *bhomev1.ErrorMsg {
	return &bhomev1.ErrorMsg{Code: bhomev1.ErrorCode_ERROR_CODE_TOO_MANY, Limit: limit, Whose: whose, InUse: uint64(inUse), Max: uint64(most)}
}
