package actors

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"google.golang.org/protobuf/proto"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio"
	"github.com/bhome-bus/bhome/wire"
)

// onFrame takes one frame of the node's, from the queue to 100 (0) or to 101 (1). The bytes are the batch's. false: it has
// to wait (see mustWait).
func (s *session) onFrame(c actor.Context, queue int, frame []byte) (done bool) {
	head, body, err := decodeFrame(frame)
	if err != nil {
		s.fault("frame", err)
		return true
	}
	if s.cfg.hooks.onFrame != nil {
		s.cfg.hooks.onFrame(head.GetType())
	}
	to := asker{session: c.Self(), msgID: head.GetMsgId()}
	if r := head.GetRoute(); len(r) > 0 {
		q := r[0].GetMqId() - s.id.Session
		if q >= wire.SocketCount {
			s.fault("reply address", fmt.Errorf("address %d is not of session %d", r[0].GetMqId(), s.id.Session))
			return true
		}
		to.socket = wire.Socket(q)
	}
	// Who it is is the link's word; a frame that says otherwise is refused.
	if head.GetSsnId() != 0 && head.GetSsnId() != s.id.Session {
		s.fault("session in a frame", fmt.Errorf("it claims session %d", head.GetSsnId()))
		s.refuseFrame(to, bhomev1.ErrorCode_ERROR_CODE_INVALID_INPUT, "invalid session.")
		return true
	}
	typ := bhomev1.MsgType(head.GetType())
	if (typ == bhomev1.MsgType_MSG_TYPE_UNADVERTISE || typ == bhomev1.MsgType_MSG_TYPE_UNREGISTER) && s.mustWait() {
		return false
	}
	if queue == 1 {
		s.onBusFrame(c, to, typ, body)
	} else {
		s.onNodeFrame(c, to, typ, head, body)
	}
	return true
}

// onNodeFrame takes what is for the center itself.
func (s *session) onNodeFrame(c actor.Context, to asker, typ bhomev1.MsgType, head *bhomev1.Head, body []byte) {
	switch typ {
	case bhomev1.MsgType_MSG_TYPE_PROC_INIT:
		withBody(s, to, body, &bhomev1.ProcInit{}, func(m *bhomev1.ProcInit) { s.onProcInit(c, to, head.GetProcId(), m) })
		return
	case bhomev1.MsgType_MSG_TYPE_REGISTER:
		withBody(s, to, body, &bhomev1.Register{}, func(m *bhomev1.Register) { s.onRegister(c, to, m) })
		return
	}
	if s.state != stateOnline {
		s.refuseOffline(to)
		return
	}
	switch typ {
	case bhomev1.MsgType_MSG_TYPE_ALLOC:
		withBody(s, to, body, &bhomev1.Alloc{}, func(m *bhomev1.Alloc) { s.onAlloc(to, m) })
	case bhomev1.MsgType_MSG_TYPE_HEARTBEAT:
		if to.msgID != "" {
			s.sendFrame(to, bhomev1.MsgType_MSG_TYPE_COMMON_REPLY, &bhomev1.CommonReply{})
		}
	case bhomev1.MsgType_MSG_TYPE_UNREGISTER:
		s.state = stateClosing
		c.Send(s.roles.procs, &procLeaves{s.id}) // before the answer: who then asks for the name gets it
		s.sendFrame(to, bhomev1.MsgType_MSG_TYPE_COMMON_REPLY, &bhomev1.CommonReply{})
		c.Send(s.roles.center, &nodeLeaves{s.id})
	case bhomev1.MsgType_MSG_TYPE_QUERY_PROCS:
		withBody(s, to, body, &bhomev1.QueryProcs{}, func(m *bhomev1.QueryProcs) {
			s.ask(c, s.roles.center, &query{to: to, id: s.id, what: typ, offset: m.GetOffset(), limit: m.GetLimit()})
		})
	case bhomev1.MsgType_MSG_TYPE_QUERY_MSGS:
		withBody(s, to, body, &bhomev1.QueryMsgs{}, func(m *bhomev1.QueryMsgs) {
			s.ask(c, s.roles.center, &query{to: to, id: s.id, what: typ, offset: m.GetOffset(), limit: m.GetLimit()})
		})
	case bhomev1.MsgType_MSG_TYPE_QUERY_TOPICS:
		withBody(s, to, body, &bhomev1.QueryTopics{}, func(m *bhomev1.QueryTopics) {
			s.ask(c, s.roles.center, &query{to: to, id: s.id, what: typ, offset: m.GetOffset(), limit: m.GetLimit()})
		})
	case bhomev1.MsgType_MSG_TYPE_QUERY_FAULTS:
		withBody(s, to, body, &bhomev1.QueryFaults{}, func(m *bhomev1.QueryFaults) {
			s.ask(c, s.roles.center, &query{to: to, id: s.id, what: typ, offset: m.GetOffset(), limit: m.GetLimit()})
		})
	case bhomev1.MsgType_MSG_TYPE_QUERY_CENTER:
		s.ask(c, s.roles.center, &query{to: to, id: s.id, what: typ})
	case bhomev1.MsgType_MSG_TYPE_QUERY_TOPIC:
		withBody(s, to, body, &bhomev1.QueryTopic{}, func(m *bhomev1.QueryTopic) { s.ask(c, s.roles.registry, &busFrame{to, s.id, m}) })
	default:
		if typ >= bhomev1.MsgType_MSG_TYPE_USER {
			s.ask(c, s.roles.center, &userFrame{to: to, id: s.id, typ: uint32(typ), body: append([]byte(nil), body...)})
			return
		}
		s.fault("message type", fmt.Errorf("%w: type %d to address 100", wire.ErrBadFrame, typ))
		s.refuseFrame(to, bhomev1.ErrorCode_ERROR_CODE_INVALID_INPUT, fmt.Sprintf("address 100 knows no message type %d", typ))
	}
}

