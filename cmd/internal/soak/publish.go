package soak

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/bhome-bus/bhome/node"
)

// pubSpec is one publisher of a process.
type pubSpec struct {
	Topic   string
	Consent time.Duration // AllowBlock
	Largest int           // payload, bytes
	Batch   bool          // PublishBatch besides Publish and Loan
	Keep    int
	Pause   time.Duration // between bursts, on average
}

// lossless says that Block subscribers of it may lose nothing: its consent outlasts every stop.
func (p pubSpec) lossless() bool { return p.Consent >= endless }

// endless is a consent that is never used up.
const endless = time.Hour

type publisher struct {
	w     *worker
	index int
	spec  pubSpec
	r     *rand.Rand
	p     *node.Publisher
	id    uint32
	slot  slot
	pos   uint64
	bufs  [][]byte
}

// open announces the topic. The slot is there before, so that nobody hears of messages whose slot isn't.
func (p *publisher) open(ctx context.Context) error {
	w := p.w
	w.slots.Lock()
	id, s, err := w.j.add(slotPub, p.index)
	w.slots.Unlock()
	if err != nil {
		return err
	}
	p.id, p.slot, p.pos = uint32(id), s, 0
	p.p, err = w.n.Publisher(ctx, p.spec.Topic, node.AllowBlock(p.spec.Consent), node.Keep(p.spec.Keep))
	return err
}

func (p *publisher) run(ctx context.Context) error {
	for ctx.Err() == nil {
		if !p.w.gate.enter(ctx) {
			return nil
		}
		err := p.burst(ctx)
		p.w.gate.leave()
		if err != nil {
			return err
		}
		p.w.stall(ctx, time.Duration(p.r.ExpFloat64()*float64(p.spec.Pause)))
	}
	return nil
}

// burst sends some messages, and now and then closes the publisher and opens another.
func (p *publisher) burst(ctx context.Context) error {
	if p.w.cfg.Churn && p.r.IntN(400) == 0 {
		if err := p.reopen(ctx); err != nil {
			return err
		}
	}
	for range 1 + p.r.IntN(16) {
		if ctx.Err() != nil || p.w.pausing.Load() {
			return nil
		}
		if err := p.step(ctx); err != nil {
			return err
		}
		p.w.maybeExit()
	}
	return nil
}

// size draws one: mostly short, some of a page or so, a few as large as may be.
func (p *publisher) size() int {
	n := 0
	switch x := p.r.IntN(100); {
	case x < 60:
		n = p.r.IntN(100)
	case x < 90:
		n = p.r.IntN(1000)
	case x < 99:
		n = p.r.IntN(16 << 10)
	default:
		n = p.r.IntN(p.spec.Largest)
	}
	return headBytes + min(n, p.spec.Largest-headBytes)
}

func (p *publisher) head(ahead int) head {
	h := head{Member: p.w.cfg.Member, Slot: p.id, Position: p.pos + uint64(ahead)}
	if p.spec.lossless() {
		h.Flags = lossless
	}
	return h
}

func (p *publisher) step(ctx context.Context) error {
	switch x := p.r.IntN(10); {
	case p.spec.Batch && x < 5:
		return p.batch(ctx, 1+p.r.IntN(100))
	case x < 8:
		b := p.buf(0, p.size())
		p.w.pattern.put(b, p.head(0))
		if p.w.cfg.Inject == Corrupt && p.pos > injectAt {
			b[len(b)/2] ^= 0x10
		}
		p.slot.set(cBegun, p.pos+1)
		return p.sent(ctx, 1, len(b), p.p.Publish(ctx, b))
	default:
		size := p.size()
		l, err := p.p.Loan(ctx, size)
		if err != nil {
			return p.sent(ctx, 0, 0, err)
		}
		p.w.pattern.put(l.Bytes(), p.head(0))
		p.w.maybeExit()
		p.slot.set(cBegun, p.pos+1)
		return p.sent(ctx, 1, size, p.p.Send(ctx, l))
	}
}

func (p *publisher) batch(ctx context.Context, k int) error {
	payloads, bytes := make([][]byte, k), 0
	alike := p.r.IntN(2) * (300 + p.r.IntN(1000)) // as long, or nearly: then they share blocks
	for i := range payloads {
		size := min(p.size(), 64<<10)
		if alike > 0 {
			size = min(headBytes+alike+p.r.IntN(50), p.spec.Largest)
		}
		b := p.buf(i, size)
		p.w.pattern.put(b, p.head(i))
		payloads[i], bytes = b, bytes+len(b)
	}
	p.slot.set(cBegun, p.pos+uint64(k))
	return p.sent(ctx, k, bytes, p.p.PublishBatch(ctx, payloads))
}

// sent notes how it went with k messages.
func (p *publisher) sent(ctx context.Context, k, bytes int, err error) error {
	switch full := errors.Is(err, node.ErrFull) && !p.spec.lossless() && k > 0; {
	case err == nil, full && k == 1: // all others have it, and whoever hadn't room counts it
		p.pos += uint64(k)
		p.slot.add(cBytes, uint64(bytes))
		p.slot.set(cSent, p.pos)
		if err != nil {
			p.slot.add(cRefused, 1)
		}
		return nil
	case full, errors.Is(err, node.ErrNoMemory):
		p.slot.add(cRefused, 1)
		if k > 1 { // nobody knows where the batch ended: the rest is another publisher's
			return p.reopen(ctx)
		}
		p.slot.set(cBegun, p.pos) // it has no number, and nobody has it
		return nil
	default:
		return fmt.Errorf("publish on %q, message %d: %w", p.spec.Topic, p.pos, err)
	}
}

func (p *publisher) reopen(ctx context.Context) error {
	if err := p.p.Close(ctx); err != nil {
		return err
	}
	return p.open(ctx)
}

func (p *publisher) buf(i, size int) []byte {
	for len(p.bufs) <= i {
		p.bufs = append(p.bufs, nil)
	}
	if cap(p.bufs[i]) < size {
		p.bufs[i] = make([]byte, size)
	}
	return p.bufs[i][:size]
}

// unsent loans blocks and gives them back without having sent them, on a topic that nobody hears.
func (w *worker) unsent(ctx context.Context, r *rand.Rand) {
	p, err := w.n.Publisher(ctx, "unsent."+w.cfg.Name)
	for err == nil && ctx.Err() == nil {
		if !w.gate.enter(ctx) {
			return
		}
		var l node.Loan
		if l, err = p.Loan(ctx, r.IntN(maxPayload)); err == nil {
			w.stall(ctx, time.Duration(r.IntN(100))*time.Millisecond)
			w.maybeExit()
			err = l.Release()
		} else if errors.Is(err, node.ErrNoMemory) {
			err = nil
		}
		w.gate.leave()
		w.stall(ctx, time.Duration(r.IntN(100))*time.Millisecond)
	}
	w.faultUnless(ctx, err)
}
