package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/bhome-bus/bhome/cmd/internal/child"
	"github.com/bhome-bus/bhome/cmd/internal/latency"
	"github.com/bhome-bus/bhome/node"
)

// A payload begins with two words: publisher (16 bits) and number from 1 (48 bits), and when it was sent (Unix ns; 0: this
// one isn't timed).
func putHead(b []byte, pub int, seq uint64, stamp int64) {
	binary.LittleEndian.PutUint64(b, uint64(pub)<<48|seq)
	binary.LittleEndian.PutUint64(b[8:], uint64(stamp))
}

func getHead(b []byte) (pub int, seq uint64, stamp int64) {
	w := binary.LittleEndian.Uint64(b)
	return int(w >> 48), w & (1<<48 - 1), int64(binary.LittleEndian.Uint64(b[8:]))
}

// pubConfig and subConfig are a child's configuration.
type pubConfig struct {
	Config
	Index int
}

// pubResult and subResult are what a child reports at the end.
type pubResult struct {
	Sent    uint64
	StartNs int64
	EndNs   int64
}

type subResult struct {
	Received   uint64
	Disordered uint64
	LastNs     int64
	Sum        uint64 // of what was read: else the compiler may leave the reading out
	Latency    *latency.Recorder
}

// consent is how long a publisher lets subscribers with the policy block hold up a message.
const consent = time.Minute

// timedEvery is how many small messages share a reading of the clock, which costs about as much as sending one.
const timedEvery = 16

// pubRole: ready, then on "go" publishes, then its result, then on "close" leaves.
func pubRole(ctx context.Context, s *child.Session) (err error) {
	var cfg pubConfig
	if err := s.Config(&cfg); err != nil {
		return err
	}
	n, err := cfg.attach(ctx, "bench-pub")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, leave(n)) }()
	p, err := n.Publisher(ctx, cfg.Topic, node.AllowBlock(consent))
	if err != nil {
		return err
	}
	if err := p.WaitForSubscribers(ctx, cfg.Subs); err != nil {
		return err
	}
	if err := s.Emit("ready", nil); err != nil {
		return err
	}
	if err := s.Await(ctx, "go", nil); err != nil {
		return err
	}
	var r pubResult
	r.StartNs = time.Now().UnixNano()
	if cfg.Batch > 1 {
		err = cfg.publishBatches(ctx, p)
	} else {
		err = cfg.publishEach(ctx, p)
	}
	if err != nil {
		return err
	}
	r.EndNs, r.Sent = time.Now().UnixNano(), uint64(cfg.Count)
	if err := s.Emit("result", r); err != nil {
		return err
	}
	return s.Await(ctx, "close", nil)
}

func (cfg pubConfig) publishBatches(ctx context.Context, p *node.Publisher) error {
	buf := make([]byte, cfg.Batch*cfg.Size)
	batch := make([][]byte, cfg.Batch)
	for i := range batch {
		batch[i] = buf[i*cfg.Size : (i+1)*cfg.Size]
	}
	pace := newPacer(cfg.Rate)
	for seq := 1; seq <= cfg.Count; {
		k := min(cfg.Batch, cfg.Count-seq+1)
		stamp := time.Now().UnixNano()
		for i := range k {
			putHead(batch[i], cfg.Index, uint64(seq+i), stamp)
			stamp = 0
		}
		if err := p.PublishBatch(ctx, batch[:k]); err != nil {
			return fmt.Errorf("publish %d: %w", seq, err)
		}
		seq += k
		pace.wait(k)
	}
	return nil
}

// publishEach copies every payload in whole, as a program that has something to say would.
func (cfg pubConfig) publishEach(ctx context.Context, p *node.Publisher) error {
	payload := make([]byte, cfg.Size)
	pace := newPacer(cfg.Rate)
	for seq := 1; seq <= cfg.Count; seq++ {
		var stamp int64
		if cfg.Size > 4096 || cfg.Rate > 0 || seq%timedEvery == 1 {
			stamp = time.Now().UnixNano()
		}
		putHead(payload, cfg.Index, uint64(seq), stamp)
		if err := p.Publish(ctx, payload); err != nil {
			return fmt.Errorf("publish %d: %w", seq, err)
		}
		pace.wait(1)
	}
	return nil
}

// pacer spreads messages evenly.
type pacer struct {
	each time.Duration
	due  time.Time
}

func newPacer(rate int) *pacer {
	p := &pacer{due: time.Now()}
	if rate > 0 {
		p.each = time.Second / time.Duration(rate)
	}
	return p
}

