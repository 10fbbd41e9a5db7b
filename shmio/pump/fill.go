package pump

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"

	"github.com/bhome-bus/bhome/shmio"
	"github.com/bhome-bus/bhome/wire"
)

// fill waits for something and takes what there is, at most a batch full. Rubbish sets d.broken. A panic is returned;
// what was taken before it is in b, and the record that it happened at is kept for the next try.
func (d *drain) fill(ctx context.Context, b *Batch) (failure *Failure) {
	b.out.Store(true)
	defer func() {
		if r := recover(); r != nil {
			failure = &Failure{Reason: r, Stack: debug.Stack()}
		}
	}()
	for len(b.Items) < d.cfg.BatchItems && len(b.arena) < 4*d.cfg.MaxFrame {
		if !d.pending {
			r, err := d.next(ctx, len(b.Items) == 0)
			if err != nil {
				if ctx.Err() == nil || errors.Is(err, shmio.ErrCorruptRoute) {
					d.broken = fmt.Errorf("draining a link: %w", err)
				}
				return nil
			}
			if r == nil {
				return nil
			}
			if d.queue = d.index(r); d.queue < 0 {
				continue // a route that the pump wasn't told of
			}
			d.pending = true
		}
		if err := d.take(b); err != nil {
			d.broken = fmt.Errorf("draining queue %d of a link: %w", d.queue, err)
			return nil
		}
		d.pending = false
	}
	return nil
}

// next takes the next record off the rings, waiting for it only if told.
func (d *drain) next(ctx context.Context, wait bool) (*shmio.Reader, error) {
	if wait {
		return d.cfg.Inbox.Receive(ctx, &d.rec)
	}
	return d.cfg.Inbox.TryReceive(&d.rec)
}

func (d *drain) index(r *shmio.Reader) int {
	for i, q := range d.cfg.Queues {
		if q == r {
			return i
		}
	}
	return -1
}

// take copies the record into b. A block goes back to the node at once.
func (d *drain) take(b *Batch) error {
	rec := &d.rec
	switch {
	case rec.IsInline():
		if rec.Head.Kind() != wire.KindControl {
			return fmt.Errorf("%w: inline record of kind %d", ErrRubbish, rec.Head.Kind())
		}
		b.addFrame(d.queue, rec.Word, rec.Payload)
	case rec.IsBlock():
		var blk shmio.Block
		if err := d.cfg.Space.Block(rec.Word, &blk); err != nil {
			return err
		}
		if blk.Header.Kind != wire.KindControl {
			return fmt.Errorf("%w: block of kind %d", ErrRubbish, blk.Header.Kind)
		}
		if len(blk.Payload) > d.cfg.MaxFrame {
			return fmt.Errorf("%w: frame of %d bytes, at most %d", ErrRubbish, len(blk.Payload), d.cfg.MaxFrame)
		}
		b.addFrame(d.queue, rec.Word, blk.Payload)
		d.cfg.Queues[d.queue].ReturnRecord(rec)
	default:
		b.add(d.queue, rec.Word)
	}
	return nil
}
