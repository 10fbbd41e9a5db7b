package actors

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"golang.org/x/sys/unix"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio"
	"github.com/bhome-bus/bhome/shmio/pump"
	"github.com/bhome-bus/bhome/wire"
)

// sessionState is how far a node is; it appears in logs and in bhctl.
type sessionState int

const (
	stateAdmitted sessionState = iota // Hello verified, MsgRecords asked
	stateWelcomed                     // Welcome sent
	stateInited                       // NodeInit came, NodeInitReply went
	stateNamed                        // ProcInit answered
	stateOnline                       // registered
	stateClosing                      // unregistered
	stateGone
)

const (
	maxChunks    = 8    // of a session, in MsgRecords' hands
	maxPending   = 4096 // answers that wait for a node to drain its queues, before its pump gets no more credit
	pendingFor   = 60 * time.Second
	maxAsked     = 1024 // questions of a node that wait for others, before its pump gets no more credit
	maxFaults    = 1000
	eofAfterDead = 50 * time.Millisecond
	dropGrace    = 2 * time.Second // a dropped segment stays mapped: its last frame is being copied
)

// roles are the actors that a session talks to.
type roles struct {
	center, procs, msgs, registry, pubsub *actor.PID
}

// session is one node: its link, its state, and the only writer of the center's half of the link.
type session struct {
	cfg        Config
	log        *slog.Logger
	roles      roles
	reactor    *shmio.Reactor
	public     *shmio.Segment
	adm        *admission
	id         Identity
	state      sessionState
	inspect    bool
	offline    bool // unresponsive
	registered bool // its name is its own
	restored   bool // after another center's end, it has said all again
	busy       bool // the center has been told that we want every tick
	reported   bool // of a node that attached again: its report is complete
	initWaits  bool // NodeInit came before that
	detach     bool // it lives, but its socket is gone
	dead       bool
	over       bool // the actor has stopped
	since      time.Time

	conn     *connection
	link     *shmio.Segment
	arena    *shmio.Arena
	down     [wire.SocketCount]downQueue
	inbox    *shmio.Inbox
	up       [2]*shmio.Reader
	space    *shmio.Space
	bell     *bellTarget
	watches  []*shmio.Watch
	hears    *shmio.Watch // of them, the one of the node's bell
	backstop func()
	pumpPID  *actor.PID

	chunks    []*chunk // idle
	chunksOut int
	current   *chunk
	held      []*pump.Batch // not given back: the node has to wait
	asked     int           // questions of the node that others have to answer
	severed   bool          // its link is unusable: nothing more is heard

	deferred     []deferredBatch // what has to wait, and all behind it
	waitingSince int64

	displacedBy *holder // who has its name now

	control  map[uint32]*nodeSegment // by number
	data     map[segmentPlace]*nodeSegment
	wanted   map[segmentPlace]*wantSegment // data segments that the node was asked for
	unkept   map[segmentPlace]bool         // those that we had no room for, until the node has let them go
	routes   map[routeEnd]*sessionRoute
	ending   map[routeEnd]*sessionRoute // routes that are over of which an end lacks the other's half
	early    map[routeEnd]earlyHalf     // halves of routes that we haven't been told of yet
	given    map[uint64]*givenTo        // by peer session: what our node has got of it
	asksOver map[uint64]bool            // sessions of whose end it is to be told

	dropped []*nodeSegment // data segments that the node let go, for dropGrace
	heard   int64          // when the node last said something, ns

	pieces    map[routeEnd][]*bhomev1.TopicID // of reported routes whose rest is to come
	reporting int                             // how many topics those are
	faults    uint64
	faultLog  map[string]bool
	routeGen  uint64

	closeLater func() // set by cleanup: what the pump's goroutine uses until it has ended
	background *sync.WaitGroup
}

// bellTarget is what the reactor's goroutine and the session's actor share: one flag.
type bellTarget struct {
	wantSpace atomic.Bool // set when answers wait for room; pairs with onBell

	// The reactor's goroutine's alone:
	rings  shmio.Rings
	pushed [upQueues]uint64 // what the up queues said at the last ring
	deaf   bool             // it rang for nothing too often
}

