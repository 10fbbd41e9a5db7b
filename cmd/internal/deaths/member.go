package deaths

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"github.com/bhome-bus/bhome/cmd/internal/child"
	"github.com/bhome-bus/bhome/node"
)

const (
	held  = 4                     // messages that a member holds all the time
	beat  = 10 * time.Millisecond // how often a member publishes what is due
	every = 20 * time.Millisecond // how often it asks
)

// memberConfig goes to one of the processes that the daemon is restarted under. They form a ring: each publishes to the one
// before it and asks the one after it.
type memberConfig struct {
	Socket      string
	Index, Next int
	Rate        int
}

// memberResult is what a member has seen at the end, or so far.
type memberResult struct {
	Delivered, Lost, Doubled, Spoiled uint64
	Requests, Failed                  uint64
	Pause                             time.Duration
	Why                               string // of the first that failed
}

func ringTopic(i int) string   { return fmt.Sprintf("deaths.ring.%03d", i) }
func ringService(i int) string { return fmt.Sprintf("deaths.svc.%03d", i) }
func ringName(i int) string    { return fmt.Sprintf("deaths-member-%03d", i) }

// ringMember is a member at work. mu guards seen.
type ringMember struct {
	n    *node.Node
	pub  *node.Publisher
	sub  *node.Subscription
	cfg  memberConfig
	mu   sync.Mutex
	seen memberResult
}

// member is the role.
func member(ctx context.Context, s *child.Session) error {
	m := &ringMember{}
	if err := s.Config(&m.cfg); err != nil {
		return err
	}
	var err error
	if m.n, err = node.Attach(ctx, node.Config{Name: ringName(m.cfg.Index), Socket: m.cfg.Socket, AttachTimeout: time.Minute}); err != nil {
		return err
	}
	if m.pub, err = m.n.Publisher(ctx, ringTopic(m.cfg.Index), node.AllowBlock(time.Minute)); err != nil {
		return err
	}
	echo := func(_ context.Context, r *node.Request) ([]byte, error) { return r.Copy(), nil }
	if _, err = m.n.Serve(ctx, ringService(m.cfg.Index), echo); err != nil {
		return err
	}
	if m.sub, err = m.n.Subscribe(ctx, ringTopic(m.cfg.Next), node.Depth(1024), node.Hold(2*held), node.OnFull(node.Block)); err != nil {
		return err
	}
	if err := s.Emit("up", nil); err != nil {
		return err
	}
	if err := s.Await(ctx, "go", nil); err != nil {
		return err
	}
	if err := m.n.WaitForService(ctx, ringService(m.cfg.Next)); err != nil {
		return err
	}
	if err := m.pub.WaitForSubscribers(ctx, 1); err != nil {
		return err
	}
	work, stop := context.WithCancel(ctx)
	defer stop()
	sent := make(chan result[uint64], 1)
	go func() { n, err := m.publish(work); sent <- result[uint64]{n, err} }()
	asked := make(chan struct{})
	go func() { defer close(asked); m.ask(work) }()
	holds := make(chan struct{})
	upTo := make(chan uint64, 1)
	received := make(chan error, 1)
	go func() { received <- m.receive(ctx, holds, upTo) }()
	select {
	case <-holds:
	case err := <-received:
		return err
	}
	if err := s.Emit("running", nil); err != nil {
		return err
	}
	for {
		var c child.Command
		select {
		case c = <-s.Commands():
		case <-ctx.Done():
			return context.Cause(ctx)
		case err := <-received:
			return err
		}
		switch c.Name {
		case "tell":
			if err := s.Emit("told", m.soFar()); err != nil {
				return err
			}
		case "stop":
			stop()
			<-asked
			r := <-sent
			if r.err != nil {
				return r.err
			}
			if err := s.Emit("sent", r.v); err != nil {
				return err
			}
		case "drain": // so many were sent to us
			var n uint64
			if err := c.Read(&n); err != nil {
				return err
			}
			upTo <- n
			if err := <-received; err != nil {
				return err
			}
			if err := s.Emit("result", m.soFar()); err != nil {
				return err
			}
		case "close":
			return m.n.Close(ctx)
		default:
			return fmt.Errorf("the parent said %q", c.Name)
		}
	}
}

