package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bhome-bus/bhome/shmio"
	"github.com/bhome-bus/bhome/wire"
)

// message is what is sent: a block, or bytes that fit inline.
type message struct {
	b       *block
	run     []shmio.Outgoing // it, and what of its batch may go with it as it lies in b, too; nil: it has b for itself
	went    int              // of run, at the last push that was Sent
	held    int32            // references to b that are the sender's: one for each route that will take it, counted beforehand
	payload []byte
	in      wire.Inline
}

// release gives back the references to a block that no route has taken.
func (m *message) release() {
	if m.held > 0 {
		m.b.unref(m.held)
		m.held = 0
	}
}

// done is how many messages a push is done with that didn't find the route full.
func (m *message) done() int { return max(1, m.went) }

// reserve sees to it that there is a reference for each of so many takers. The sender has one, or all.
func (m *message) reserve(takers int) {
	if more := int32(takers) - m.held; m.b != nil && more > 0 {
		m.b.ref(more)
		m.held += more
	}
}

// takers is how many references a message to routes needs.
func (tp *topicPub) takers(routes []*outRoute) int {
	if tp.keeps.Load() {
		return len(routes) + 1
	}
	return len(routes)
}

// sent is release after a publisher's send; a topic that keeps messages keeps the block.
func (m *message) sent(tp *topicPub, takers, routes int) {
	if m.b != nil && takers > routes {
		m.held--
		tp.sentLast(m.b)
	}
	m.release()
}

// sentLast takes over the reference to a block that was sent and that is no route's: a topic that keeps messages keeps it.
func (tp *topicPub) sentLast(b *block) {
	if tp.keeps.Load() {
		tp.keep(b)
	} else {
		b.unref(1)
	}
}

// push tries once. One of the references that m holds is the route's after a successful push.
func (o *outRoute) push(m *message, arm bool) (shmio.Outcome, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	out, err := o.stage(m, arm, reclaimEvery)
	if err == nil && out != shmio.Full { // what was counted is to be seen, too
		o.w.Commit()
	}
	return out, err
}

// pushBatch pushes what it can of b, in order from message at on, with one commit, and returns how many it has done with:
// all, or those before the one that found no room.
func (o *outRoute) pushBatch(b *batch, at int) (done int, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for at+done < b.len() {
		if n := o.stageRun(b, at+done); n > 0 {
			done += n
			continue
		}
		var out shmio.Outcome
		m := b.message(at + done)
		if out, err = o.stage(m, false, m.reclaimEvery()); err != nil || out == shmio.Full {
			break
		}
		m.release() // if the policy dropped it
		done += m.done()
	}
	if done > 0 {
		o.w.Commit()
	}
	return done, err
}

// stageRun stages what there is of b from message at on, inline or in blocks as the first, for as long as there is nothing to be done but
// that, and returns how many it is done with; o.mu is held.
func (o *outRoute) stageRun(b *batch, at int) int {
	if o.over {
		return 0
	}
	end := at
	inline := b.inline(at)
	if b.blocks == nil {
		end = b.len()
	}
	for end < b.len() && b.inline(end) == inline && b.alone(end) {
		end++
	}
	switch {
	case end == at:
		return 0
	case inline:
		n, _ := o.w.PushInlineBatch(b.head(at), b.payloads[at:end])
		return n
	case b.group != o.group:
		return 0
	}
	return o.w.PushBlocks(b.blocks[at:min(end, at+max(0, o.lookAt-o.w.Out()))])
}

// stage is push without the commit. Returns are looked for again after so many blocks; o.mu is held.
func (o *outRoute) stage(m *message, arm bool, every int) (shmio.Outcome, error) {
	for {
		if o.over {
			return shmio.Full, errRouteOver
		}
		if m.b != nil && m.b.group != o.group {
			return shmio.Full, errOtherGroup
		}
		if o.w.Out() >= o.lookAt || arm {
			if err := o.reclaim(); err != nil {
				return shmio.Full, err
			}
			o.lookAt = o.w.Out() + every
		}
		o.lookAt = min(o.lookAt, o.w.Out()+every) // others take back, too
		var out shmio.Outcome
		if m.b != nil {
			if out = o.pushBlock(m); out == shmio.Sent {
				m.held-- // before anybody else looks for what is returned: o.mu is held
			}
		} else {
			out = o.w.PushInline(m.in, m.payload)
		}
		switch {
		case out == shmio.Sent, out == shmio.DroppedNewest:
			return out, nil
		case out == shmio.Ended && o.w.Err() != nil:
			return out, o.spoiled(o.w.Err())
		case out == shmio.Ended:
			return out, errRouteOver
		case out == shmio.TooLarge:
			return out, fmt.Errorf("%w: %d bytes inline, at most %d", ErrTooLarge, len(m.payload), o.inline)
		case out == shmio.Full && !arm && o.w.Out() > 0:
			// Returns may make room: look before waiting for it.
			if err := o.reclaim(); err != nil {
				return out, err
			}
			arm = true
		case out == shmio.Full && arm && !o.w.ArmSpace():
			// There is room after all.
		default:
			return out, nil
		}
	}
}