type nodeSegment struct {
	seg     *shmio.Segment
	fd      *shmio.FD
	ref     *bhomev1.SegmentRef
	dropped int64 // when the node let it go
}

// routeEnd names one end of a route: a process may have both.
type routeEnd struct {
	id   uint64
	role bhomev1.Role
}

type sessionRoute struct {
	open     *bhomev1.RouteOpen // given away to the socket's sender: read only
	topics   map[uint32]string  // by id
	peer     *actor.PID
	half     *bhomev1.Half // nil until told
	told     bool          // the peer knows half, or did
	passed   bool          // the node has been told of the peer's half
	refused  bool          // the node has closed it without having told its half
	joined   bool          // it outlived another center, and this end has the peer's half
	closing  bool          // the node has closed it: its second word on that is not passed on
	sentBase uint64        // at the last sample
	rate     float64
	warned   bool  // something is held long on it: told once
	since    int64 // when the node was told of it, or told us
}

type givenTo struct {
	control map[uint32]bool
	data    map[segmentPlace]bool
	pidfd   bool
	bell    bool            // as reported to us after another center's end
	synced  map[string]bool // after another center's end: it has been told all our data segments of these access groups
}

// Receive is the actor.
func (s *session) Receive(c actor.Context) {
	switch m := c.Message().(type) {
	case *actor.Started:
		s.start(c)
	case *nodeAttached:
		s.attached(c, m)
	case *pump.Batch:
		s.onBatch(c, m)
	case *pump.Broken:
		s.cut(c, fmt.Errorf("its queues: %w", m.Err))
	case *chunk:
		s.onChunk(c, m)
	case *lateReplies:
		s.answer(m.replies, m.refusals)
	case *downSpace:
		s.flush()
	case *frameOut:
		s.sendFrame(m.to, m.typ, m.body)
		s.answered()
	case *socketFrame:
		s.onSocketFrame(c, m)
		s.conn.credit()
	case *socketFault:
		if errors.Is(m.err, unix.EPIPE) || errors.Is(m.err, unix.ECONNRESET) {
			// It went while we were telling it something: what it said before is still to be read, and then comes the end.
			root, self := c.ActorSystem().Root, c.Self()
			time.AfterFunc(eofAfterDead, func() { root.Send(self, &socketEnd{m.err}) })
		} else {
			s.cut(c, m.err)
		}
	case *socketEnd:
		s.hungUp(c, m.err)
	case *stillDetached:
		s.outlived(c, m.why)
	case *processDied:
		s.died(c)
	case *misuses:
		s.cut(c, m.why)
	case *rungForNothing:
		s.cut(c, fmt.Errorf("it has rung our bell %d times for nothing", shmio.MaxEmptyRings))
	case *endSession:
		s.end(c, m.reason)
	case *tick:
		s.heard = max(s.heard, m.beat)
		s.onTick(c, m.now)
	case *procInited:
		s.onProcInited(m)
		s.answered()
	case *procRegistered:
		s.onRegistered(c, m)
		s.answered()
	case *displace:
		s.displaced(c, m)
	case *wantSegment:
		if s.state == stateGone {
			return
		}
		s.wanted[m.place] = m
		s.conn.send(outFrame{typ: bhomev1.MsgType_MSG_TYPE_SEGMENT_WANTED, body: &bhomev1.SegmentWanted{
			Size: m.size, Base: m.place.base, Generation: m.place.generation, Access: m.group}})
	case *dropSegment:
		s.conn.send(outFrame{typ: bhomev1.MsgType_MSG_TYPE_SEGMENT_DROP, body: &bhomev1.SegmentDrop{
			Number: m.number, Base: m.place.base, Generation: m.place.generation}})
	case *trimNode:
		if w, err := (wire.Control{Op: wire.ControlTrim, Arg: m.bytes}).Encode(); err == nil {
			s.sendWord(wire.SocketNode, w)
		}
	case *actor.Stopping:
		s.cleanup()
	case *actor.Stopped:
		s.over = true
		if s.closeLater != nil {
			s.background.Go(s.closeLater) // the last reference to a big segment takes long to let go of
		}
	default:
		s.onRouteMessage(c, m)
	}
	if !s.busy && s.leftOver() {
		s.tellBusy(c)
	}
}

