package node

import (
	"context"
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
	key    jobKey
	route  *inRoute
	m      Message
	ctx    context.Context
	cancel context.CancelCauseFunc
}

var errCallerGone = fmt.Errorf("%w: the caller is gone", ErrCancelled)

// maxUnanswered is how many requests of a client may wait or be in hand, by the depth of their route.
func maxUnanswered(depth int) int { return 2 * depth }

// admit lets a request wait for a worker. A client that sends more than its share is not one of ours.
func (s *Service) admit(j *job) {
	s.mu.Lock()
	share := maxUnanswered(int(j.route.r.Spec().Depth))
	over := j.route.unanswered >= share
	gone := j.route.gone.Load() // routeOver has looked already, or will find the job
	if !over && !gone {
		j.route.unanswered++
		s.jobs[j.key] = j
		s.waiting = append(s.waiting, j)
		s.ready.Signal()
	}
	s.mu.Unlock()
	if over || gone {
		j.drop(errCallerGone)
	}
	if over {
		s.n.badWord("a request of "+j.route.peer.name, fmt.Errorf("%w: more than %d are unanswered", ErrTooMany, share))
		s.refuse(j.route, j.key.corr, bhomev1.ErrorCode_ERROR_CODE_TOO_MANY, "too many requests are unanswered")
	}
}

// next waits for a request; nil: there will be none.
func (s *Service) next() *job {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.waiting) == 0 && !s.over {
		s.ready.Wait()
	}
	if len(s.waiting) == 0 {
		return nil
	}
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

// forget takes a job out of its client's count; its answer may be on the way only after that. s.mu is held.
func (s *Service) forget(j *job) {
	if s.jobs[j.key] == j {
		delete(s.jobs, j.key)
		j.route.unanswered--
	}
}

// drop ends a job that is answered, or whose answer nobody awaits.
func (j *job) drop(why error) {
	j.cancel(why)
	_ = j.m.Release() // ours alone: it can't have been released
}

// cancelJob ends the context of a job in hand; one that waits is dropped.
func (s *Service) cancelJob(key jobKey, why error) {
	s.mu.Lock()
	j := s.jobs[key]
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
		j.cancel(why)
	}
}

func (s *Service) worker() {
	for j := s.next(); j != nil; j = s.next() {
		if j.ctx.Err() == nil && s.ctx.Err() == nil { // which ends first
			s.handle(j)
		} else { // a caller who cancelled it doesn't listen
			s.refuse(j.route, j.key.corr, bhomev1.ErrorCode_ERROR_CODE_NO_PROVIDER, closedBefore)
		}
		j.drop(nil)
	}
}