// onAlloc takes a request for blocks of an access group. Which group is the node's choice: if it isn't that of what it puts
// there, the wrong ones read it, or nobody does.
func (s *session) onAlloc(to asker, m *bhomev1.Alloc) {
	word, err := wire.AllocRequest{ID: m.GetId(), Socket: uint8(min(m.GetSocket(), 255)), Class: uint8(min(m.GetClass(), 255)), Log2: uint8(min(m.GetLog2(), 255)),
		Proc: uint16(max(s.id.ProcIndex, 0)), Batch: true}.Encode()
	if err == nil && (m.GetClass() > 255 || m.GetSocket() >= wire.SocketCount || s.id.ProcIndex < 0 || len(m.GetAccess()) > maxGroupName) {
		err = fmt.Errorf("class %d, socket %d, access group of %d bytes: %w", m.GetClass(), m.GetSocket(), len(m.GetAccess()), wire.ErrRange)
	}
	var req wire.AllocRequest
	if err == nil {
		req, err = wire.DecodeAllocRequest(word)
	}
	if err != nil {
		s.fault("Alloc", err)
		s.refuseFrame(to, bhomev1.ErrorCode_ERROR_CODE_INVALID_INPUT, err.Error())
		return
	}
	s.op(msgOp{req: req, group: m.GetAccess()})
}

// ask passes a node's question on to who answers it, exactly once. While too many wait for their answers, the node's pump
// gets no credit: what can't be answered yet waits in the node's own queue, not in a mailbox.
func (s *session) ask(c actor.Context, pid *actor.PID, msg any) {
	s.asked++
	c.Send(pid, msg)
}

// answered counts an answer.
func (s *session) answered() {
	if s.asked > 0 { // one who failed after answering may have been answered for again
		s.asked--
	}
	s.giveCredit()
}

// userFrame is a frame of an embedding program's own type; nodeLeaves says that a node has unregistered.
type (
	userFrame struct {
		to   asker
		id   Identity
		typ  uint32
		body []byte
	}
	nodeLeaves struct{ id Identity }
)

