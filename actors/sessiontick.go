package actors

import (
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"golang.org/x/sys/unix"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio"
)

// tellState tells Registry whether the node is to be chosen as a provider.
func (s *session) tellState(c actor.Context) {
	c.Send(s.roles.registry, &nodeState{session: s.id.Session, online: s.state == stateOnline && !s.offline && !s.detach})
}

// onTick looks after the node once a second.
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
	if s.waitsForUs() || s.hasBeaten() {
		s.heard = now // if it waits, we are the ones who don't listen
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

// hasBeaten tells whether the node's heart has moved its counter since the last look.
func (s *session) hasBeaten() bool {
	n := s.control[0].seg.Counter(shmio.CounterBeats).Load() // pairs with the node's Add; any change will do
	last := s.beats
	s.beats = n
	return n != last
}

// sessionBusy says whether a session wants every tick: it sends on routes, or answers wait.
type sessionBusy struct {
	session uint64
	busy    bool
}

func (s *session) tellBusy(c actor.Context) {
	busy := s.pendingCount()+len(s.early) > 0 || s.offline
	for end := range s.routes {
		if busy = busy || end.role == bhomev1.Role_ROLE_WRITER; busy {
			break
		}
	}
	if busy != s.busy && s.state != stateGone {
		s.busy = busy
		c.Send(s.roles.center, &sessionBusy{s.id.Session, busy})
	}
}
