package node

import (
	"context"
	"errors"

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
			s.slots.putAll(sls[:want])
			if _, _, err := s.took(nil, rd, err); err != nil {
				return 0, err
			}
			return s.ReceiveBatch(ctx, into) // a route was spoiled
		}
		r := rd.Tag().(*inRoute)
		for _, rec := range recs[1:min(n, readAhead)] {
			r.peer.space.WillRead(rec.Word)
		}
		got := 0
		aside := r.r.Aside()
		for i, sl := range sls[:n] {
			if i+readAhead < n {
				r.peer.space.WillRead(recs[i+readAhead].Word)
			}
			if r.r.Aside() > aside && r.putBack(&sl.rec) || !s.accept(r, sl) { // put back: one before it waits for news
				sl.void()
				continue
			}
			if i != got { // those taken come first
				sls[i], sls[got] = sls[got], sl
				recs[i], recs[got] = recs[got], recs[i]
			}
			into[got] = sl.message()
			got++
		}
		if r.ending.Load() {
			r.drained()
		}
		if got > 0 {
			s.slots.putAll(sls[got:want])
			return got, nil
		}
	}
}

// ReleaseBatch releases messages, of any subscriptions. Errors are Release's, joined; all are tried.
func ReleaseBatch(ms []Message) error {
	if len(ms) == 1 {
		return ms[0].Release()
	}
	var errs error
	for len(ms) > 0 {
		n, err := releaseRun(ms[:min(len(ms), batchChunk)])
		errs = errors.Join(errs, err)
		ms = ms[n:]
	}
	return errs
}

// releaseRun releases the messages at the start of ms that came on one route, and returns how many they are: at least one.
func releaseRun(ms []Message) (n int, err error) {
	var sls [batchChunk]*slot // that go to the list
	var seqs [batchChunk]uint64
	var r *inRoute
	list, blocks := 0, 0
	for _, m := range ms {
		if !m.valid() {
			if n == 0 {
				return 1, m.misuse()
			}
			break
		}
		sl := m.s
		block, route, seq, home := sl.m.block, sl.route, sl.rec.Seq, sl.home.Load() // before it is another's
		if r == nil {
			r = route
		}
		if route != r || !sl.serial.CompareAndSwap(m.serial, m.serial+1) {
			if n == 0 {
				return 1, m.misuse()
			}
			break
		}
		n++
		if block {
			seqs[blocks] = seq
			blocks++
		}
		if home != homeList || list > 0 && sl.owner != sls[0].owner {
			sl.leave(m.serial, home)
			continue
		}
		sls[list] = sl
		list++
	}
	if blocks > 0 {
		r.giveBack(seqs[:blocks]...)
	}
	for _, sl := range sls[:list] {
		sl.route = nil
	}
	if list > 0 {
		sls[0].owner.putAll(sls[:list])
	}
	return n, nil
}
