// Package pump turns the atomic queues of a link into mailbox messages: a pump is a supervised actor that owns one
// goroutine, which drains the queues into batches and hands them to one target actor.
//
// A pump takes a free batch before it drains anything. There are as many batches as Config.Credits says, and the target
// gives each one back with Batch.Done; so a target that is busy, or a node that floods its link, costs no more memory
// than that, and what can't be taken stays in the node's own ring.
//
// A pump must never block an actor, keep a node's block longer than it takes to copy it, look into a frame, or lose
// what it took from a ring. Nothing else in shmio may import the actor library.
package pump

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/bhome-bus/bhome/shmio"
	"github.com/bhome-bus/bhome/wire"
)

// ErrRubbish is wrapped by the error of a Broken for words and blocks that no honest node sends on a link.
var ErrRubbish = errors.New("pump: rubbish on the link")

// Broken tells the target that a link's queues can't be drained any more: a queue or a word is rubbish (the error wraps
// shmio.ErrCorruptRoute, shmio.ErrBadBlock, shmio.ErrUnknownSegment or ErrRubbish), the inbox was closed
// (shmio.ErrInboxClosed), or the pump failed again and again at the same word (a *Failure). What came before was sent
// before. The pump idles until it is stopped.
type Broken struct {
	Generation uint64
	Err        error
}

// Failure is what a pump actor panics with when its goroutine panicked, for its supervisor to see.
type Failure struct {
	Generation uint64
	Reason     any    // what was recovered
	Stack      []byte // of the goroutine
}

// Error tells the reason; the stack is kept apart.
func (f *Failure) Error() string {
	return fmt.Sprintf("pump %d: goroutine panicked: %v", f.Generation, f.Reason)
}

// Counters count what pumps do; several may share them.
type Counters struct {
	Batches, Words, Frames, FrameBytes atomic.Uint64 // handed to targets
	Stalls                             atomic.Uint64 // times that a pump found no credit
	Starts, Panics, Broken             atomic.Uint64
}

// Config is what one pump works on.
type Config struct {
	Inbox      *shmio.Inbox    // what feeds it; nobody else receives from it
	Queues     []*shmio.Reader // of the link, at most 256; Item.Queue is the index. The pump adds them to Inbox if they aren't
	Space      *shmio.Space    // where the node's blocks lie
	Target     *actor.PID      // gets *Batch and *Broken
	BatchItems int             // items in a batch at most; default 256
	Credits    int             // batches in the target's hands at most; default 8
	MaxFrame   int             // bytes; default wire.MaxFrame. A batch ends once its frames fill four of them
	Count      *Counters       // may be nil
}

// sameFault is how often in a row a pump may panic without having handed on anything before the link counts as broken.
const sameFault = 3

// stopTimeout bounds how long a stopping pump waits for its goroutine. It takes microseconds unless the machine hangs.
const stopTimeout = 5 * time.Second

// Props makes the props of a pump. They are for one pump at a time: restarted by its supervisor, or spawned again from
// the same Props, it goes on where it was.
func Props(cfg Config) *actor.Props {
	if cfg.Inbox == nil || cfg.Target == nil || cfg.Space == nil || len(cfg.Queues) == 0 || len(cfg.Queues) > 256 {
		panic("pump: Config wants an inbox, a space, a target and 1 to 256 queues")
	}
	if cfg.BatchItems <= 0 {
		cfg.BatchItems = 256
	}
	if cfg.Credits <= 0 {
		cfg.Credits = 8
	}
	if cfg.MaxFrame <= 0 {
		cfg.MaxFrame = wire.MaxFrame
	}
	if cfg.Count == nil {
		cfg.Count = new(Counters)
	}
	d := newDrain(cfg)
	return actor.PropsFromProducer(func() actor.Actor { return &pump{drain: d} })
}

// pump is the actor: it starts and stops the goroutine, and fails in its place.
type pump struct {
	drain      *drain
	generation uint64
	cancel     context.CancelFunc
	done       chan struct{}
}