// onBusFrame takes what is for PubSub and Registry.
func (s *session) onBusFrame(c actor.Context, to asker, typ bhomev1.MsgType, body []byte) {
	if s.state != stateOnline {
		s.refuseOffline(to)
		return
	}
	if s.inspect {
		s.refuseFrame(to, bhomev1.ErrorCode_ERROR_CODE_NOT_ALLOWED, "this node has attached for inspection only")
		return
	}
	var m proto.Message
	role := s.roles.pubsub
	switch typ {
	case bhomev1.MsgType_MSG_TYPE_SUBSCRIBE:
		m = &bhomev1.Subscribe{}
	case bhomev1.MsgType_MSG_TYPE_UNSUBSCRIBE:
		m = &bhomev1.Unsubscribe{}
	case bhomev1.MsgType_MSG_TYPE_ADVERTISE:
		m = &bhomev1.Advertise{}
	case bhomev1.MsgType_MSG_TYPE_UNADVERTISE:
		m = &bhomev1.Unadvertise{}
	case bhomev1.MsgType_MSG_TYPE_REGISTER_RPC:
		m, role = &bhomev1.RegisterRPC{}, s.roles.registry
	case bhomev1.MsgType_MSG_TYPE_UNREGISTER_RPC:
		m, role = &bhomev1.UnregisterRPC{}, s.roles.registry
	case bhomev1.MsgType_MSG_TYPE_CONNECT_SERVICE:
		m, role = &bhomev1.ConnectService{}, s.roles.registry
	case bhomev1.MsgType_MSG_TYPE_RESTORED:
		if !s.reported || s.restored {
			s.fault("Restored", fmt.Errorf("%w: nothing was resumed", wire.ErrBadFrame))
			return
		}
		s.restored = true
		for _, pid := range []*actor.PID{s.roles.pubsub, s.roles.registry} {
			c.Send(pid, &restored{s.id.Session})
		}
		return
	case bhomev1.MsgType_MSG_TYPE_DISCONNECT_SERVICE:
		m, role = &bhomev1.DisconnectService{}, s.roles.registry
	default:
		s.fault("message type", fmt.Errorf("%w: type %d to address 101", wire.ErrBadFrame, typ))
		s.refuseFrame(to, bhomev1.ErrorCode_ERROR_CODE_INVALID_INPUT, fmt.Sprintf("address 101 knows no message type %d", typ))
		return
	}
	withBody(s, to, body, m, func(m proto.Message) { s.ask(c, role, &busFrame{to, s.id, m}) })
}

// withBody parses a body and goes on with it, or refuses the frame.
func withBody[M proto.Message](s *session, to asker, body []byte, m M, f func(M)) {
	if err := proto.Unmarshal(body, m); err != nil {
		s.fault("frame body", fmt.Errorf("%w: %w", wire.ErrBadFrame, err))
		s.refuseFrame(to, bhomev1.ErrorCode_ERROR_CODE_INVALID_INPUT, "the frame's body can't be parsed: "+validText(err.Error()))
		return
	}
	f(m)
}

func (s *session) refuseFrame(to asker, code bhomev1.ErrorCode, text string) {
	s.sendFrame(to, bhomev1.MsgType_MSG_TYPE_COMMON_REPLY, &bhomev1.CommonReply{Errmsg: errorMsg(code, "%s", text)})
}

// refuseOffline answers a node that has to register first, or that has lost its name: it may not know that yet.
func (s *session) refuseOffline(to asker) {
	if s.displacedBy != nil {
		s.refuseFrame(to, bhomev1.ErrorCode_ERROR_CODE_DISPLACED, fmt.Sprintf("process %d (uid %d) has taken the name %q", s.displacedBy.pid, s.displacedBy.uid, s.id.Name))
		return
	}
	s.refuseFrame(to, bhomev1.ErrorCode_ERROR_CODE_INVALID_INPUT, "invalid session.")
}

func validText(t string) string { return strings.ToValidUTF8(t, "\uFFFD") }

// onProcInit asks ProcRecords for the node's index.
func (s *session) onProcInit(c actor.Context, to asker, name string, m *bhomev1.ProcInit) {
	if s.state != stateInited {
		s.refuseFrame(to, bhomev1.ErrorCode_ERROR_CODE_INVALID_INPUT, "invalid session.")
		return
	}
	s.inspect = m.GetInspect()
	s.id.Name = name
	s.ask(c, s.roles.procs, &procInit{to: to, id: s.id, name: name, inspect: m.GetInspect(), pooled: m.GetPooled()})
}

func (s *session) onProcInited(m *procInited) {
	if m.err != nil {
		s.id.Name = ""
	} else {
		s.id.Name, s.id.ProcIndex = m.name, m.index
		s.state = stateNamed
	}
	s.sendFrame(m.to, bhomev1.MsgType_MSG_TYPE_PROC_INIT_REPLY, &bhomev1.ProcInitReply{Errmsg: m.err, ProcIndex: int32(m.index), ProcId: m.name, Remaining: uint32(m.left)})
}

// onRegister makes the node online, if the name is its to have.
func (s *session) onRegister(c actor.Context, to asker, m *bhomev1.Register) {
	if s.state != stateNamed && s.state != stateOnline || m.GetProc().GetProcId() != s.id.Name {
		s.refuseFrame(to, bhomev1.ErrorCode_ERROR_CODE_INVALID_INPUT, "invalid session.")
		return
	}
	s.ask(c, s.roles.procs, &procRegister{to: to, id: s.id, takeover: m.GetTakeover()})
}

