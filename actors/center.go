package actors

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/asynkron/protoactor-go/scheduler"
	"golang.org/x/sys/unix"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio"
	"github.com/bhome-bus/bhome/wire"
)

// center is the root of the bus.
type center struct {
	cfg      Config
	log      *slog.Logger
	listener *shmio.Listener
	reactor  *shmio.Reactor
	public   *shmio.Segment
	acceptor *acceptor
	started  time.Time

	roles    roles
	sessions map[uint64]*admitted
	perUID   map[uint32]int
	adrift   map[int32]int // sessions of living processes without a socket, by pid
	knocking int
	ids      sessionIDs
	watchers map[string]*actor.PID
	handlers map[uint32]*actor.PID
	timer    scheduler.CancelFunc
	ticks    uint64
	living   map[uint64]struct{} // the sessions, for the ticks: read only once made; nil: they have changed
	queries  *atomic.Int64       // goroutines that answer; pairs with their end
	stopping bool
	refusals refusals
	checks   checks
	// What goroutines of the center's, of sessions and of MsgRecords still have to do when their actors have ended.
	background *sync.WaitGroup
}

// admitted is what the center remembers of a session.
type admitted struct {
	pid    *actor.PID
	id     Identity
	online bool
	busy   bool                 // it has something to look after every second
	heart  *shmio.Segment       // its node's segment 0; it may be closed
	beats  uint64               // the counter of its heart, as last seen
	beat   int64                // when that was seen to move, ns
	adrift bool                 // its process lives, its socket is gone
	asks   map[string]*peerOver // who want to know when it is gone
}

// sessionIDs hands out base ids, multiples of 10: a draw and a count, so that they are unique across restarts
// (docs/decisions/0013).
type sessionIDs struct{ next uint64 }

func newSessionIDs(draw uint64) sessionIDs {
	const high, counted = 1 << 59, 21 // high: no draw leads down to the well-known addresses
	next := high | draw%(high>>counted)<<counted
	return sessionIDs{next: (next + wire.AddressesPerSession - 1) / wire.AddressesPerSession * wire.AddressesPerSession}
}

// random is 64 bits that nobody else has.
func random() uint64 {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return binary.NativeEndian.Uint64(b[:])
}

func (s *sessionIDs) take() uint64 {
	s.next += wire.AddressesPerSession
	return s.next
}

func (c *center) props() *actor.Props {
	// A supervisor strategy is for the children of the actor whose props have it.
	return actor.PropsFromProducer(func() actor.Actor { return c.cfg.guard(c) }, actor.WithSupervisor(newSupervision(c.log)))
}

// open makes what must exist before the first connection.
func (c *center) open() (err error) {
	if c.listener == nil {
		if c.listener, err = listen(c.cfg); err != nil {
			return err
		}
	}
	if c.public, err = shmio.CreateSegment("bhome-public", shmio.SegmentSpec{Kind: shmio.KindPublic, Size: 2 * shmio.FirstBlock}); err != nil {
		return err
	}
	c.public.Publish(shmio.StateRegistered)
	if c.reactor, err = shmio.NewReactor(0); err != nil {
		closeSegment(c.public)
		return err
	}
	return nil
}

func (c *center) closeAll() {
	_ = c.listener.Close() // on the way out: nothing can be done about it
	_ = c.reactor.Close()
	closeSegment(c.public)
}

// Receive is the actor.
func (c *center) Receive(ctx actor.Context) {
	if _, ok := ctx.Message().(*actor.Started); ok {
		c.start(ctx)
		return
	}
	// The center's parent is another program's: it must not restart us, and all sessions with us, for one bad message.
	defer func() {
		if p := recover(); p != nil {
			c.log.Error("the center has failed at a message and goes on", "message", fmt.Sprintf("%T", ctx.Message()), "reason", p, "stack", string(debug.Stack()))
		}
	}()
	switch m := ctx.Message().(type) {
	case *actor.Stopping:
		c.stop()
	case *actor.Stopped:
		c.stopped()
	case *actor.Terminated:
		c.terminated(ctx, m.Who)
	case *sessionEnded:
		c.ended(ctx, m.pid)
	case *timerTick:
		c.onTick(ctx)
	case *knocked:
		m.letIn <- c.letIn(m.cred)
	case *left:
		c.leave(m.uid)
	case *turnedAway:
		c.turnedAway(m)
	case *admission:
		c.admit(ctx, m)
	case *nodeOnline:
		c.online(ctx, m)
	case *nodeLeaves:
		c.offline(ctx, m.id, "it has left")
	case *sessionGone:
		c.gone(ctx, m)
	case *peerOver:
		c.peerOver(ctx, m)
	case *sessionAdrift:
		if a := c.sessions[m.session]; a != nil && !a.adrift {
			a.adrift = true
			c.adrift[a.id.PID]++
		}
	case *sessionBusy:
		if a := c.sessions[m.session]; a != nil {
			a.busy = m.busy
		}
	case *userFrame:
		c.onUserFrame(ctx, m)
	default:
		c.onQuestion(ctx, m)
	}
}

