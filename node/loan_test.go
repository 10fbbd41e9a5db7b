package node_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/bhome-bus/bhome/actors"
	"github.com/bhome-bus/bhome/node"
)

// bothMagazines runs a test with a magazine, and with each loan a round trip to the center.
func bothMagazines(t *testing.T, f func(t *testing.T, c func(*node.Config))) {
	for name, size := range map[string]int{"magazine": 0, "no magazine": node.NoMagazine} {
		t.Run(name, func(t *testing.T) { f(t, func(c *node.Config) { c.Magazine = size }) })
	}
}

func loan(b *bus, p *node.Publisher, size int) node.Loan {
	b.t.Helper()
	l, err := p.Loan(b.ctx, size)
	if err != nil {
		b.t.Fatal(err)
	}
	return l
}

func TestLoanIsSentOrReleasedOnce(t *testing.T) {
	bothMagazines(t, func(t *testing.T, c func(*node.Config)) {
		noLeak(t)
		b := newBus(t)
		n := b.attach("pub", c)
		pub := b.publisher(n, "a")
		sub := b.subscribe(b.attach("sub", c), "a")
		sent := loan(b, pub, 3000)
		copy(sent.Bytes(), pattern(3000))
		if err := pub.Send(b.ctx, sent); err != nil {
			t.Fatal(err)
		}
		if err := pub.Send(b.ctx, sent); !errors.Is(err, node.ErrReleased) {
			t.Errorf("sent twice: %v", err)
		}
		if err := sent.Release(); !errors.Is(err, node.ErrReleased) {
			t.Errorf("released after it was sent: %v", err)
		}
		if sent.Bytes() != nil {
			t.Error("what was sent can still be written to")
		}
		unsent := loan(b, pub, 3000)
		if err := unsent.Release(); err != nil {
			t.Error(err)
		}
		// Its block is lent again: the old value does nothing to the new loan.
		again := loan(b, pub, 3000)
		if err := unsent.Release(); !errors.Is(err, node.ErrReleased) {
			t.Errorf("released twice: %v", err)
		}
		if err := pub.Send(b.ctx, unsent); !errors.Is(err, node.ErrReleased) {
			t.Errorf("sent after it was released: %v", err)
		}
		if err := unsent.Resize(1); !errors.Is(err, node.ErrReleased) {
			t.Errorf("resized after it was released: %v", err)
		}
		if len(again.Bytes()) != 3000 {
			t.Errorf("the new loan has %d bytes", len(again.Bytes()))
		}
		if err := again.Release(); err != nil {
			t.Error(err)
		}
		m := b.receive(sub)
		if !bytes.Equal(m.Bytes(), pattern(3000)) {
			t.Error("other bytes")
		}
		if err := m.Release(); err != nil {
			t.Error(err)
		}
		if err := m.Release(); !errors.Is(err, node.ErrReleased) {
			t.Errorf("a message released twice: %v", err)
		}
		if st := n.Stats(); st.Misused != 4 || st.Loans != 3 {
			t.Errorf("%+v", st)
		}
	})
}