func (p *pacer) wait(n int) {
	if p.each == 0 {
		return
	}
	p.due = p.due.Add(time.Duration(n) * p.each)
	time.Sleep(time.Until(p.due))
}

// subRole: ready once subscribed; receives until everything has come, or until it is told to drain: then what waits.
func subRole(ctx context.Context, s *child.Session) (err error) {
	var cfg Config
	if err := s.Config(&cfg); err != nil {
		return err
	}
	n, err := cfg.attach(ctx, "bench-sub")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, leave(n)) }()
	sub, err := n.Subscribe(ctx, cfg.Topic, node.Depth(cfg.Depth), node.Hold(64), node.OnFull(cfg.Policy))
	if err != nil {
		return err
	}
	if err := s.Emit("ready", nil); err != nil {
		return err
	}
	receiving, stop := context.WithCancel(ctx)
	defer stop()
	told := make(chan error, 1)
	go func() {
		told <- s.Await(receiving, "drain", nil)
		stop()
	}()
	r, err := cfg.receive(receiving, sub)
	if err != nil {
		return err
	}
	if err := s.Emit("result", r); err != nil {
		return err
	}
	if err := <-told; err != nil {
		return err
	}
	return s.Await(ctx, "close", nil)
}

// settleTimeout is how long a subscriber waits for what was sent before it counts it as lost.
const settleTimeout = 3 * time.Second

// Touch reads one word of every cache line of a message, as a receiver does in all comparisons.
func Touch(b []byte) (sum uint64) {
	for len(b) >= 512 {
		p := (*[512]byte)(b)
		e := binary.NativeEndian
		sum += e.Uint64(p[0:]) + e.Uint64(p[64:]) + e.Uint64(p[128:]) + e.Uint64(p[192:]) +
			e.Uint64(p[256:]) + e.Uint64(p[320:]) + e.Uint64(p[384:]) + e.Uint64(p[448:])
		b = b[512:]
	}
	for len(b) >= 64 {
		sum += binary.NativeEndian.Uint64(b)
		b = b[64:]
	}
	if len(b) >= 8 {
		sum += binary.NativeEndian.Uint64(b)
	}
	return sum
}

// receive counts and checks. It ends when everything has come or was dropped; or, after ctx, when nothing more comes.
func (c Config) receive(ctx context.Context, sub *node.Subscription) (subResult, error) {
	r := subResult{Latency: latency.New()}
	next := make([]uint64, c.Pubs)
	batch := make([]node.Message, c.Batch)
	for want := uint64(c.Pubs) * uint64(c.Count); r.Received < want; {
		n, err := 0, ctx.Err()
		if err == nil {
			n, err = sub.ReceiveBatch(ctx, batch)
		}
		if ctx.Err() != nil && n == 0 { // all is sent: the rest comes as fast as before
			if n, err = settle(sub, batch, want-r.Received); n == 0 {
				return r, err
			}
		}
		if err != nil {
			return r, err
		}
		for _, m := range batch[:n] {
			b := m.Bytes()
			r.Sum += Touch(b) // the receiver reads every line of it, as in the other comparisons
			pub, seq, stamp := getHead(b)
			if pub >= c.Pubs {
				return r, fmt.Errorf("a message of publisher %d of %d", pub, c.Pubs)
			}
			if stamp != 0 {
				now := time.Now().UnixNano()
				r.Latency.Record(now - stamp)
				r.LastNs = now
			}
			if seq <= next[pub] {
				r.Disordered++
			}
			next[pub] = seq
			r.Received++
			if r.Received == want {
				r.LastNs = time.Now().UnixNano()
			}
		}
		if err := node.ReleaseBatch(batch[:n]); err != nil {
			return r, err
		}
	}
	return r, nil
}

// settle receives after all have been sent. There is nothing once the rest was dropped, or when nothing comes: a route of which this end
// hasn't heard yet may still bring some, so that is waited for.
func settle(sub *node.Subscription, batch []node.Message, missing uint64) (n int, err error) {
	for deadline := time.Now().Add(settleTimeout); time.Now().Before(deadline); {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		n, err = sub.ReceiveBatch(ctx, batch)
		cancel()
		switch {
		case err == nil:
			return n, nil
		case !errors.Is(err, context.DeadlineExceeded):
			return 0, err
		case sub.Stats().Dropped >= missing:
			return 0, nil
		}
	}
	return 0, nil
}
