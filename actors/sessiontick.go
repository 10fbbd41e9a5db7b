package actors

import (
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"golang.org/x/sys/unix"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
)

// tellState tells Registry whether the node is to be chosen as a provider.
func (s *session) tellState(c actor.Context) {
	c.Send(s.roles.registry, &nodeState{session: s.id.Session, online: s.state == stateOnline && !s.offline && !s.detach})
}

// onTick looks after the node: once a second, or, if there is nothing to do but that, when it has been silent for a while.
func (s *session) onTick(c actor.Context, now int64) {
	s.expirePending(now)
	s.dropEarly(now)
	s.closeDropped(now)
	s.goOn(c)
	s.sendChunk(c)
	s.flush()
	s.sample()
	s.tellBusy(c)
	if s.state != stateOnline {
		return
	}
	if s.waitsForUs() {
		s.heard = now // we are the ones who don't listen
	}
	silent := time.Duration(now - s.heard)
	switch {
	case silent > s.cfg.OfflineAfter && !s.offline:
		s.offline = true
		s.log.Warn("unresponsive", s.who("silent", silent)...)
		s.tellState(c)
	case silent <= s.cfg.OfflineAfter && s.offline:
		s.offline = false
		s.log.Info("responsive again", s.who()...)
		s.tellState(c)
	}
	if s.cfg.KillUnresponsive && silent > s.cfg.KillAfter && !s.dead {
		s.log.Warn("killing an unresponsive process", s.who("silent", silent)...)
		if err := unix.PidfdSendSignal(s.adm.pidfd.Int(), unix.SIGKILL, nil, 0); err != nil {
			s.log.Warn("it can't be killed", s.who("error", err)...)
		}
	}
}

// sessionBusy says whether a session wants every tick: its node sends on routes, has yet to tell its half of one, or
// something is left for later.
type sessionBusy struct {
	session uint64
	busy    bool
}

// leftOver tells whether there is something that a tick would look after, besides the routes that the node sends on.
func (s *session) leftOver() bool {
	return s.offline || s.current != nil || len(s.deferred)+len(s.early)+len(s.dropped) > 0 || s.pendingCount() > 0
}

func (s *session) tellBusy(c actor.Context) {
	busy := s.leftOver()
	for end, r := range s.routes {
		if busy = busy || end.role == bhomev1.Role_ROLE_WRITER || r.half == nil; busy {
			break
		}
	}
	if busy != s.busy && s.state != stateGone {
		s.busy = busy
		c.Send(s.roles.center, &sessionBusy{s.id.Session, busy})
	}
}