type result[T any] struct {
	v   T
	err error
}

func (m *ringMember) soFar() memberResult {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.seen
}

// payload alternates between what goes inline and what takes a block; the first ones, which are held, are blocks.
func payload(i uint64) []byte {
	size := 1 << 10
	if i >= held && i%2 == 1 {
		size = 64
	}
	b := numbered(size, i)
	for j := 8; j < len(b); j++ {
		b[j] = byte(i) + byte(j)
	}
	return b
}

func intact(b []byte, i uint64) bool {
	for j := 8; j < len(b); j++ {
		if b[j] != byte(i)+byte(j) {
			return false
		}
	}
	return true
}

// publish sends at the rate until ctx ends, and returns how many.
func (m *ringMember) publish(ctx context.Context) (n uint64, err error) {
	begin := time.Now()
	t := time.NewTicker(beat)
	defer t.Stop()
	for ctx.Err() == nil {
		due := max(held, uint64(time.Since(begin).Seconds()*float64(m.cfg.Rate)))
		for ; n < due; n++ {
			if err := m.pub.Publish(context.WithoutCancel(ctx), payload(n)); err != nil {
				return n, fmt.Errorf("message %d: %w", n, err)
			}
		}
		select {
		case <-t.C:
		case <-ctx.Done():
		}
	}
	return n, nil
}

// ask sends requests until ctx ends.
func (m *ringMember) ask(ctx context.Context) {
	t := time.NewTicker(every)
	defer t.Stop()
	for ctx.Err() == nil {
		r, err := m.n.Request(context.WithoutCancel(ctx), ringService(m.cfg.Next), []byte("?"))
		m.mu.Lock()
		if m.seen.Requests++; err != nil {
			if m.seen.Failed++; m.seen.Why == "" {
				m.seen.Why = err.Error()
			}
		}
		m.mu.Unlock()
		if err == nil {
			_ = r.Release() // once
		}
		select {
		case <-t.C:
		case <-ctx.Done():
		}
	}
}

// receive takes and checks messages until it has as many as upTo says, and looks that no more come. The first stay held.
func (m *ringMember) receive(ctx context.Context, holds chan<- struct{}, upTo <-chan uint64) error {
	var next uint64
	var keep []node.Message
	last := time.Now()
	end := ^uint64(0)
	bound, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case n := <-upTo:
			m.mu.Lock()
			end = n
			m.mu.Unlock()
			cancel() // it may be there already
		case <-bound.Done():
		}
	}()
	over := func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return next >= end
	}
	rctx := bound
	for !over() {
		msg, err := m.sub.Receive(rctx)
		if err != nil {
			if ctx.Err() != nil || bound.Err() == nil {
				return fmt.Errorf("message %d: %w", next, err)
			}
			rctx = ctx
			continue
		}
		i := binary.NativeEndian.Uint64(msg.Bytes())
		now := time.Now()
		m.mu.Lock()
		if m.seen.Pause = max(m.seen.Pause, now.Sub(last)); next == 0 {
			m.seen.Pause = 0 // before the first there is none
		}
		m.seen.Delivered++
		switch {
		case i < next:
			m.seen.Doubled++
		default:
			m.seen.Lost += i - next
			next = i + 1
		}
		if !intact(msg.Bytes(), i) {
			m.seen.Spoiled++
		}
		m.mu.Unlock()
		last = now
		if len(keep) < held {
			if keep = append(keep, msg); len(keep) == held {
				close(holds)
			}
			continue
		}
		if err := msg.Release(); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, more, err := m.sub.TryReceive(); more || err != nil {
		m.seen.Doubled++
	}
	for i, msg := range keep { // as they came, after all restarts
		if !intact(msg.Bytes(), uint64(i)) {
			m.seen.Spoiled++
		}
		if err := msg.Release(); err != nil {
			return err
		}
	}
	return nil
}
