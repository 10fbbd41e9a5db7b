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
	spare   int32 // references to b that routes take for their own, counted beforehand: one operation for all of them
	in      wire.Inline
	payload []byte
}

// release gives back the caller's reference to a block, and those that no route has taken.
func (m *message) release() {
	if m.b != nil {
		m.b.unref(1 + m.spare)
	}
}

// sent is release after a publisher's send; a topic that keeps messages keeps the block.
func (m *message) sent(tp *topicPub) {
	if m.b != nil && tp.keeps.Load() {
		tp.keep(m.b)
	}
	m.release()
}

// push tries once. The caller holds a reference to m.b; a successful push takes one more.
func (o *outRoute) push(m *message, arm bool) (shmio.Outcome, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	out, err := o.stage(m, arm)
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
		if b.ms == nil && !o.over {
			n, _ := o.w.PushInlineBatch(b.head(at+done), b.payloads[at+done:])
			if done += n; at+done == b.len() {
				break
			}
		}
		var out shmio.Outcome
		if out, err = o.stage(b.message(at+done), false); err != nil || out == shmio.Full {
			break
		}
		done++
	}
	if done > 0 {
		o.w.Commit()
	}
	return done, err
}

// stage is push without the commit; o.mu is held.
func (o *outRoute) stage(m *message, arm bool) (shmio.Outcome, error) {
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
			o.lookAt = o.w.Out() + reclaimEvery
		}
		o.lookAt = min(o.lookAt, o.w.Out()+reclaimEvery) // others take back, too
		var out shmio.Outcome
		if m.b != nil {
			if m.spare > 0 {
				m.spare--
			} else {
				m.b.refs.Add(1)
			}
			if out = o.w.Push(m.b.word(), uint64(m.b.size), m.b); out != shmio.Sent {
				m.spare++
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

// errOtherGroup says that a block doesn't lie where the route's reader may read it, and perhaps where others may.
var errOtherGroup = errors.New("the block is of another access group than the route")

// reclaimEvery is how many more blocks are let out before returns are looked for again on the way of a send: each look
// takes the line where they are counted from the reader.
const reclaimEvery = 16

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
	var expired <-chan time.Time
	if limit > 0 {
		if o.timer == nil {
			o.timer = time.NewTimer(limit)
		} else {
			o.timer.Reset(limit)
		}
		defer o.timer.Stop()
		expired = o.timer.C
	}
	for {
		switch out, err := o.push(m, true); {
		case err != nil:
			return err
		case out != shmio.Full:
			return nil
		}
		err := error(nil)
		select {
		case <-o.w.SpaceC():
			continue
		case <-ctx.Done():
			err = context.Cause(ctx)
		case <-expired:
			err = errConsent
		}
		o.mu.Lock()
		if !o.freed {
			o.w.DisarmSpace()
		}
		o.mu.Unlock()
		return err
	}
}