type (
	downSpace      struct{}
	processDied    struct{}
	rungForNothing struct{}
	misuses        struct{ why error } // what makes the center end its link
	endSession     struct{ reason string }
)

// start makes the center's side of the link and asks MsgRecords to take the node on.
func (s *session) start(c actor.Context) {
	s.since = time.Now()
	s.heard = monotonic()
	s.conn = s.adm.conn
	s.control, s.data, s.wanted = map[uint32]*nodeSegment{}, map[segmentPlace]*nodeSegment{}, map[segmentPlace]*wantSegment{}
	s.unkept = map[segmentPlace]bool{}
	s.routes, s.given, s.faultLog = map[routeEnd]*sessionRoute{}, map[uint64]*givenTo{}, map[string]bool{}
	s.early, s.ending, s.asksOver = map[routeEnd]earlyHalf{}, map[routeEnd]*sessionRoute{}, map[uint64]bool{}
	s.space, s.inbox, s.bell = shmio.NewSpace(), shmio.NewInbox(s.cfg.Wait), &bellTarget{}
	var err error
	if s.link, err = shmio.CreateSegment("bhome-link", shmio.SegmentSpec{Kind: shmio.KindLink, Size: linkSize, Session: s.id.Session}); err == nil {
		err = s.layOut()
	}
	if err != nil {
		why := ownLimit(err)
		if why == nil {
			why = errorMsg(bhomev1.ErrorCode_ERROR_CODE_INTERNAL, "the center can't make its side of the link: %v", err)
		}
		s.refuse(c, why)
		return
	}
	if err := s.joinLink(); err != nil {
		s.refuse(c, errorMsg(bhomev1.ErrorCode_ERROR_CODE_INVALID_INPUT, "Hello: the link's halves: %v", err))
		return
	}
	a := s.adm
	s.control[0] = &nodeSegment{seg: a.seg0, fd: a.seg0FD, ref: &bhomev1.SegmentRef{Kind: uint32(shmio.KindProcess)}}
	msg := &nodeAttach{from: c.Self(), id: s.id, name: s.name(), control: a.seg0.Size(), data: a.data2}
	if a.hello.GetResume() != 0 { // also under another id: its blocks are where they are
		msg.resume = &segmentPlace{a.hello.GetBase(), a.hello.GetGeneration()}
	}
	a.data2 = nil
	c.Send(s.roles.msgs, msg)
}

func (s *session) name() string {
	if s.id.Name != "" {
		return s.id.Name
	}
	return told(s.adm.hello.GetName())
}

// who is the node, for the log. Until it has registered a name, what it calls itself is only what it claims.
func (s *session) who(attrs ...any) []any {
	key := "claims"
	if s.registered {
		key = "name"
	}
	return append([]any{key, s.name(), "session", s.id.Session, "pid", s.id.PID, "uid", s.id.UID}, attrs...)
}

// attached hears from MsgRecords, and welcomes the node.
func (s *session) attached(c actor.Context, m *nodeAttached) {
	if m.err != nil {
		s.refuse(c, m.err)
		return
	}
	a := s.adm
	// The header says base 0 until the node stores what Welcome tells; we know better than to read it again.
	a.data.SetForeignBase(m.base, m.generation)
	if err := s.space.Add(a.data); err != nil {
		s.refuse(c, errorMsg(bhomev1.ErrorCode_ERROR_CODE_INTERNAL, "the first data segment: %v", err))
		return
	}
	ref := &bhomev1.SegmentRef{Number: a.data.Number(), Kind: uint32(shmio.KindData), Base: m.base, Generation: m.generation}
	s.data[segmentPlace{m.base, m.generation}] = &nodeSegment{seg: a.data, fd: a.dataFD, ref: ref}
	if err := s.welcome(c, m); err != nil {
		s.refuse(c, errorMsg(bhomev1.ErrorCode_ERROR_CODE_INTERNAL, "Welcome: %v", err))
		return
	}
	s.state = stateWelcomed
	s.log.Debug("welcomed", s.who()...)
}

