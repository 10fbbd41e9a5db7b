package soak

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/bhome-bus/bhome/node"
)

// serveSpec is one service of a process.
type serveSpec struct {
	Topic          string
	Workers, Depth int
}

// askSpec is one client of a process.
type askSpec struct {
	Topic   string
	Largest int
	Async   bool
	Deadly  bool // some of its requests end their provider
	Pause   time.Duration
}

// clients are the journals of those whose requests this process has handled.
type clients struct {
	mu   sync.Mutex
	open map[uint32]*journal
}

// count notes that a request is handled here, and returns how often it now has been, here or elsewhere.
func (c *clients) count(dir string, h head, by uint32) (uint8, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	j := c.open[h.Member]
	if j == nil {
		var err error
		if j, err = openJournal(dir, h.Member, false); err != nil {
			return 0, err
		}
		if c.open == nil {
			c.open = map[uint32]*journal{}
		}
		c.open[h.Member] = j
	}
	times, _ := j.handled(h.Position)
	j.setHandled(h.Position, times+1, by)
	return times + 1, nil
}

func (c *clients) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, j := range c.open {
		j.close()
		delete(c.open, id)
	}
}

var errAsked = errors.New("this request asked for an error")

// serve provides a topic: each answer is the request's own head and as much of the pattern as the request had.
func (w *worker) serve(ctx context.Context, index int, spec serveSpec) error {
	handle := func(hctx context.Context, req *node.Request) ([]byte, error) {
		w.maybeExit()
		h, err := parse(req.Bytes())
		if err != nil {
			w.fault(ctx, "a request of %s on %q: %v", req.Client(), req.Topic(), err)
			return nil, err
		}
		times, err := w.clients.count(w.cfg.Dir, h, w.cfg.Member)
		if err != nil {
			w.fault(ctx, "request %d of member %d: %v", h.Position, h.Member, err)
			return nil, err
		}
		if times > 1 {
			w.fault(ctx, "request %d of member %d (%s) was handled %d times", h.Position, h.Member, req.Client(), times)
		}
		switch h.Flags {
		case doFail:
			return nil, errAsked
		case doPanic:
			panic(errAsked.Error())
		case doExit:
			if w.cfg.Mortal {
				w.exit()
			}
		case doSleep:
			sleep(hctx, time.Duration(h.Position%100)*time.Millisecond)
		}
		reply := make([]byte, len(req.Bytes()))
		w.pattern.put(reply, head{Member: h.Member, Slot: w.cfg.Member, Position: h.Position})
		return reply, nil
	}
	_, err := w.n.Serve(ctx, spec.Topic, handle, node.Workers(spec.Workers), node.ServeDepth(spec.Depth))
	return err
}

type client struct {
	w    *worker
	spec askSpec
	id   uint32
	slot slot
	r    *rand.Rand
}

func (w *worker) client(index int, spec askSpec) (*client, error) {
	w.slots.Lock()
	defer w.slots.Unlock()
	id, s, err := w.j.add(slotAsk, index)
	return &client{w: w, spec: spec, id: uint32(id), slot: s, r: w.rand(400 + index)}, err
}

// unanswered is after what time a request that asked for no less counts as never answered.
const unanswered = 30 * time.Second

// call is one request under way.
type call struct {
	h        head
	payload  []byte
	deadline time.Duration
	ended    chan error // what was wrong with its end
}

func (c *client) run(ctx context.Context) error {
	for ctx.Err() == nil {
		if !c.w.gate.enter(ctx) {
			return nil
		}
		err := c.burst(ctx)
		c.w.gate.leave()
		if err != nil {
			return err
		}
		c.w.maybeExit()
		c.w.stall(ctx, time.Duration(c.r.ExpFloat64()*float64(c.spec.Pause)))
	}
	return nil
}

func (c *client) next() *call {
	k := &call{deadline: unanswered}
	k.h = head{Member: c.w.cfg.Member, Slot: c.id, Position: c.w.request.Add(1)}
	switch x := c.r.IntN(1000); {
	case x < 20:
		k.h.Flags = doFail
	case x < 30:
		k.h.Flags = doPanic
	case x < 60:
		k.h.Flags = doSleep
	case x < 63 && c.spec.Deadly:
		k.h.Flags = doExit
	}
	if c.r.IntN(20) == 0 { // gives up, perhaps
		k.deadline = time.Duration(1+c.r.IntN(20)) * time.Millisecond
	}
	k.payload = make([]byte, headBytes+c.r.IntN(c.spec.Largest))
	if c.r.IntN(4) > 0 {
		k.payload = k.payload[:min(len(k.payload), headBytes+c.r.IntN(200))]
	}
	c.w.pattern.put(k.payload, k.h)
	c.w.j.setHandled(k.h.Position, 0, 0) // who wrote here last is long over
	return k
}

