package actors

import (
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio/pump"
)

const (
	backoffFirst = 10 * time.Millisecond
	backoffMost  = 5 * time.Second
	calmAfter    = time.Minute // without a failure, the back-off begins anew
)

// panicked is what a guarded actor panics with: the reason and the stack, which the framework throws away.
type panicked struct {
	reason any
	stack  string
}

// guarded runs an actor so that the stack of a panic is kept.
type guarded struct{ actor.Actor }

// guard is one of the center's actors as it is spawned.
func (c Config) guard(a actor.Actor) actor.Actor {
	if c.hooks.wrap != nil {
		a = c.hooks.wrap(a)
	}
	return guarded{a}
}

// Receive is the actor.
func (g guarded) Receive(c actor.Context) {
	defer func() {
		if p := recover(); p != nil {
			if _, again := p.(*panicked); !again {
				p = &panicked{p, string(debug.Stack())}
			}
			panic(p)
		}
	}()
	g.Actor.Receive(c)
}

// supervision is the center's, and its sessions': a session that panics ends, a role goes on with its records after a
// pause that grows, and so does a pump. Nothing is ever escalated: a center inside another program must not end it.
type supervision struct {
	log   *slog.Logger
	fails map[string]*failures // by child
}

func newSupervision(log *slog.Logger) *supervision {
	return &supervision{log: log, fails: map[string]*failures{}}
}

type failures struct {
	pause time.Duration
	last  time.Time
}

// answerFailed answers a question at which a role has failed: its session counts the answers, and its node waits.
func answerFailed(system *actor.ActorSystem, message any) {
	why := errorMsg(bhomev1.ErrorCode_ERROR_CODE_INTERNAL, "the center failed at this request")
	switch m := message.(type) {
	case *busFrame:
		system.Root.Send(m.to.session, &frameOut{to: m.to, typ: bhomev1.MsgType_MSG_TYPE_COMMON_REPLY, body: &bhomev1.CommonReply{Errmsg: why}})
	case *procInit:
		system.Root.Send(m.to.session, &procInited{to: m.to, name: m.name, index: -1, err: why})
	case *procRegister:
		system.Root.Send(m.to.session, &procRegistered{to: m.to, err: why})
	}
}

// HandleFailure implements actor.SupervisorStrategy. It runs in the parent's own context.
func (s *supervision) HandleFailure(system *actor.ActorSystem, sup actor.Supervisor, child *actor.PID, _ *actor.RestartStatistics, reason, message any) {
	stack := ""
	if p, ok := reason.(*panicked); ok {
		reason, stack = p.reason, p.stack
	}
	if p, ok := reason.(*pump.Failure); ok {
		stack = string(p.Stack)
	}
	// A chunk must come back to its session, without the operation that failed and with all others done.
	if k, ok := message.(*chunk); ok {
		k.skipFailed()
		system.Root.Send(child, k)
	}
	answerFailed(system, message)
	if isSession(child) {
		s.log.Error("a session has failed and ends", "actor", child.Id, "reason", reason, "stack", stack)
		sup.StopChildren(child)
		return
	}
	f := s.fails[child.Id]
	if f == nil || time.Since(f.last) > calmAfter {
		f = &failures{pause: backoffFirst}
		s.fails[child.Id] = f
	}
	f.last = time.Now()
	s.log.Error("an actor has failed and goes on", "actor", child.Id, "reason", reason, "pause", f.pause, "stack", stack)
	time.AfterFunc(f.pause, func() { sup.RestartChildren(child) })
	f.pause = min(2*f.pause, backoffMost)
}
