package shmio

import "context"

// TryReceive takes the next message of any route that is polled; nil, nil: there is none. Errors are Receive's.
func (in *Inbox) TryReceive(rec *Record) (*Reader, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.tryReceive(rec)
}

// tryReceive is TryReceive with mu held.
func (in *Inbox) tryReceive(rec *Record) (*Reader, error) {
	if in.closed {
		return nil, ErrInboxClosed
	}
	r, err := in.poll(rec)
	in.passOn()
	return r, err
}

// ReceiveBatch is Receive of up to len(recs) messages of one route at once, in order; n is how many. It waits for the first
// only.
func (in *Inbox) ReceiveBatch(ctx context.Context, recs []*Record) (r *Reader, n int, err error) {
	if err := ctx.Err(); err != nil {
		return nil, 0, err
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	r, err = in.receive(ctx, recs[0])
	if r == nil || err != nil {
		return r, 0, err
	}
	n, _ = r.TryReceiveBatch(recs[1:]) // an error is sticky: the next poll meets it
	in.hits += uint64(n)
	r.place.lastHit = in.hits
	if in.pos < len(in.hot) && in.hot[in.pos] == r {
		in.tookOf(n)
	}
	return r, 1 + n, nil
}

// Receive takes the next message into rec and says which route it came on. Blocks must be returned there. When a route
// is corrupt it returns that route with an error that wraps ErrCorruptRoute, and no longer receives from it; other
// errors are ErrInboxClosed and ctx's.
func (in *Inbox) Receive(ctx context.Context, rec *Record) (*Reader, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.receive(ctx, rec)
}

// Recorder has the records that messages are received into. It is called with the Inbox locked: it must not call it.
type Recorder interface {
	Record() *Record // takes one, for a receiver who may have to wait
	Unused(*Record)  // gives it back: nothing came
}

// ReceiveNext is Receive into a record of rs; nil: there is no message.
func (in *Inbox) ReceiveNext(ctx context.Context, rs Recorder) (*Reader, *Record, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	rec := rs.Record()
	r, err := in.receive(ctx, rec)
	return r, usedBy(r, err, rec, rs), err
}

// TryReceiveNext is TryReceive into a record of rs; nil: there is no message.
func (in *Inbox) TryReceiveNext(rs Recorder) (*Reader, *Record, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	rec := rs.Record()
	r, err := in.tryReceive(rec)
	return r, usedBy(r, err, rec, rs), err
}

// usedBy is rec if a message was received into it; else rs has it back.
func usedBy(r *Reader, err error, rec *Record, rs Recorder) *Record {
	if r == nil || err != nil {
		rs.Unused(rec)
		return nil
	}
	return rec
}

// Found is how many messages were received.
func (in *Inbox) Found() uint64 {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.hits
}

// receive is Receive with mu held, and returns with it.
func (in *Inbox) receive(ctx context.Context, rec *Record) (*Reader, error) {
	for {
		if in.closed {
			return nil, ErrInboxClosed
		}
		if in.nudged {
			in.nudged = false
			in.passOn()
			return nil, ErrNudged
		}
		if r, err := in.poll(rec); r != nil {
			in.passOn()
			return r, err
		}
		if !in.spinning && (len(in.hot) > 0 || in.spin.strategy == BusySpin) {
			if in.spin.strategy != Park {
				if r, err := in.spinOn(ctx, rec); r != nil || err != nil {
					in.passOn()
					return r, err
				}
				if in.closed || in.nudged {
					continue
				}
			}
			if !in.armAll() {
				continue
			}
		}
		if err := in.park(ctx); err != nil {
			in.passOn()
			return nil, err
		}
	}
}

// spinOn looks on for as long as that pays. nil, nil: park. Called with mu held; lets go of it now and then.
func (in *Inbox) spinOn(ctx context.Context, rec *Record) (*Reader, error) {
	in.spinning = true
	defer func() { in.spinning = false }()
	in.spin.begin()
	for {
		in.mu.Unlock()
		more, check := in.spin.again()
		in.mu.Lock()
		if in.closed || in.nudged {
			return nil, nil
		}
		if check && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		for range max(1, looksATurn/max(1, len(in.hot))) { // Wake must not wait for long
			if r, err := in.poll(rec); r != nil {
				return r, err
			}
		}
		if !more {
			return nil, nil
		}
	}
}

// armAll makes all routes cold; false: one of them has something.
func (in *Inbox) armAll() bool {
	for len(in.hot) > 0 {
		if !in.cool(in.hot[len(in.hot)-1]) {
			return false
		}
	}
	return true
}

// inTurn is how many messages of a route are taken before it is another's turn: what is looked at for a message is there for the
// next, too.
const inTurn = 8

// tookOf counts messages of the route whose turn it is.
func (in *Inbox) tookOf(n int) {
	if in.taken += n; in.taken >= inTurn {
		in.pos++
		in.taken = 0
	}
}

// poll looks once at each hot route, from the one whose turn it is. Called with mu held.
func (in *Inbox) poll(rec *Record) (*Reader, error) {
	for n := len(in.hot); n > 0; n-- {
		if in.pos >= len(in.hot) {
			in.pos = 0
		}
		r := in.hot[in.pos]
		ok, err := r.TryReceive(rec)
		if err != nil {
			in.remove(r)
			return r, err
		}
		if ok {
			in.tookOf(1)
			in.hits++
			r.place.lastHit = in.hits
			return r, nil
		}
		in.taken = 0
		if r == in.favourite || in.hits-r.place.lastHit < coolAfter || !in.cool(r) {
			in.pos++ // else another stands in its place
		}
	}
	return nil, nil
}

// passOn is called by a receiver that leaves: where routes are neither armed nor polled any more, another must look.
func (in *Inbox) passOn() {
	if in.waiters > 0 && !in.spinning && (len(in.hot) > 0 || in.favourite != nil && !in.leading) {
		in.wakeOne()
	}
}
