package actors

import (
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
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

// supervision is the center's: a session that panics ends, a role goes on with its records after a pause that grows.
// Nothing is ever escalated: a center inside another program must not end it.
type supervision struct {
	log   *slog.Logger
	self  *actor.PID
	fails map[string]*failures // by child
}

type failures struct {
	pause time.Duration
	last  time.Time
}

// HandleFailure implements actor.SupervisorStrategy. It runs in the center's own context.
func (s *supervision) HandleFailure(system *actor.ActorSystem, sup actor.Supervisor, child *actor.PID, _ *actor.RestartStatistics, reason, message any) {
	stack := ""
	if p, ok := reason.(*panicked); ok {
		reason, stack = p.reason, p.stack
	}
	// What the failed message was to give back must still come back.
	if k, ok := message.(*chunk); ok {
		for _, op := range k.ops {
			if !op.free {
				k.refusals = append(k.refusals, refusal{wireSocket(op.req.Socket), op.req.ID, errorMsg(bhomev1.ErrorCode_ERROR_CODE_INTERNAL, "the center failed at this request")})
			}
		}
		k.ops = k.ops[:0]
		system.Root.Send(k.from, k)
	}
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
	s.log.Error("a role has failed and goes on with its records", "actor", child.Id, "reason", reason, "pause", f.pause, "stack", stack)
	time.AfterFunc(f.pause, func() { sup.RestartChildren(child) })
	f.pause = min(2*f.pause, backoffMost)
}