func (s *session) welcome(c actor.Context, m *nodeAttached) error {
	bellRead, bellWrite, err := shmio.NewBell()
	if err != nil {
		return err
	}
	fds := []*shmio.FD{nil, nil, bellWrite, nil}
	fail := func(err error) error { closeFDs(fds); return err }
	if fds[0], err = s.link.FD().Share(); err != nil {
		closeFDs([]*shmio.FD{bellRead})
		return fail(err)
	}
	if fds[1], err = s.public.FD().Share(); err != nil {
		closeFDs([]*shmio.FD{bellRead})
		return fail(err)
	}
	if fds[3], err = shmio.PidfdOpen(unix.Getpid()); err != nil {
		closeFDs([]*shmio.FD{bellRead})
		return fail(err)
	}
	root, self := c.ActorSystem().Root, c.Self()
	inbox, up, bell := s.inbox, s.up, s.bell
	w, err := s.reactor.WatchBell(bellRead, func(uint32) {
		pushed := [upQueues]uint64{inbox.WakeAndSee(up[0]), inbox.WakeAndSee(up[1])}
		something := pushed != bell.pushed
		bell.pushed = pushed
		if bell.wantSpace.Swap(false) {
			something = true
			root.Send(self, &downSpace{})
		}
		if !bell.rings.Heard(something) && !bell.deaf {
			bell.deaf = true
			root.Send(self, &rungForNothing{})
		}
	})
	if err != nil {
		return fail(err)
	}
	s.watches, s.hears = append(s.watches, w), w
	death, err := s.adm.pidfd.Share()
	if err == nil {
		w, err = s.reactor.WatchPID(death, func() { root.Send(self, &processDied{}) })
	}
	if err != nil {
		return fail(err)
	}
	s.watches = append(s.watches, w)
	s.backstop = s.reactor.OnBackstop(inbox.Backstop)
	s.pumpPID = c.Spawn(pump.Props(pump.Config{Inbox: inbox, Queues: up[:], Space: s.space, Target: self}))
	l := s.cfg.Limits
	msg := &bhomev1.Welcome{Session: s.id.Session, Base: m.base, Generation: m.generation, Bus: s.cfg.Bus, Pid: int32(unix.Getpid()),
		Resumed: s.adm.hello.GetResume() != 0,
		Limits: &bhomev1.Limits{MaxMessage: l.MaxMessage, NodeBytes: l.NodeBytes, HeartbeatNs: int64(s.cfg.OfflineAfter / 3),
			DefaultQuota: l.DefaultQuota, MaxSegments: uint32(l.SegmentsPerNode)}}
	msg.Down, msg.Up = linkHalves()
	b, err := encodeFrame(&bhomev1.Head{Type: uint32(bhomev1.MsgType_MSG_TYPE_WELCOME), SsnId: s.id.Session}, msg)
	if err != nil {
		return fail(err)
	}
	// The first frame goes before the connection's goroutines begin: a fresh socket has room for it.
	err = s.conn.c.Send(b, fds...)
	closeFDs(fds)
	if err != nil {
		return err
	}
	s.conn.target.Store(self)
	go s.conn.receive(context.Background())
	return nil
}

// refuse ends a session that never began.
func (s *session) refuse(c actor.Context, why *bhomev1.ErrorMsg) {
	c.Send(s.roles.center, &turnedAway{s.adm.cred, s.name(), why})
	conn := s.conn
	s.conn = nil // or the end would hang up before the reason is out
	s.background.Go(func() { refuseConn(conn.c, why); conn.close() })
	s.end(c, "refused")
}

// first reports whether something of a kind happens for the first time, and is to be logged.
func (s *session) first(kind string) bool {
	if s.faultLog[kind] || len(s.faultLog) >= 64 {
		return false
	}
	s.faultLog[kind] = true
	return true
}

// fault counts what the node did wrong, and logs each kind once.
func (s *session) fault(kind string, err error) {
	s.faults++
	s.public.Counter(11).Add(1)
	if s.first(kind) {
		s.log.Warn("a node's fault; more of the kind are only counted", s.who("kind", kind, "error", err)...)
	}
}
