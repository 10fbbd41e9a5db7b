package actors

import (
	"errors"

	"github.com/asynkron/protoactor-go/actor"

	"golang.org/x/sys/unix"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio"
)

// reports is what PubSub and Registry have in common after a restart: the routes that nodes have kept, as far as one end
// has reported them.
type reports struct {
	halves   map[uint64]*halfReport // by route id
	restored map[uint64]bool        // sessions that have said all
}

// halfReport is what is known of a route: one of the two may be nil.
type halfReport struct{ writer, reader *reportedRoute }

func newReports() reports {
	return reports{halves: map[uint64]*halfReport{}, restored: map[uint64]bool{}}
}

// maxReported bounds the routes of which one end is known; a node can't report more than RoutesPerNode.
const maxReported = 1 << 20

// add takes one end. What it returns is over here: a route with both ends, or one whose other end will not come.
func (p *reports) add(m *reportedRoute) *halfReport {
	o := m.route.GetRoute()
	h := p.halves[o.GetRoute()]
	if h == nil {
		if len(p.halves) >= maxReported {
			return nil
		}
		h = &halfReport{}
		p.halves[o.GetRoute()] = h
	}
	if o.GetRole() == bhomev1.Role_ROLE_WRITER {
		h.writer = m
	} else {
		h.reader = m
	}
	if (h.writer == nil || h.reader == nil) && !p.restored[o.GetPeerSession()] {
		return nil
	}
	delete(p.halves, o.GetRoute())
	return h
}

// complete hears that a session has reported all, and returns the routes whose other end it would have been.
func (p *reports) complete(session uint64) (lone []*halfReport) {
	p.restored[session] = true
	for id, h := range p.halves {
		if h.end().route.GetRoute().GetPeerSession() == session {
			delete(p.halves, id)
			lone = append(lone, h)
		}
	}
	return lone
}

// between takes out the writers' ends of the routes from a session to a subscription of which the other end isn't known.
func (p *reports) between(writer uint64, reader subKey) (found []*halfReport) {
	for id, h := range p.halves {
		if h.writer != nil && h.reader == nil && h.writer.id.Session == writer &&
			h.writer.route.GetRoute().GetPeerSession() == reader.session && h.writer.route.GetRoute().GetSubscription() == reader.number {
			delete(p.halves, id)
			found = append(found, h)
		}
	}
	return found
}

// maxLooked bounds of how many processes one look asks the kernel.
const maxLooked = 4096

// orphans takes out the ends whose other end's process is dead: it will report nothing. It died while there was no center to
// see it, and this end may not have had the other's pidfd yet. (The pid is the node's word, which it has from the center
// before: a wrong one keeps that node's own end waiting.)
func (p *reports) orphans() (found []*halfReport) {
	dead := map[int32]bool{}
	for id, h := range p.halves {
		pid := h.end().route.GetRoute().GetPeerPid()
		gone, asked := dead[pid]
		if !asked {
			if len(dead) == maxLooked {
				break // the others' turn comes: maps are walked in any order
			}
			gone = processGone(pid)
			dead[pid] = gone
		}
		if gone {
			delete(p.halves, id)
			found = append(found, h)
		}
	}
	return found
}

// processGone asks the kernel; a process that can't be asked for counts as alive.
func processGone(pid int32) bool {
	if pid <= 0 {
		return false
	}
	fd, err := shmio.PidfdOpen(int(pid))
	if err != nil {
		return errors.Is(err, unix.ESRCH)
	}
	defer closeFDs([]*shmio.FD{fd})
	poll := []unix.PollFd{{Fd: int32(fd.Int()), Events: unix.POLLIN}}
	n, err := unix.Poll(poll, 0)
	return err == nil && n > 0 // a zombie
}

func (p *reports) sessionGone(session uint64) {
	delete(p.restored, session)
	for id, h := range p.halves {
		if h.writer != nil && h.writer.id.Session == session || h.reader != nil && h.reader.id.Session == session {
			delete(p.halves, id)
		}
	}
}

// both reports whether both ends are known.
func (h *halfReport) both() bool { return h.writer != nil && h.reader != nil }

// end is an end that is known.
func (h *halfReport) end() *reportedRoute {
	if h.writer != nil {
		return h.writer
	}
	return h.reader
}

// agree reports whether both ends mean the same route, and each other.
func (h *halfReport) agree() bool {
	w, r := h.writer.route.GetRoute(), h.reader.route.GetRoute()
	return w.GetSlots() == r.GetSlots() && w.GetDepth() == r.GetDepth() && w.GetOut() == r.GetOut() && w.GetPolicy() == r.GetPolicy() && w.GetKind() == r.GetKind() && w.GetAccess() == r.GetAccess() &&
		w.GetPeerSession() == h.reader.id.Session && r.GetPeerSession() == h.writer.id.Session
}

// close tells the ends there are that their route is over. What a reader holds of it stays out: it is alive. A writer that
// doesn't know the route sends nothing more.
func (h *halfReport) close(c actor.Context, reason string) {
	for _, end := range []*reportedRoute{h.writer, h.reader} {
		if end != nil {
			c.Send(end.id.pidOf, &closeRoute{route: end.route.GetRoute().GetRoute(), reason: reason, alive: h.both() || end == h.writer})
		}
	}
}

// orphan tells the end there is that the other one's process is dead.
func (h *halfReport) orphan(c actor.Context) {
	c.Send(h.end().id.pidOf, &closeRoute{route: h.end().route.GetRoute().GetRoute(), reason: "the process at its other end is dead"})
}

// adopt has the sessions of both ends go on with the route.
func (h *halfReport) adopt(c actor.Context) {
	c.Send(h.writer.id.pidOf, &adoptRoute{open: h.writer.route.GetRoute(), peer: h.reader.id.pidOf})
	c.Send(h.reader.id.pidOf, &adoptRoute{open: h.reader.route.GetRoute(), peer: h.writer.id.pidOf})
}

const (
	endsDisagree = "the two ends report different things"
	forbidden    = "the access rules of the center that runs now don't allow it as it is"
)