func TestLoanSizes(t *testing.T) {
	const limit = 1 << 20
	b := newBus(t, func(c *actors.Config) { c.Limits.MaxMessage = limit })
	n := b.attach("pub")
	pub := b.publisher(n, "a")
	sub := b.subscribe(b.attach("sub"), "a", node.Depth(64))
	for _, size := range []int{0, 1, 15, 16, 17, 900, 984, 985, 4096, limit} {
		l := loan(b, pub, size)
		if len(l.Bytes()) != size || l.Cap() < size {
			t.Fatalf("asked for %d bytes, got %d of %d", size, len(l.Bytes()), l.Cap())
		}
		copy(l.Bytes(), pattern(size))
		if err := l.Resize(l.Cap() + 1); err == nil {
			t.Errorf("resized beyond its %d bytes", l.Cap())
		}
		if err := l.Resize(-1); err == nil {
			t.Error("resized to a negative size")
		}
		if err := l.Resize(size / 2); err != nil {
			t.Error(err)
		}
		if err := pub.Send(b.ctx, l); err != nil {
			t.Fatal(err)
		}
		m := b.receive(sub)
		if !bytes.Equal(m.Bytes(), pattern(size)[:size/2]) {
			t.Errorf("size %d: other bytes, %d of them", size, len(m.Bytes()))
		}
		m.Release()
	}
	for _, size := range []int{-1, limit + 1, 1 << 40} {
		_, err := pub.Loan(b.ctx, size)
		if size > 0 && (!errors.Is(err, node.ErrTooLarge) || !strings.Contains(err.Error(), fmt.Sprint(limit))) || err == nil {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
	if err := pub.Publish(b.ctx, make([]byte, limit+1)); !errors.Is(err, node.ErrTooLarge) {
		t.Errorf("published too much: %v", err)
	}
	// Another's loan is not ours to send.
	other := b.publisher(b.attach("other"), "a")
	l := loan(b, other, 10)
	if err := pub.Send(b.ctx, l); err == nil {
		t.Error("sent what another node has lent")
	}
	if err := l.Release(); !errors.Is(err, node.ErrReleased) {
		t.Errorf("Send has taken it, whatever it returned: %v", err)
	}
}

// A refusal says which limit, whose, and how much is in use; what was given back can be lent again.
func TestMemoryLimits(t *testing.T) {
	for limit, set := range map[string]func(*actors.Limits){
		"node": func(l *actors.Limits) { l.NodeBytes = 8 << 20 },
		"uid":  func(l *actors.Limits) { l.UIDBytes = 8 << 20 },
		"bus":  func(l *actors.Limits) { l.BusBytes = 8 << 20 },
	} {
		t.Run(limit, func(t *testing.T) {
			b := newBus(t, func(c *actors.Config) {
				set(&c.Limits)
				c.Limits.Reserve, c.Limits.DefaultQuota = 1<<20, 1<<20
			})
			pub := b.publisher(b.attach("pub"), "a")
			var loans []node.Loan
			var err error
			for err == nil && len(loans) < 100 {
				var l node.Loan
				if l, err = pub.Loan(b.ctx, 1<<20); err == nil {
					loans = append(loans, l)
				}
			}
			var le *node.LimitError
			if !errors.As(err, &le) || !errors.Is(err, node.ErrNoMemory) || le.Limit != limit || le.Whose == "" || le.Max != 8<<20 || le.InUse == 0 || le.InUse > le.Max {
				t.Fatalf("after %d loans: %v (%+v)", len(loans), err, le)
			}
			if len(loans) == 0 {
				t.Fatal("nothing was lent")
			}
			for range 3 {
				for _, l := range loans {
					if err := l.Release(); err != nil {
						t.Fatal(err)
					}
				}
				for i := range loans {
					loans[i] = loan(b, pub, 1<<20)
				}
			}
			for _, l := range loans {
				l.Release()
			}
		})
	}
}

// The debug switch tells who took what was misused, or forgotten.
func TestDebugNamesTheCulprit(t *testing.T) {
	b := newBus(t)
	var out lockedBuffer
	log := hclog.New(&hclog.LoggerOptions{Output: &out, Level: hclog.Debug})
	n := b.attach("pub", func(c *node.Config) { c.Debug, c.Logger = true, log })
	pub := b.publisher(n, "a")
	l := loan(b, pub, 100)
	l.Release()
	if err := l.Release(); !errors.Is(err, node.ErrReleased) || !strings.Contains(err.Error()+out.String(), "loan_test.go") {
		t.Errorf("a double release: %v\n%s", err, out.String())
	}
	forgotten := loan(b, pub, 100)
	ctx, cancel := context.WithCancel(b.ctx)
	cancel()
	err := n.Close(ctx)
	if !strings.Contains(fmt.Sprint(err)+out.String(), "loan_test.go") {
		t.Errorf("a forgotten loan: %v\n%s", err, out.String())
	}
	_ = forgotten.Release() // too late is as good as refused
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// Nothing on the way of a message allocates.
func TestTheMessagesWayAllocatesNothing(t *testing.T) {
	if raceEnabled {
		return // the detector allocates
	}
	b := newBus(t)
	pub := b.publisher(b.attach("pub"), "a")
	sub := b.subscribe(b.attach("sub"), "a")
	take := func() {
		m, err := sub.Receive(b.ctx)
		if err != nil {
			t.Fatal(err)
		}
		m.Release()
	}
	small, large := pattern(64), pattern(4096)
	batch := [][]byte{small, small, large, small, large, large, small, small}
	ms := make([]node.Message, 10)
	n := b.attach("sharing")
	sharing := b.publisher(n, "b")
	whole := b.subscribe(b.attach("whole"), "b", node.OnFull(node.Block), node.Depth(300))
	shared := many(0, 64, 1000)
	takeAll := func(pub *node.Publisher, sub *node.Subscription, batch [][]byte, release func([]node.Message) error) {
		if err := pub.PublishBatch(b.ctx, batch); err != nil {
			t.Fatal(err)
		}
		if some := node.Referenced(n); pub == sharing && some != 1 {
			t.Fatalf("%d messages are in %d blocks", len(batch), some)
		}
		for got := 0; got < len(batch); {
			n, err := sub.ReceiveBatch(b.ctx, ms)
			if err != nil {
				t.Fatal(err)
			}
			if err := release(ms[:n]); err != nil {
				t.Fatal(err)
			}
			got += n
		}
	}
	takeBatch := func(release func([]node.Message) error) { takeAll(pub, sub, batch, release) }
	for name, f := range map[string]func(){
		"shared": func() { takeAll(sharing, whole, shared, node.ReleaseBatch) },
		"inline": func() {
			if err := pub.Publish(b.ctx, small); err != nil {
				t.Fatal(err)
			}
			take()
		},
		"copied": func() {
			if err := pub.Publish(b.ctx, large); err != nil {
				t.Fatal(err)
			}
			take()
		},
		"lent": func() {
			l, err := pub.Loan(b.ctx, 4096)
			if err != nil {
				t.Fatal(err)
			}
			if err := pub.Send(b.ctx, l); err != nil {
				t.Fatal(err)
			}
			take()
		},
		"batch": func() { takeBatch(node.ReleaseBatch) },
		"batch, released one by one": func() {
			takeBatch(func(ms []node.Message) (err error) {
				for _, m := range ms {
					err = errors.Join(err, m.Release())
				}
				return err
			})
		},
	} {
		if n := testing.AllocsPerRun(2000, f); n != 0 {
			t.Errorf("%s: %v allocations a message", name, n)
		}
	}
}