func (s *session) onRegistered(c actor.Context, m *procRegistered) {
	if m.err == nil && s.state == stateNamed {
		s.state, s.registered = stateOnline, true
		s.id.Since = time.Now()
		s.log.Info("online", s.who("index", s.id.ProcIndex)...)
		for _, n := range s.data {
			n.seg.Unload() // what the node had to say until now lay there; most have nothing more to say for long
		}
		c.Send(s.roles.msgs, &nodeNamed{session: s.id.Session, from: c.Self(), name: s.id.Name})
		c.Send(s.roles.center, &nodeOnline{id: s.id, displaced: m.displaced})
	}
	s.sendFrame(m.to, bhomev1.MsgType_MSG_TYPE_COMMON_REPLY, &bhomev1.CommonReply{Errmsg: m.err})
}

// nodeOnline says that a node has registered, and whom it displaced.
type nodeOnline struct {
	id        Identity
	displaced *holder
}

// displaced tells the node that another has its name now, and ends it.
func (s *session) displaced(c actor.Context, m *displace) {
	s.log.Info("displaced", s.who("by_pid", m.by.pid, "by_uid", m.by.uid)...)
	s.conn.send(outFrame{typ: bhomev1.MsgType_MSG_TYPE_DISPLACED, body: &bhomev1.Displaced{Name: m.name, Pid: m.by.pid, Uid: m.by.uid}})
	s.state, s.displacedBy = stateClosing, &m.by
}

// onSocketFrame takes what the connection's goroutine has verified.
func (s *session) onSocketFrame(c actor.Context, f *socketFrame) {
	if s.state == stateGone {
		f.close()
		return
	}
	s.heard = monotonic()
	switch m := f.body.(type) {
	case *bhomev1.RouteHalf:
		s.onRouteHalf(c, m, f.bell)
		s.goOn(c)
	case *bhomev1.RouteClose:
		s.onNodeClosesRoute(c, m)
		s.goOn(c)
	case *bhomev1.SegmentAdd:
		s.onSegmentAdd(c, m, f)
	case *bhomev1.SegmentDrop:
		s.onSegmentDrop(c, m)
	case *bhomev1.PeerGone:
		s.askOver(c, m.GetSession())
	case *bhomev1.SegmentUnmapped: // of a peer's: what it was charged for ended with the drop
	case *bhomev1.Report:
		s.onReport(c, m)
	case *bhomev1.Bye:
		s.state = stateClosing
		s.hungUp(c, nil)
	}
}

// onSegmentAdd makes a new segment known: to peers first, then to MsgRecords, which may be waiting to grant from it.
func (s *session) onSegmentAdd(c actor.Context, m *bhomev1.SegmentAdd, f *socketFrame) {
	ref := m.GetSegment()
	kind := shmio.Kind(ref.GetKind())
	place := segmentPlace{ref.GetBase(), ref.GetGeneration()}
	add := &segmentAdd{session: s.id.Session, seg: f.seg2, kind: kind, size: m.GetSize(), number: ref.GetNumber(), place: place, refused: toldError(m.GetErrmsg()),
		report: s.adm.hello.GetResume() != 0 && !s.reported && s.state < stateInited}
	wanted := s.wanted[place]
	if wanted != nil {
		ref.Access = wanted.group
	}
	if add.group = ref.GetAccess(); len(add.group) > maxGroupName {
		s.fault("SegmentAdd", fmt.Errorf("an access group of %d bytes, at most %d", len(add.group), maxGroupName))
		f.close()
		return
	}
	if m.GetErrmsg() != nil {
		delete(s.wanted, place)
		c.Send(s.roles.msgs, add)
		return
	}
	if f.noRoom != nil {
		s.noRoomFor(c, add, f.noRoom, wanted != nil)
		return
	}
	n := &nodeSegment{seg: f.seg, fd: f.fd, ref: ref}
	if kind == shmio.KindControl {
		if s.control[ref.GetNumber()] != nil || len(s.control) >= s.cfg.Limits.SegmentsPerNode {
			s.fault("SegmentAdd", fmt.Errorf("control segment %d: known already, or one of too many", ref.GetNumber()))
			f.close()
			return
		}
		s.control[ref.GetNumber()] = n
		c.Send(s.roles.msgs, add)
		return
	}
	// Peers map what they are told of: they are told of nothing that the center hasn't asked for.
	var err error
	switch {
	case add.report && len(s.data) >= s.cfg.Limits.SegmentsPerNode:
		err = fmt.Errorf("%d data segments are reported already", len(s.data))
	case !add.report && (wanted == nil || wanted.size != m.GetSize()):
		err = fmt.Errorf("%w: a data segment of %d bytes at %#x was not asked for", wire.ErrBadFrame, m.GetSize(), ref.GetBase())
	default:
		err = s.space.Add(f.seg)
	}
	delete(s.wanted, place)
	if err != nil {
		s.fault("SegmentAdd", err)
		f.close()
		if wanted != nil {
			c.Send(s.roles.msgs, &segmentAdd{session: s.id.Session, kind: kind, place: place, group: wanted.group,
				refused: errorMsg(bhomev1.ErrorCode_ERROR_CODE_INVALID_INPUT, "the node's segment is not what was asked for: %v", err)})
		}
		return
	}
	s.data[place] = n
	for _, peer := range s.readers(add.group) {
		if fd, err := n.fd.Share(); err == nil {
			c.Send(peer, &peerSegments{peerSession: s.id.Session, added: []segmentFD{{ref, fd}}})
		} else {
			s.log.Error("a data segment can't be passed on", "session", s.id.Session, "error", err)
		}
	}
	c.Send(s.roles.msgs, add)
}