type timerTick struct{}

func (c *center) start(ctx actor.Context) {
	if c.reactor == nil { // spawned from Props
		if err := c.open(); err != nil {
			panic(fmt.Errorf("start the center of bus %q: %w", c.cfg.Bus, err))
		}
	}
	c.started = time.Now()
	c.sessions, c.perUID, c.adrift = map[uint64]*admitted{}, map[uint32]int{}, map[int32]int{}
	c.refusals = newRefusals(c.log)
	c.watchers, c.handlers = map[string]*actor.PID{}, map[uint32]*actor.PID{}
	c.ids, c.queries, c.background = newSessionIDs(random()), new(atomic.Int64), new(sync.WaitGroup)
	c.checks = newChecks(c.cfg)
	spawn := func(name string, a actor.Actor) *actor.PID {
		// The same record keeper again after a failure: it is the message that was bad.
		pid, err := ctx.SpawnNamed(actor.PropsFromProducer(func() actor.Actor { return c.cfg.guard(a) }), name)
		if err != nil {
			panic(fmt.Errorf("spawn %s: %w", name, err))
		}
		return pid
	}
	procs, msgs, registry, pubsub := newProcRecords(c.cfg), newMsgRecords(c.cfg), newRegistry(c.cfg), newPubSub(c.cfg)
	msgs.background = c.background
	procs.gauges, registry.gauges, pubsub.gauges = gauges{c.public}, gauges{c.public}, gauges{c.public}
	c.roles = roles{center: ctx.Self(), procs: spawn("procs", procs), msgs: spawn("msgs", msgs), registry: spawn("registry", registry),
		pubsub: spawn("pubsub", pubsub)}
	c.acceptor = newAcceptor(c.listener, ctx.ActorSystem().Root, ctx.Self(), c.log)
	c.timer = scheduler.NewTimerScheduler(ctx).SendRepeatedly(time.Second, time.Second, ctx.Self(), &timerTick{})
	c.log.Debug("the center is ready", "bus", c.cfg.Bus, "socket", c.listener.Path(), "pid", unix.Getpid(),
		"bus_bytes", c.cfg.Limits.BusBytes, "node_bytes", c.cfg.Limits.NodeBytes, "max_message", c.cfg.Limits.MaxMessage)
}

// stop ends what brings in more; the children stop after it. Messages still come until they have.
func (c *center) stop() {
	c.stopping = true
	c.checks.stop()
	defer func() {
		if p := recover(); p != nil { // a panic in Stopping would revive the actor
			c.log.Error("stopping the center failed", "panic", p)
		}
	}()
	if c.timer != nil {
		c.timer()
	}
	if c.acceptor != nil {
		c.acceptor.stop()
	}
}

// stopped runs when all children have ended.
func (c *center) stopped() {
	defer func() {
		if p := recover(); p != nil { // watchers must hear of the end
			c.log.Error("closing the center failed", "panic", p)
		}
	}()
	if c.background != nil {
		c.background.Wait() // answers whose actors are gone fail at once
	}
	c.closeAll()
	c.log.Info("the center has stopped", "bus", c.cfg.Bus)
}

