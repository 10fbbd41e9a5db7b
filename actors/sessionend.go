package actors

import (
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/bhome-bus/bhome/shmio"
)

// cut ends the link with a node that misuses it. If its process lives on, what it holds stays held.
func (s *session) cut(c actor.Context, why error) {
	if s.state == stateGone || s.severed {
		return
	}
	s.severed = true
	if s.hears != nil {
		_ = s.hears.Close() // there is nothing to lose
	}
	s.fault("link", why)
	s.log.Warn("a node's link is cut", s.who("reason", why)...)
	s.hungUp(c, why)
}

// hungUp notices that the socket is over. That is not death: what the node holds stays held until its process ends.
func (s *session) hungUp(c actor.Context, why error) {
	s.conn.close()
	switch {
	case s.state == stateGone:
	case s.dead:
		s.end(c, "the process has died")
	case s.state == stateClosing || s.state < stateOnline && s.adm.hello.GetResume() == 0:
		s.end(c, "it has left") // one that never came online has no routes: nobody else has anything of it
	case !s.detach:
		s.detach = true
		// A process that dies closes its socket a moment before the kernel reports the death.
		root, self := c.ActorSystem().Root, c.Self()
		time.AfterFunc(eofAfterDead, func() { root.Send(self, &stillDetached{why}) })
	}
}

// stillDetached says that a process has outlived its socket.
type stillDetached struct{ why error }

// sessionAdrift tells the center of it.
type sessionAdrift struct{ session uint64 }

func (s *session) outlived(c actor.Context, why error) {
	if s.state == stateGone || s.dead {
		return
	}
	c.Send(s.roles.center, &sessionAdrift{s.id.Session})
	s.log.Warn("detached: the process lives, its socket is gone", s.who("reason", why)...)
	s.tellState(c)
}

// died hears of the process's death. What it said before is on the socket: the end of that comes first, or soon.
func (s *session) died(c actor.Context) {
	s.dead = true
	if s.state == stateGone {
		return
	}
	if s.detach || s.state < stateWelcomed || s.conn.closed.Load() {
		s.end(c, "the process has died")
		return
	}
	root, self := c.ActorSystem().Root, c.Self()
	time.AfterFunc(eofAfterDead, func() { root.Send(self, &endSession{"the process has died"}) })
}

// end releases everything: the records elsewhere by sessionGone, the rest by cleanup.
func (s *session) end(c actor.Context, reason string) {
	if s.state == stateGone {
		return
	}
	was := s.state
	s.state = stateGone
	if was == stateOnline || was == stateClosing {
		s.log.Info("gone", s.who("reason", reason, "routes", len(s.routes))...)
	}
	c.Send(s.roles.center, &sessionGone{from: c.Self(), id: s.id, reason: reason})
	c.Stop(c.Self())
}

// cleanup runs when the actor stops, however that came about.
func (s *session) cleanup() {
	defer func() {
		if p := recover(); p != nil { // a panic in Stopping would revive the actor
			s.log.Error("cleaning up a session failed", "session", s.id.Session, "panic", p)
		}
	}()
	s.state = stateGone // messages still come until the pump has ended
	if s.conn != nil {
		s.conn.close()
	}
	if s.backstop != nil {
		s.backstop()
	}
	s.inbox.Close()
	s.dropEarly(0)
	watches, adm, link := s.watches, s.adm, s.link
	var segs []*nodeSegment
	for _, n := range s.control {
		segs = append(segs, n)
	}
	for _, n := range s.data {
		segs = append(segs, n)
	}
	segs = append(segs, s.dropped...)
	s.routes, s.control, s.data = nil, nil, nil
	// Children (the pump) stop after this; its goroutine reads these mappings until the inbox tells it to end. They go when
	// it has: cleanupLater waits in the Stopped event.
	s.closeLater = func() {
		for _, w := range watches {
			_ = w.Close()
		}
		adm.close()
		closeSegment(link)
		for _, n := range segs {
			closeSegment(n.seg)
			closeFDs([]*shmio.FD{n.fd})
		}
	}
}