// onSegmentDrop forgets a segment that the node has let go.
func (s *session) onSegmentDrop(c actor.Context, m *bhomev1.SegmentDrop) {
	if n := s.control[m.GetNumber()]; n != nil && m.GetNumber() != 0 {
		for _, r := range s.routes {
			if r.half != nil && r.half.GetSegment() == m.GetNumber() {
				r.half = nil
			}
		}
		delete(s.control, m.GetNumber())
		c.Send(s.roles.msgs, &segmentGone{session: s.id.Session, kind: shmio.KindControl, size: n.seg.Size()})
		closeSegment(n.seg)
		closeFDs([]*shmio.FD{n.fd})
		return
	}
	place := segmentPlace{m.GetBase(), m.GetGeneration()}
	if s.unkept[place] {
		delete(s.unkept, place)
		return
	}
	n := s.data[place]
	if n == nil {
		s.fault("SegmentDrop", fmt.Errorf("segment %d (base %#x) is not known", m.GetNumber(), m.GetBase()))
		return
	}
	delete(s.data, place)
	s.space.Remove(place.base, place.generation)
	for _, peer := range s.readers(n.ref.GetAccess()) {
		c.Send(peer, &peerSegments{peerSession: s.id.Session, dropped: []*bhomev1.SegmentRef{n.ref}})
	}
	c.Send(s.roles.msgs, &segmentGone{session: s.id.Session, kind: shmio.KindData, place: place})
	// The pump may be copying a frame from it just now.
	n.dropped = monotonic()
	s.dropped = append(s.dropped, n)
}

// closeDropped lets go of the segments that nobody can be reading any more: their memory is the machine's again only
// then. A pump that is stopped in the middle of a copy for longer than that loses its link.
func (s *session) closeDropped(now int64) {
	s.dropped = slices.DeleteFunc(s.dropped, func(n *nodeSegment) bool {
		if now-n.dropped < int64(dropGrace) {
			return false
		}
		s.background.Go(func() {
			closeSegment(n.seg)
			closeFDs([]*shmio.FD{n.fd})
		})
		return true
	})
}

// onReport takes what a node that attached again holds.
func (s *session) onReport(c actor.Context, m *bhomev1.Report) {
	if s.adm.hello.GetResume() == 0 || s.state >= stateInited || s.reported {
		s.fault("Report", fmt.Errorf("%w: nothing was resumed", wire.ErrBadFrame))
		return
	}
	if len(m.GetGrants()) > 0 {
		c.Send(s.roles.msgs, &reportGrants{session: s.id.Session, grants: m.GetGrants()})
	}
	for _, p := range m.GetPeers() {
		s.onKnownPeer(p)
	}
	for _, r := range m.GetRoutes() {
		s.onReportedRoute(c, r)
	}
	if m.GetEnd() {
		s.reported = true
		for _, pid := range []*actor.PID{s.roles.pubsub, s.roles.registry} {
			c.Send(pid, &resumes{s.id.Session})
		}
		if s.initWaits {
			s.initWaits = false
			s.state = stateInited
			s.op(msgOp{init: true})
			s.sendChunk(c)
		}
	}
}
