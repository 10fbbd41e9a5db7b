package node_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/bhome-bus/bhome/node"
)

// The center goes while routes are being set up: the next one passes on what this one did not come to.
func TestTheNextCenterFinishesWhatTheLastBegan(t *testing.T) {
	c := newCenters(t)
	pub, sub := c.attach("pub"), c.attach("sub")
	for round := range 12 {
		topic := fmt.Sprint("t.", round)
		p := c.publisher(pub, topic, node.AllowBlock(time.Hour))
		s := c.subscribe(sub, topic, node.OnFull(node.Block), node.Depth(64))
		c.sendNumbers(p, 0, 40)
		c.stop()
		c.await(node.StateReconnecting, pub, sub)
		c.start()
		c.sendNumbers(p, 40, 60)
		c.wantNumbers(s, 0, 60)
		c.wantNoMore(s)
		if err := s.Close(c.ctx); err != nil {
			t.Fatal(err)
		}
	}
}

// The center goes with a Subscribe in its hands, for which it has opened a route already: what the subscription gets begins
// somewhere, and from there on nothing is missing, doubled or out of order.
func TestACenterGoesWithASubscribeInItsHands(t *testing.T) {
	c := newCenters(t)
	p := c.publisher(c.attach("pub"), "t", node.AllowBlock(time.Hour))
	reader := c.attach("sub")
	ctx, cancel := context.WithCancel(c.ctx)
	sent := make(chan error, 1)
	go func() {
		var err error
		for i := 0; err == nil && ctx.Err() == nil; i++ {
			err = p.Publish(ctx, numbered(100, i))
		}
		sent <- err
	}()
	for i := range 25 {
		subscribed := make(chan *node.Subscription, 1)
		go func() {
			s, err := reader.Subscribe(c.ctx, "t", node.OnFull(node.Block))
			if err != nil {
				t.Error(err)
			}
			subscribed <- s
		}()
		time.Sleep(time.Duration(i) * 20 * time.Microsecond) // another place in the Subscribe each time
		c.stop()
		c.start()
		s := <-subscribed
		if s == nil {
			break
		}
		next := -1
		for range 300 {
			m := c.receive(s)
			if got := number(m); next >= 0 && got != next {
				t.Fatalf("round %d: message %d came, %d was to come", i, got, next)
			}
			next = number(m) + 1
			m.Release()
		}
		if err := s.Close(c.ctx); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	if err := <-sent; err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