// letIn says whether one more connection of a uid may be heard.
func (c *center) letIn(cred shmio.Cred) *bhomev1.ErrorMsg {
	l, uid := c.cfg.Limits, cred.UID
	if c.stopping {
		return errorMsg(bhomev1.ErrorCode_ERROR_CODE_CLOSED, "the center is stopping")
	}
	if id := (Identity{PID: cred.PID, UID: uid, GID: cred.GID, Groups: cred.Groups}); !c.cfg.Access.Attach.admits(&id) {
		c.public.Counter(7).Add(1)
		why := notAllowed(&id, ruleAttach, "attach")
		return why
	}
	if n := c.adrift[cred.PID]; n >= maxAdrift {
		c.public.Counter(7).Add(1)
		why := tooMany(limitAdrift, fmt.Sprintf("process %d", cred.PID), n, maxAdrift)
		why.Message = "it has lost as many links as it may"
		return why
	}
	if n := c.perUID[uid]; n >= l.SessionsPerUID {
		c.public.Counter(7).Add(1)
		return tooMany("sessions_per_uid", uidName(uid), n, l.SessionsPerUID)
	}
	if n := len(c.sessions) + c.knocking; n >= l.Sessions {
		c.public.Counter(7).Add(1)
		return tooMany("sessions", c.cfg.Bus, n, l.Sessions)
	}
	c.perUID[uid]++
	c.knocking++
	return nil
}

// turnedAway logs who isn't let in. Knocking costs next to nothing: the log must not grow with each of a flood.
func (c *center) turnedAway(t *turnedAway) {
	id := Identity{PID: t.cred.PID, UID: t.cred.UID}
	attrs := []any{"claims", t.claims}
	if rule := t.why.GetRule(); rule != "" {
		attrs = append(attrs, "rule", rule)
	}
	if t.why.GetLimit() != "" {
		attrs = append(attrs, limitAttrs(t.why)...)
	} else {
		attrs = append(attrs, "reason", t.why.GetMessage())
	}
	c.refusals.warn("a process is refused", &id, monotonic(), attrs...)
}

func (c *center) leave(uid uint32) {
	c.knocking--
	if c.perUID[uid]--; c.perUID[uid] <= 0 {
		delete(c.perUID, uid)
	}
}

// admit gives a node its session.
func (c *center) admit(ctx actor.Context, a *admission) {
	if c.stopping {
		return // the acceptor has closed it
	}
	close(a.taken)
	c.knocking--
	id := Identity{PID: a.cred.PID, UID: a.cred.UID, GID: a.cred.GID, Groups: a.cred.Groups, ProcIndex: -1, Since: time.Now()}
	if r := a.hello.GetResume(); r != 0 {
		if old := c.sessions[r]; old != nil && old.id.UID == a.cred.UID && old.id.PID == a.cred.PID {
			ctx.Send(old.pid, &endSession{"its process has attached again"})
			c.forget(old)
			c.release(ctx, &sessionGone{id: old.id, reason: "attached again", alive: true})
			c.tellOver(ctx, old)
		}
		if c.sessions[r] == nil && wire.Session(r).Validate() == nil && r%wire.AddressesPerSession == 0 {
			id.Session = r
		}
	}
	if id.Session == 0 {
		id.Session = c.ids.take()
		for c.sessions[id.Session] != nil {
			id.Session = c.ids.take()
		}
	}
	s := &session{cfg: c.cfg, log: c.log, roles: c.roles, reactor: c.reactor, public: c.public, adm: a, id: id, background: c.background}
	// The session's own child is its pump.
	pid, err := ctx.SpawnNamed(actor.PropsFromProducer(func() actor.Actor { return c.cfg.guard(s) }, actor.WithSupervisor(newSupervision(c.log)),
		actor.WithMailbox(actor.Unbounded(lateQuestions{s, ctx.ActorSystem().Root}))),
		fmt.Sprintf("%s%d-%d", sessionPrefix, id.Session, c.ids.take()))
	if err != nil {
		c.log.Error("a session can't be spawned", "session", id.Session, "error", err)
		why := errorMsg(bhomev1.ErrorCode_ERROR_CODE_INTERNAL, "the center can't make a session: %v", err)
		c.background.Go(func() { refuseConn(a.conn.c, why); a.close() })
		c.knocking++
		c.leave(a.cred.UID)
		return
	}
	c.sessions[id.Session] = &admitted{pid: pid, id: id, heart: a.seg0}
	c.living = nil
	c.public.Counter(0).Store(uint64(len(c.sessions)))
}

// maxAdrift is how many sessions a living process may have whose links are lost, or were cut. What they hold stays held until
// it ends, so that one who is cut off again and again must not come again for ever.
const (
	maxAdrift   = 16
	limitAdrift = "detached_per_process"
)