// burst asks once, or several times at once.
func (c *client) burst(ctx context.Context) error {
	if !c.spec.Async {
		k := c.next()
		bound, cancel := context.WithTimeout(ctx, k.deadline)
		defer cancel()
		c.slot.add(cBegun, 1)
		reply, err := c.w.n.Request(bound, c.spec.Topic, k.payload)
		return c.check(ctx, k, reply, err)
	}
	calls := make([]*call, 0, 16)
	for range 1 + c.r.IntN(16) {
		k := c.next()
		k.ended = make(chan error, 4)
		bound, cancel := context.WithTimeout(ctx, k.deadline)
		defer cancel()
		c.slot.add(cBegun, 1)
		err := c.w.n.RequestAsync(bound, c.spec.Topic, k.payload, func(r *node.Reply, err error) {
			k.ended <- c.verdict(k, r, err)
		})
		if err != nil {
			if err := c.check(ctx, k, nil, err); err != nil {
				return err
			}
			continue
		}
		calls = append(calls, k)
	}
	for _, k := range calls {
		select {
		case err := <-k.ended:
			if err := c.note(ctx, err); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		case <-time.After(2 * unanswered):
			return fmt.Errorf("request %d on %q: its callback was never called", k.h.Position, c.spec.Topic)
		}
	}
	for _, k := range calls { // nobody is called twice
		select {
		case err := <-k.ended:
			return fmt.Errorf("request %d on %q was answered twice: the second time %v", k.h.Position, c.spec.Topic, err)
		default:
		}
	}
	return nil
}

// clearError is an end without a reply that is as it should be.
type clearError struct{ error }

func (c *client) check(ctx context.Context, k *call, r *node.Reply, err error) error {
	return c.note(ctx, c.verdict(k, r, err))
}

// note counts a verdict; it returns what is wrong.
func (c *client) note(ctx context.Context, err error) error {
	var expected clearError
	switch {
	case err == nil:
		c.slot.add(cSent, 1)
		return nil
	case errors.As(err, &expected):
		c.slot.add(cFailed, 1)
		return nil
	case ctx.Err() != nil:
		return nil
	default:
		return err
	}
}

// verdict judges a request's end: nil, a clearError, or what is wrong.
func (c *client) verdict(k *call, r *node.Reply, err error) error {
	handled, by := c.w.j.handled(k.h.Position)
	wrong := func(format string, args ...any) error {
		return fmt.Errorf("request %d on %q (%d bytes, to do %d, handled %d times, by member %d): %s", k.h.Position, c.spec.Topic, len(k.payload), k.h.Flags, handled, by, fmt.Sprintf(format, args...))
	}
	if err == nil {
		h, perr := parse(r.Bytes())
		size := len(r.Bytes())
		provider := r.Provider()
		if rerr := r.Release(); rerr != nil {
			return wrong("release of its reply: %v", rerr)
		}
		switch {
		case perr != nil:
			return wrong("the reply of %s: %v", provider, perr)
		case h.Member != k.h.Member || h.Position != k.h.Position || size != len(k.payload):
			return wrong("it got the reply to another, %+v of %d bytes, of %s", h, size, provider)
		case k.h.Flags == doFail || k.h.Flags == doPanic:
			return wrong("a reply came that should be an error")
		case handled != 1:
			return wrong("a reply came of %s", provider)
		}
		return nil
	}
	var limit *node.LimitError
	switch {
	case errors.Is(err, node.ErrHandlerPanic):
		if k.h.Flags != doPanic || handled != 1 {
			return wrong("%v", err)
		}
	case errors.Is(err, node.ErrHandler):
		if k.h.Flags != doFail || handled != 1 {
			return wrong("%v", err)
		}
	case errors.Is(err, node.ErrNoProvider), errors.Is(err, node.ErrDisconnected): // nobody was found, or the center was away
		if handled != 0 {
			return wrong("%v", err)
		}
	case errors.Is(err, node.ErrProviderGone), errors.Is(err, node.ErrCancelled), errors.Is(err, node.ErrClosed), errors.As(err, &limit):
	case errors.Is(err, context.DeadlineExceeded) && k.deadline < unanswered:
	default:
		return wrong("%v", err)
	}
	return clearError{err}
}
