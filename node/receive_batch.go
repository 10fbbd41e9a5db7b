package node

import (
	"context"
	"errors"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio"
)

// ReceiveBatch waits for the next message and takes with it, up to len(into), those behind it that came from the same
// publisher's process: less work per message than Receive where many wait, and none more where one does. It returns how
// many it put into into, at least one without an error. Each is the caller's to release, alone or by ReleaseBatch. See
// Receive.
func (s *Subscription) ReceiveBatch(ctx context.Context, into []Message) (int, error) {
	switch len(into) {
	case 0:
		return 0, nil
	case 1: // one needs no batch
		m, err := s.Receive(ctx)
		if err != nil {
			return 0, err
		}
		into[0] = m
		return 1, nil
	}
	var sls [batchChunk]*slot
	var recs [batchChunk]*shmio.Record
	want := min(len(into), batchChunk)
	s.slots.getAll(sls[:want])
	for i, sl := range sls[:want] {
		recs[i] = &sl.rec
	}
	for {
		rd, n, err := s.inbox.ReceiveBatch(ctx, recs[:want])
		if err != nil {
			s.slots.lend(nil, nil, false, sls[:want], nil)
			if _, _, err := s.took(nil, rd, err); err != nil {
				return 0, err
			}
			return s.ReceiveBatch(ctx, into) // a route was spoiled
		}
		r := rd.Tag().(*inRoute)
		got, blocks := n, true
		run := s.readRun(r, sls[:n], recs[:n])
		if run == nil {
			got, blocks = s.sift(r, sls[:n], recs[:n])
		}
		if r.ending.Load() {
			r.drained()
		}
		if got > 0 {
			s.slots.lend(r, run, blocks, sls[:want], into[:got])
			if s.n.cfg.Debug {
				for _, m := range into[:got] {
					m.note()
				}
			}
			return got, nil
		}
	}
}

// readRun reads messages that are all of one run, which it returns, if they are what most are: all in one segment, on the topic that was last.
// nil: they are not, and sift has to look at them.
func (s *Subscription) readRun(r *inRoute, sls []*slot, recs []*shmio.Record) *shmio.Run {
	run, t := recs[0].Run(), r.last.Load()
	if run == nil || t == nil || r.kind != bhomev1.RouteKind_ROUTE_KIND_PUBSUB || s.msg.GetExpiryNs() > 0 || r.r.Aside() > 0 {
		return nil
	}
	view, ok := r.peer.space.View(recs[0].Word)
	if !ok || !t.readAll(run, &view, sls) {
		for _, sl := range sls {
			sl.unresolve() // for sift to look it up
		}
		return nil
	}
	return run
}

// sift brings those of a batch that the caller gets to its start, and returns how many they are, and whether there may be blocks among
// them.
func (s *Subscription) sift(r *inRoute, sls []*slot, recs []*shmio.Record) (got int, blocks bool) {
	rd := r.r
	aside := rd.Aside()
	usual := r.last.Load() // the topic that all are likely to be of, if there is nothing else to look at
	if r.kind != bhomev1.RouteKind_ROUTE_KIND_PUBSUB || s.msg.GetExpiryNs() > 0 {
		usual = nil
	}
	if usual != nil {
		if got = usual.hasAll(sls); got == len(sls) {
			return got, false
		}
	}
	r.peer.space.LookUp(recs[got:])
	likely := int(r.likely.Load())
	for _, rec := range recs[got:min(len(recs), got+readAhead)] {
		rec.WillRead(likely)
	}
	for i := got; i < len(sls); i++ {
		sl := sls[i]
		if i+readAhead < len(recs) {
			recs[i+readAhead].WillRead(likely)
		}
		switch {
		case rd.Aside() > aside && r.putBack(&sl.rec): // one before it waits for news
			s.refuse()
			continue
		case usual != nil && sl.quick(usual):
			sl.topic = &usual.name
		case !s.accept(r, sl):
			s.refuse()
			continue
		}
		if i != got { // those taken come first
			sls[i], sls[got] = sls[got], sl
			recs[i], recs[got] = recs[got], recs[i]
		}
		got++
	}
	if got > 0 && len(sls[got-1].rec.Payload) != likely {
		r.likely.Store(int64(len(sls[got-1].rec.Payload)))
	}
	return got, true
}

// refuse counts one of a batch that nobody gets.
func (s *Subscription) refuse() {
	s.slots.refused.Add(1)
	s.slots.taken.Add(1)
}

// ReleaseBatch releases messages, of any subscriptions. Errors are Release's, joined; all are tried.
func ReleaseBatch(ms []Message) error {
	if len(ms) == 1 {
		return ms[0].Release()
	}
	var errs error
	for len(ms) > 0 {
		n := releaseRun(ms[:min(len(ms), batchChunk)])
		if n == 0 {
			errs = errors.Join(errs, ms[0].Release())
			n = 1
		}
		ms = ms[n:]
	}
	return errs
}

// releaseRun releases the messages at the start of ms that came on one route, and returns how many they are. 0: the first is
// none that can be released.
func releaseRun(ms []Message) (n int) {
	var seqs [batchChunk]uint64
	var sls [batchChunk]*slot // to be given back
	var done [batchChunk]*lot // of which nothing is out any more
	var r *inRoute
	blocks, over, taken := 0, 0, 0
	for n < len(ms) && ms[n].slot() != nil {
		l, serial := ms[n].l, ms[n].tag>>serialShift
		route, run, home := l.route, l.run, l.home.Load() // before they are another's
		if r == nil {
			r = route
		}
		if route != r {
			break
		}
		k, bits, some := l.places(serial, ms[n:], sls[taken:], seqs[blocks:])
		if k == 0 {
			break
		}
		ok, all := l.release(serial, bits)
		if !ok { // one of them is released: who releases them one by one sees which
			break
		}
		n, blocks = n+k, blocks+some
		if run != nil {
			r.giveBackRun(run, k)
		}
		switch {
		case l.single() && home != homeList:
			l.leave(serial, home)
		case all:
			done[over] = l
			over++
		}
		if !l.single() {
			taken += k
		}
	}
	if blocks > 0 {
		r.giveBack(seqs[:blocks]...)
	}
	if taken+over > 0 {
		s := ms[0].l.owner
		s.taken.Add(uint64(taken))
		s.giveBack(sls[:taken], done[:over]...)
	}
	return n
}