const sessionPrefix = "session-"

func isSession(pid *actor.PID) bool {
	return strings.Contains(pid.Id[strings.LastIndexByte(pid.Id, '/')+1:], sessionPrefix)
}

func (c *center) online(ctx actor.Context, m *nodeOnline) {
	a := c.sessions[m.id.Session]
	if a == nil {
		return
	}
	a.online, a.id = true, m.id
	if d := m.displaced; d != nil {
		if old := c.sessions[d.session]; old != nil {
			ctx.Send(old.pid, &displace{session: d.session, by: holder{m.id.Session, m.id.PID, m.id.UID}, name: m.id.Name})
			c.offline(ctx, old.id, "displaced")
		}
	}
	for _, w := range c.watchers {
		ctx.Send(w, &NodeUp{Name: m.id.Name, Session: m.id.Session, PID: m.id.PID, UID: m.id.UID})
	}
}

// offline tells that a name is no longer there.
func (c *center) offline(ctx actor.Context, id Identity, reason string) {
	a := c.sessions[id.Session]
	if a == nil || !a.online {
		return
	}
	a.online = false
	for _, w := range c.watchers {
		ctx.Send(w, &NodeDown{Name: id.Name, Session: id.Session, PID: id.PID, UID: id.UID, Reason: reason})
	}
}

func (c *center) gone(ctx actor.Context, m *sessionGone) {
	a := c.sessions[m.id.Session]
	if a == nil || m.from != nil && m.from.Id != a.pid.Id {
		return // its successor has the id now
	}
	c.offline(ctx, m.id, m.reason)
	c.forget(a)
	c.release(ctx, &sessionGone{id: m.id, reason: m.reason})
	c.tellOver(ctx, a)
}

// peerOver lets a session know when another is gone.
func (c *center) peerOver(ctx actor.Context, m *peerOver) {
	m.via = c.roles.registry
	a := c.sessions[m.session]
	if a == nil {
		ctx.Send(c.roles.pubsub, m)
		return
	}
	if a.asks == nil {
		a.asks = map[string]*peerOver{}
	}
	a.asks[m.asks.Id] = m
}

// tellOver answers those that wait for a session's end, after all roles have been told of it.
func (c *center) tellOver(ctx actor.Context, a *admitted) {
	for _, m := range a.asks {
		ctx.Send(c.roles.pubsub, m)
	}
	a.asks = nil
}

// forget drops a session from the center's own records.
func (c *center) forget(a *admitted) {
	delete(c.sessions, a.id.Session)
	c.living = nil
	for _, other := range c.sessions {
		delete(other.asks, a.pid.Id)
	}
	if !a.adrift {
		return
	}
	if c.adrift[a.id.PID]--; c.adrift[a.id.PID] <= 0 {
		delete(c.adrift, a.id.PID)
	}
}

// release has every role forget a session.
func (c *center) release(ctx actor.Context, m *sessionGone) {
	if c.perUID[m.id.UID]--; c.perUID[m.id.UID] <= 0 {
		delete(c.perUID, m.id.UID)
	}
	c.public.Counter(0).Store(uint64(len(c.sessions)))
	for _, pid := range []*actor.PID{c.roles.pubsub, c.roles.registry, c.roles.procs, c.roles.msgs} {
		ctx.Send(pid, &sessionGone{id: m.id, reason: m.reason, alive: m.alive})
	}
}

// sessionEnded says that a session's actor is no more.
type sessionEnded struct{ pid *actor.PID }

// ended hears of a session that has ended without a word, as one that failed does.
func (c *center) ended(ctx actor.Context, pid *actor.PID) {
	for _, a := range c.sessions {
		if a.pid.Id == pid.Id {
			c.gone(ctx, &sessionGone{id: a.id, reason: "its session has ended"})
			return
		}
	}
}

// terminated hears of actors that ended: our children, and those that want to hear of nodes.
func (c *center) terminated(ctx actor.Context, who *actor.PID) {
	if isSession(who) {
		// The framework's word has overtaken what the session itself may have said of its end.
		ctx.Send(ctx.Self(), &sessionEnded{who})
		return
	}
	delete(c.watchers, who.Id)
	for t, h := range c.handlers {
		if h.Id == who.Id {
			delete(c.handlers, t)
		}
	}
}
