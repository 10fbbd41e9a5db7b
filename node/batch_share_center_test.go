package node_test

import (
	"errors"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/bhome-bus/bhome/actors"
	"github.com/bhome-bus/bhome/node"
)

// borrowAll takes loans of these sizes, one size after the other, until the center has no memory for any of them.
func borrowAll(b *bus, p *node.Publisher, sizes ...int) (loans []node.Loan) {
	b.t.Helper()
	for _, size := range sizes {
		for {
			l, err := p.Loan(b.ctx, size)
			if errors.Is(err, node.ErrNoMemory) {
				break
			}
			if err != nil {
				b.t.Fatal(err)
			}
			loans = append(loans, l)
		}
	}
	return loans
}

// Without a center a batch goes in a shared block of another size, if one is there.
func TestBatchSharesWithoutACenter(t *testing.T) {
	c := newCenters(t)
	n, reader := c.attach("pub"), c.attach("sub")
	p := c.publisher(n, "a")
	s := c.subscribe(reader, "a", node.OnFull(node.Block), node.Depth(500))
	send := func(first, count int) {
		t.Helper()
		if err := p.PublishBatch(c.ctx, many(first, count, 1000)); err != nil {
			t.Fatal(err)
		}
		if some := node.Referenced(n); some != 1 {
			t.Errorf("%d blocks for %d messages", some, count)
		}
		for i, k := range c.drain(s, count) {
			if k != first+i {
				t.Errorf("message %d is %d", first+i, k)
			}
		}
	}
	send(0, 64)
	c.stop()
	c.await(node.StateReconnecting, n, reader)
	send(64, 40)
	send(104, 64)
	c.start()
	c.await(node.StateOnline, n, reader)
}

// Without a center a batch waits for the blocks to share that are out, if it has no others.
func TestSharedBlocksGoRoundWithoutACenter(t *testing.T) {
	c := newCenters(t)
	n, reader := c.attach("pub"), c.attach("sub")
	p := c.publisher(n, "a", node.AllowBlock(time.Hour))
	s := c.subscribe(reader, "a", node.OnFull(node.Block), node.Depth(500))
	const count, batches = 64, 20
	if err := p.PublishBatch(c.ctx, many(0, count, 1000)); err != nil {
		t.Fatal(err)
	}
	c.stop()
	c.await(node.StateReconnecting, n, reader)
	sent := make(chan error, 1)
	go func() {
		var err error
		for i := 1; i < batches && err == nil; i++ {
			err = p.PublishBatch(c.ctx, many(i*count, count, 1000))
		}
		sent <- err
	}()
	for i, k := range c.drain(s, batches*count) {
		if k != i {
			t.Fatalf("message %d is %d", i, k)
		}
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	c.start()
	c.await(node.StateOnline, n, reader)
}

// Where the center grants no more, blocks to share that have come back are used all the same.
func TestSharedBlocksGoRoundWithoutMemory(t *testing.T) {
	b := newBus(t, func(c *actors.Config) { c.Limits.NodeBytes = 6 << 20 })
	n := b.attach("pub")
	p := b.publisher(n, "a")
	s := b.subscribe(b.attach("sub"), "a", node.OnFull(node.Block), node.Depth(500), node.Hold(10), node.Quota(2<<20))
	const count = 64
	if err := p.PublishBatch(b.ctx, many(0, count, 1000)); err != nil { // and one such block is there besides
		t.Fatal(err)
	}
	b.drain(s, count)
	loans := borrowAll(b, p, 1<<20, 200000, 40000, 20000, 4000, 1000)
	for range 3 {
		sent := 0
		for err := error(nil); err == nil; {
			if err = p.PublishBatch(b.ctx, many(0, count, 1000)); err == nil {
				sent++
			} else if !errors.Is(err, node.ErrNoMemory) {
				t.Fatal(err)
			}
		}
		if sent == 0 {
			t.Error("no batch went, though its blocks are back")
		}
		b.drain(s, int(s.Stats().Unread))
		wantReferenced(t, n, len(loans))
	}
	for _, l := range loans {
		if err := l.Release(); err != nil {
			t.Fatal(err)
		}
	}
}

// While the center doesn't answer, messages that have blocks of their own don't wait for one to share.
func TestSharingWaitsForNoCenter(t *testing.T) {
	b := newBus(t)
	n := b.attach("pub", func(c *node.Config) { c.Magazine = 30 })
	p := b.publisher(n, "a")
	s := b.subscribe(b.attach("sub"), "a", node.OnFull(node.Block), node.Depth(500))
	const count = 40
	send := func() {
		t.Helper()
		var batch [][]byte
		for i := range count {
			batch = append(batch, numbered(1000+i%2*500, i))
		}
		if err := p.PublishBatch(b.ctx, batch); err != nil {
			t.Fatal(err)
		}
	}
	for _, size := range []int{1000, 1500} { // and more blocks of its class are there, enough for half of a batch
		if err := p.Publish(b.ctx, numbered(size, 0)); err != nil {
			t.Fatal(err)
		}
		b.drain(s, 1)
	}
	release := node.HoldWords(n)
	for range 3 {
		send()
		b.drain(s, count)
	}
	if !node.AsksShared(p) {
		t.Error("nobody asks for a block to share")
	}
	release()
	eventually(t, func() string {
		send()
		some := node.Referenced(n)
		b.drain(s, count)
		wantReferenced(t, n, 0)
		if some != 1 {
			return fmt.Sprintf("%d blocks for %d messages, want one", some, count)
		}
		return ""
	})
}

// Where the center has refused a block to share it isn't asked for another for a while; then it is.
func TestSharingRestsAfterARefusal(t *testing.T) {
	b := newBus(t, func(c *actors.Config) { c.Limits.NodeBytes = 6 << 20 })
	n := b.attach("pub")
	p := b.publisher(n, "a")
	s := b.subscribe(b.attach("sub"), "a", node.OnFull(node.Block), node.Depth(500), node.Hold(10), node.Quota(2<<20))
	const count = 40
	send := func() (shared bool) {
		t.Helper()
		before := node.Referenced(n)
		if err := p.PublishBatch(b.ctx, many(0, count, 1000)); err != nil {
			t.Fatal(err)
		}
		some := node.Referenced(n) - before
		b.drain(s, count)
		wantReferenced(t, n, before)
		return some == 1
	}
	if err := p.Publish(b.ctx, numbered(1000, 0)); err != nil { // and many blocks of its class are there
		t.Fatal(err)
	}
	b.drain(s, 1)
	loans := borrowAll(b, p, 1<<20, 100000, 50000, 30000)
	pause := node.AskFrom(p)
	eventually(t, func() string {
		if shared := send(); shared {
			t.Error("a shared block where there is no memory")
		}
		if pause.Load() == 0 || node.AsksShared(p) {
			return "it was not refused, or is being asked again"
		}
		return ""
	})
	pause.Store(math.MaxUint64)
	asked := n.Stats().Asked
	for range 3 {
		if shared := send(); shared || n.Stats().Asked != asked {
			t.Errorf("a shared block: %v; asked for %d times more", shared, n.Stats().Asked-asked)
		}
	}
	for _, l := range loans {
		if err := l.Release(); err != nil {
			t.Fatal(err)
		}
	}
	node.TrimMagazine(n)
	pause.Store(0)
	eventually(t, func() string {
		if !send() {
			return "no block is shared"
		}
		return ""
	})
}
