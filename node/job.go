package node

import (
	"fmt"
	"slices"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
)

type jobKey struct {
	session uint64
	corr    uint64
}

// job is one request, from the queue to its reply.
type job struct {
	key   jobKey
	route *inRoute
	req   Request
	ctx   jobContext
}

var errCallerGone = fmt.Errorf("%w: the caller is gone", ErrCancelled)

// maxUnanswered is how many requests of a client may wait or be in hand, by the depth of their route.
func maxUnanswered(depth int) int { return 2 * depth }

// admit lets a request wait for a worker; here: the caller is to handle it itself, if it may and no worker has anything to do.
// A client that sends more than its share is not one of ours.
func (s *Service) admit(j *job, mayHere bool) (here bool) {
	s.mu.Lock()
	share := maxUnanswered(int(j.route.r.Spec().Depth))
	over := j.route.unanswered >= share
	gone := j.route.gone.Load() // routeOver has looked already, or will find the job
	if !over && !gone {
		j.route.unanswered++
		if here = mayHere && s.busy == 0 && len(s.waiting) == 0; here {
			s.here = j
			s.busy++
		} else {
			s.jobs[j.key] = j
			s.waiting = append(s.waiting, j)
			s.ready.Signal()
		}
	}
	s.mu.Unlock()
	if over || gone {
		j.drop(errCallerGone)
	}
	if over {
		s.n.badWord("a request of "+j.route.peer.name, fmt.Errorf("%w: more than %d are unanswered", ErrTooMany, share))
		s.refuse(j.route, j.key.corr, bhomev1.ErrorCode_ERROR_CODE_TOO_MANY, "too many requests are unanswered")
	}
	return here
}

// next waits for a request; nil: there will be none.
func (s *Service) next() *job {
	s.mu.Lock()
	defer s.mu.Unlock()
	for (len(s.waiting) == 0 && !s.over) || (len(s.waiting) > 0 && s.busy >= s.workers) {
		s.ready.Wait()
	}
	if len(s.waiting) == 0 {
		return nil
	}
	s.busy++
	j := s.waiting[0]
	s.waiting[0] = nil
	s.waiting = s.waiting[1:]
	return j
}

// end lets the workers go once nothing waits.
func (s *Service) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	s.ready.Broadcast()
}

// forget takes a job out of its client's count; s.mu is held.
func (s *Service) forget(j *job) {
	switch {
	case s.here == j:
		s.here = nil
	case s.jobs[j.key] == j:
		delete(s.jobs, j.key)
	default:
		return
	}
	j.route.unanswered--
}

// drop ends a job that is answered, or whose answer nobody awaits.
func (j *job) drop(why error) {
	j.ctx.cancel(why)
	_ = j.req.m.Release() // ours alone: it can't have been released
}

// cancelJob ends the context of a job in hand; one that waits is dropped.
func (s *Service) cancelJob(key jobKey, why error) {
	s.mu.Lock()
	j := s.jobs[key]
	if s.here != nil && s.here.key == key {
		j = s.here
	}
	if j == nil {
		s.mu.Unlock()
		return
	}
	s.forget(j)
	at := slices.Index(s.waiting, j)
	if at >= 0 {
		s.waiting = slices.Delete(s.waiting, at, at+1)
	}
	s.mu.Unlock()
	if at >= 0 {
		j.drop(why)
	} else {
		j.ctx.cancel(why)
	}
}

func (s *Service) worker() {
	for j := s.next(); j != nil; j = s.next() {
		s.work(j)
	}
}

// work handles a job that counts as busy.
func (s *Service) work(j *job) {
	if j.ctx.Err() == nil { // which ends with the service's
		s.handle(j)
	} else { // a caller who cancelled it doesn't listen
		s.handled(j)
		s.refuse(j.route, j.key.corr, bhomev1.ErrorCode_ERROR_CODE_NO_PROVIDER, closedBefore)
	}
	j.drop(nil)
}

// handled lets another job be taken in hand. The answer may be on its way only after that.
func (s *Service) handled(j *job) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(j)
	if s.busy--; len(s.waiting) > 0 {
		s.ready.Signal()
	}
}
