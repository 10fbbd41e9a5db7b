package actors

import (
	"context"
	"fmt"
	"testing"

	"github.com/bhome-bus/bhome/node"
)

// Everything that a node does with the center, once: publish, subscribe, serve, request, the questions, the end.
func TestEndToEnd(t *testing.T) {
	b := newTestBus(t)
	one, two := b.attach("one"), b.attach("two")
	pub, err := one.Publisher(b.ctx, "x.y")
	if err != nil {
		t.Fatal(err)
	}
	s, err := two.Subscribe(b.ctx, "x.>")
	if err != nil {
		t.Fatal(err)
	}
	const count = 10
	for i := range count {
		if err := pub.Publish(b.ctx, []byte(fmt.Sprint("hello ", i))); err != nil {
			t.Fatal(err)
		}
		big := make([]byte, 5000)
		big[4999] = byte(i)
		if err := pub.Publish(b.ctx, big); err != nil {
			t.Fatal(err)
		}
	}
	for i := range count {
		m, err := s.Receive(b.ctx)
		if err != nil {
			t.Fatal(err)
		}
		if string(m.Bytes()) != fmt.Sprint("hello ", i) || m.Topic() != "x.y" {
			t.Fatalf("message %d: %q on %q", i, m.Bytes(), m.Topic())
		}
		if err := m.Release(); err != nil {
			t.Fatal(err)
		}
		if m, err = s.Receive(b.ctx); err != nil {
			t.Fatal(err)
		}
		if len(m.Bytes()) != 5000 || m.Bytes()[4999] != byte(i) {
			t.Fatalf("big message %d has %d bytes", i, len(m.Bytes()))
		}
		if err := m.Release(); err != nil {
			t.Fatal(err)
		}
	}
	svc, err := one.Serve(b.ctx, "math.add", func(_ context.Context, r *node.Request) ([]byte, error) {
		return append([]byte("re:"), r.Bytes()...), nil
	}, node.Workers(2))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		r, err := two.Request(b.ctx, "math.add", []byte(fmt.Sprint(i)))
		if err != nil {
			t.Fatal(err)
		}
		if string(r.Bytes()) != fmt.Sprint("re:", i) {
			t.Fatalf("request %d is answered %q", i, r.Bytes())
		}
		if err := r.Release(); err != nil {
			t.Fatal(err)
		}
	}
	procs, err := two.Procs(b.ctx)
	if err != nil || len(procs) != 2 || procs[0].GetName() != "one" || procs[0].GetState() != "online" || procs[1].GetName() != "two" || int(procs[0].GetPid()) != pidOf(t) {
		t.Errorf("procs: %v, %v", procs, err)
	}
	if msgs, totals, err := two.Msgs(b.ctx); err != nil || uint64(len(msgs)) != totals.Blocks || totals.LateFrees != 0 {
		t.Errorf("%d msgs, totals %+v, %v", len(msgs), totals, err)
	}
	topics, err := two.Topics(b.ctx)
	if err != nil || len(topics) != 2 || topics[0].GetTopic() != "math.add" || topics[0].GetProviders()[0] != "one" || topics[1].GetTopic() != "x.y" ||
		topics[1].GetPublishers()[0] != "one" || topics[1].GetSubscribers()[0] != "two" || topics[1].GetSent() != 2*count {
		t.Errorf("topics: %v, %v", topics, err)
	}
	for _, err := range []error{svc.Close(b.ctx), one.Close(b.ctx), two.Close(b.ctx)} {
		if err != nil {
			t.Error(err)
		}
	}
	eventually(t, func() string {
		if n := b.counter("granted_blocks"); n != 0 {
			return fmt.Sprint(n, " blocks are left")
		}
		return ""
	})
}
