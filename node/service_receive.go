package node

import (
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/bhome-bus/bhome/shmio"
	"github.com/bhome-bus/bhome/wire"
)

// takeOver is how long a handler may keep its service from receiving: half of it at least, and what it delays is the
// cancellation of that request.
const takeOver = 20 * time.Millisecond

// handover lets the goroutine that receives handle a request itself, where that spares waking another, and has another one
// receive if it takes long.
type handover struct {
	here  atomic.Uint64 // the turn in which the receiver handles a request; 0: it receives. The watch takes it over by storing 0
	turns uint64        // the receiver's
	seen  uint64        // the watch's: here at its last look
	on    atomic.Bool   // the watch will look again; pairs with here: each is stored before the other is loaded
	timer *time.Timer
}

// receive takes requests and cancellations from the queue, in order. It doesn't wait for a worker: behind a request there may
// be the cancellation of the one that the worker has in hand. A request behind which there is nothing it handles itself
// where there is but one worker, until watch sees that it takes long.
func (s *Service) receive() {
	sl, rd, err := s.slots.receive(s.ctx, s.inbox)
	for {
		if rd == nil { // closed; without an error it never is
			s.end()
			return
		}
		mayHere := s.workers == 1
		behind := sl != nil && !sl.rec.Last
		j := s.take(sl, rd, err)
		if j == nil {
			sl, rd, err = s.slots.receive(s.ctx, s.inbox)
			continue
		}
		if sl, rd, err = nil, nil, nil; mayHere && behind {
			sl, rd, err = s.slots.tryReceive(s.inbox)
			mayHere = rd == nil && err == nil
		}
		if !s.admit(j, mayHere) {
			runtime.Gosched() // to the worker, on this thread: it would wait for another to wake up
		} else if !s.workHere(j) {
			return // another receives now
		}
		if rd == nil && err == nil {
			sl, rd, err = s.slots.receive(s.ctx, s.inbox)
		}
	}
}

// take makes a job of what was received; nil: it is none, and dealt with.
func (s *Service) take(sl *slot, rd *shmio.Reader, err error) *job {
	r := rd.Tag().(*inRoute)
	if err != nil {
		r.spoiled(err)
		return nil
	}
	_, err = r.read(&sl.received)
	if r.ending.Load() {
		r.drained()
	}
	if err != nil {
		if !errors.Is(err, errPutBack) {
			r.reject(err)
		}
		sl.refuse()
		return nil
	}
	key := jobKey{r.peer.session, sl.rec.Corr}
	sl.alone().route, sl.topic = r, &s.topic
	switch sl.rec.Head.Kind() {
	case wire.KindRequest:
		return &job{key: key, route: r, req: Request{sl.message()}, ctx: jobContext{parent: s.ctx}}
	case wire.KindCancel:
		s.cancelJob(key, ErrCancelled)
	default:
		s.n.badWord("a request of "+r.peer.name, fmt.Errorf("%w: message kind %d", wire.ErrBadHeader, sl.rec.Head.Kind()))
	}
	sl.discard()
	return nil
}

// workHere handles a job in the receiving goroutine; false: meanwhile another has begun to receive.
func (s *Service) workHere(j *job) (still bool) {
	h := &s.handover
	h.turns++
	turn := h.turns
	h.here.Store(turn) // pairs with watch
	if !h.on.Load() && h.on.CompareAndSwap(false, true) {
		h.timer.Reset(takeOver)
	}
	s.work(j)
	return h.here.CompareAndSwap(turn, 0) // pairs with watch
}

// watch is what the timer calls, while there are requests.
func (s *Service) watch() {
	h := &s.handover
	turn := h.here.Load()
	switch {
	case turn == 0:
		h.on.Store(false)
		if h.here.Load() == 0 || !h.on.CompareAndSwap(false, true) { // pairs with workHere
			return // it sets the timer
		}
	case turn == h.seen && h.here.CompareAndSwap(turn, 0):
		s.wg.Go(s.receive)
	}
	h.seen = turn
	h.timer.Reset(takeOver)
}