// Receive handles the life cycle; nobody else sends to a pump.
func (p *pump) Receive(c actor.Context) {
	switch m := c.Message().(type) {
	case *actor.Started:
		p.start(c.ActorSystem().Root, c.Self())
	case *actor.Restarting, *actor.Stopping:
		p.stop()
	case *Failure:
		if m.Generation == p.generation {
			panic(m) // the supervisor's business
		}
	}
}

func (p *pump) start(root *actor.RootContext, self *actor.PID) {
	ctx, cancel := context.WithCancel(context.Background())
	p.generation = p.drain.generation.Add(1)
	p.cancel = cancel
	p.done = make(chan struct{})
	p.drain.cfg.Count.Starts.Add(1)
	go func(done chan struct{}, generation uint64) {
		defer close(done)
		p.drain.run(ctx, generation, root, self)
	}(p.done, p.generation)
}

// stop ends the goroutine and waits for it. It must not panic: that would revive a stopping actor.
func (p *pump) stop() {
	if p.cancel == nil {
		return
	}
	p.cancel()
	p.cancel = nil
	select {
	case <-p.done:
	case <-time.After(stopTimeout): // the next goroutine waits for this one's turn to end
	}
}

// drain is what outlives a restart: the batches and what was taken from a ring and not yet handed on.
type drain struct {
	cfg        Config
	generation atomic.Uint64
	turn       chan struct{} // holds one token: only one goroutine drains, also if an old one is late to stop
	free       *batches

	// The rest belongs to the holder of the turn.
	rec     shmio.Record
	queue   int // of rec, while pending
	pending bool
	fails   int // panics since something was handed on
	broken  error
}

func newDrain(cfg Config) *drain {
	d := &drain{cfg: cfg, turn: make(chan struct{}, 1), free: newBatches(cfg.Credits)}
	d.turn <- struct{}{}
	return d
}

// run is the goroutine: it drains until ctx ends, the link breaks, or it panics, which it reports to self.
func (d *drain) run(ctx context.Context, generation uint64, root *actor.RootContext, self *actor.PID) {
	select {
	case <-d.turn:
	case <-ctx.Done():
		return
	}
	defer func() { d.turn <- struct{}{} }()
	// Memory of a node may vanish under our hands (a disk error, a mapping cut short): that must cost one link.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	for _, q := range d.cfg.Queues {
		if d.broken == nil {
			d.cfg.Inbox.Add(q)
		}
	}
	for d.broken == nil {
		b := d.credit(ctx)
		if b == nil {
			return
		}
		b.Generation = generation
		failure := d.fill(ctx, b)
		if len(b.Items) == 0 {
			b.recycle()
		} else {
			d.fails = 0
			d.count(b)
			root.Send(d.cfg.Target, b)
		}
		if failure != nil {
			failure.Generation = generation
			d.cfg.Count.Panics.Add(1)
			if d.fails++; d.fails < sameFault {
				root.Send(self, failure)
				return
			}
			d.broken = failure
		}
		if d.broken != nil {
			d.cfg.Count.Broken.Add(1)
			root.Send(d.cfg.Target, &Broken{Generation: generation, Err: d.broken})
			return
		}
		if ctx.Err() != nil {
			return
		}
	}
	root.Send(d.cfg.Target, &Broken{Generation: generation, Err: d.broken}) // restarted on a broken link
}

// credit waits for a free batch; nil: ctx ended.
func (d *drain) credit(ctx context.Context) *Batch {
	select {
	case <-d.free.credits:
		return d.free.take()
	default:
	}
	d.cfg.Count.Stalls.Add(1)
	select {
	case <-d.free.credits:
		return d.free.take()
	case <-ctx.Done():
		return nil
	}
}

func (d *drain) count(b *Batch) {
	c := d.cfg.Count
	c.Batches.Add(1)
	c.Words.Add(uint64(len(b.Items)))
	if b.frames > 0 {
		c.Frames.Add(uint64(b.frames))
		c.FrameBytes.Add(uint64(len(b.arena)))
	}
}