// pushBlock stages m's block, and of what may go with it what there is room for; o.mu is held. Who keeps one message of a shared block keeps
// all of it, and is charged with that.
func (o *outRoute) pushBlock(m *message) (out shmio.Outcome) {
	if m.run == nil {
		return o.w.Push(m.b.word, uint64(m.b.size), m.b)
	}
	m.went, out = o.w.PushRun(m.run, m.b.word, uint64(len(m.b.mem)-wire.HeaderSize), m.b)
	if m.went > 1 { // one reference is enough for all
		m.b.unref(int32(m.went - 1))
	}
	return out
}

// errOtherGroup says that a block doesn't lie where the route's reader may read it, and perhaps where others may.
var errOtherGroup = errors.New("the block is of another access group than the route")

// reclaimEvery is how many more blocks are let out before returns are looked for again on the way of a send: each look
// takes the line where they are counted from the reader.
const reclaimEvery = 16

// Of messages in batches: each look has costs besides, and so many blocks more under way do no harm. But no more than so many bytes.
const (
	reclaimBatch = 512
	reclaimBytes = 512 << 10
	sharedOut    = 8 // of blocks with many messages each
)

// reclaimEvery is that of batches of messages like m.
func (m *message) reclaimEvery() int {
	switch {
	case m.b == nil:
		return reclaimEvery
	case m.run != nil:
		return sharedOut
	}
	return min(reclaimBatch, max(reclaimEvery, int(reclaimBytes/wire.BlockSize(m.b.class))))
}

// reclaim takes back what the reader returned; o.mu is held. A reader that spoils its half loses the route.
func (o *outRoute) reclaim() error {
	if _, err := o.w.Reclaim(); err != nil {
		return o.spoiled(err)
	}
	return nil
}

// spoiled ends a route whose reader writes rubbish into its half; o.mu is held.
func (o *outRoute) spoiled(err error) error {
	o.n.log.Warn("a receiver's queue is not usable; its route is cut", "receiver", o.peer.name, "pid", o.peer.pid, "error", err)
	o.over = true
	go o.n.background(func(context.Context) { o.n.cut(o.id, err) }) // n.mu may be held by whoever waits for o.mu
	return errRouteOver
}

// wait pushes m, waiting for room until ctx ends, or for limit at most (then errConsent); 0 is no limit. Waiting
// allocates nothing.
func (o *outRoute) wait(ctx context.Context, m *message, limit time.Duration) error {
	select {
	case o.gate <- struct{}{}:
		defer func() { <-o.gate }()
	default: // another topic's sender is waiting here, and may have longer
		began := time.Now()
		var expired <-chan time.Time
		if limit > 0 {
			t := time.NewTimer(limit)
			defer t.Stop()
			expired = t.C
		}
		select {
		case o.gate <- struct{}{}:
			defer func() { <-o.gate }()
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-expired:
			return errConsent
		}
		if limit > 0 {
			limit = max(limit-time.Since(began), 1)
		}
	}
	var until time.Time
	if limit > 0 {
		until = time.Now().Add(limit)
	}
	for {
		switch out, err := o.push(m, true); {
		case err != nil:
			return err
		case out != shmio.Full:
			return nil
		}
		err := o.awaitSpace(ctx, until)
		if err == nil {
			continue
		}
		o.mu.Lock()
		if !o.freed {
			o.w.DisarmSpace()
		}
		o.mu.Unlock()
		return err
	}
}

// awaitSpace waits until somebody says that there may be room; an error: ctx or the time until then (zero: no limit) is over.
func (o *outRoute) awaitSpace(ctx context.Context, until time.Time) error {
	s := o.peer.sit()
	if s != nil {
		ok := s.sleep(ctx, o.w, until)
		o.peer.rise(s, !ok)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !until.IsZero() && !time.Now().Before(until):
			return errConsent
		}
		return nil
	}
	defer o.peer.rise(nil, false)
	var expired <-chan time.Time
	if !until.IsZero() {
		left := max(time.Until(until), 1)
		if o.timer == nil {
			o.timer = time.NewTimer(left)
		} else {
			o.timer.Reset(left)
		}
		defer o.timer.Stop()
		expired = o.timer.C
	}
	select {
	case <-o.w.SpaceC():
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-expired:
		return errConsent
	}
}
