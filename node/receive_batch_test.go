package node_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/bhome-bus/bhome/node"
)

// In a batch each message has its own topic and number, whatever the one before was of.
func TestReceiveBatchOfManyTopics(t *testing.T) {
	b := newBus(t)
	n, reader := b.attach("pub"), b.attach("sub")
	var pubs []*node.Publisher
	for _, name := range []string{"t.a", "t.b", "t.c"} {
		pubs = append(pubs, b.publisher(n, name, node.AllowBlock(time.Hour)))
	}
	s := b.subscribe(reader, "t.*", node.OnFull(node.Block), node.Depth(500), node.Hold(500))
	const count = 400
	of := func(i int) int { return i / 3 % len(pubs) } // a few of one, then another
	sent := make([]uint64, len(pubs))
	var seqs []uint64
	for i := range count {
		if err := pubs[of(i)].Publish(b.ctx, numbered(8+i%2*300, i)); err != nil {
			t.Fatal(err)
		}
		sent[of(i)]++
		seqs = append(seqs, sent[of(i)])
	}
	into := make([]node.Message, 50)
	for next := 0; next < count; {
		k, err := s.ReceiveBatch(b.ctx, into)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range into[:k] {
			if number(m) != next || m.Topic() != pubs[of(next)].Topic() || m.Seq() != seqs[next] || len(m.Bytes()) != 8+next%2*300 {
				t.Fatalf("got %d, number %d of %q, %d bytes; want %d, number %d of %q", number(m), m.Seq(), m.Topic(), len(m.Bytes()), next, seqs[next], pubs[of(next)].Topic())
			}
			next++
		}
		release(t, into[:k])
	}
	if bad := reader.Stats().BadWords; bad != 0 {
		t.Errorf("%d words were rubbish", bad)
	}
}

// Batches deliver what single receives do: everything, in order, inline and in blocks, whatever the policy.
func TestReceiveBatch(t *testing.T) {
	for _, policy := range []node.Policy{node.DropOldest, node.DropNewest, node.Block} {
		t.Run(policy.String(), func(t *testing.T) {
			b := newBus(t)
			pub, sub := b.attach("pub"), b.attach("sub")
			p := b.publisher(pub, "t", node.AllowBlock(time.Hour))
			s := b.subscribe(sub, "t", node.OnFull(policy), node.Depth(1000), node.Hold(100))
			const count = 1000
			var batch [][]byte
			for i := range count {
				batch = append(batch, numbered(8+i%3*300, i))
			}
			if err := p.PublishBatch(b.ctx, batch); err != nil {
				t.Fatal(err)
			}
			into := make([]node.Message, 70)
			var held []node.Message
			for next := 0; next < count; {
				n, err := s.ReceiveBatch(b.ctx, into[:1+next%len(into)])
				if err != nil || n < 1 || n > 1+next%len(into) {
					t.Fatal(n, err)
				}
				for _, m := range into[:n] {
					if number(m) != next || m.Topic() != "t" || m.Seq() != uint64(next+1) || len(m.Bytes()) != 8+next%3*300 {
						t.Fatalf("got %d, number %d, %d bytes on %q, want %d", number(m), m.Seq(), len(m.Bytes()), m.Topic(), next)
					}
					next++
				}
				if next%7 == 0 { // single ones go, too
					for _, m := range into[:n] {
						if err := m.Release(); err != nil {
							t.Fatal(err)
						}
					}
					continue
				}
				held = append(held, into[:n]...)
				if len(held) > 100 {
					held = release(t, held)
				}
			}
			if st := s.Stats(); st.Received != count || st.Held != uint64(len(held)) || st.Dropped != 0 {
				t.Errorf("%+v with %d held", st, len(held))
			}
			release(t, held)
			if st := s.Stats(); st.Held != 0 {
				t.Errorf("%d held after all were released", st.Held)
			}
			if st := sub.Stats(); st.Held != 0 {
				t.Errorf("%d held by the node after all were released", st.Held)
			}
		})
	}
}

func release(t *testing.T, ms []node.Message) []node.Message {
	t.Helper()
	if err := node.ReleaseBatch(ms); err != nil {
		t.Fatal(err)
	}
	return ms[:0]
}

// What was released already is refused; the others go.
func TestReleaseBatchTwice(t *testing.T) {
	b := newBus(t)
	pub, sub := b.attach("pub"), b.attach("sub")
	p := b.publisher(pub, "t")
	s := b.subscribe(sub, "t")
	for i := range 8 {
		if err := p.Publish(b.ctx, numbered(600, i)); err != nil {
			t.Fatal(err)
		}
	}
	ms := make([]node.Message, 8)
	if n, err := s.ReceiveBatch(b.ctx, ms); n != 8 || err != nil {
		t.Fatal(n, err)
	}
	if err := ms[3].Release(); err != nil {
		t.Fatal(err)
	}
	if err := node.ReleaseBatch(append(ms, ms[0], node.Message{})); !errors.Is(err, node.ErrReleased) || !errors.Is(err, node.ErrInvalid) {
		t.Errorf("got %v, want ErrReleased and ErrInvalid", err)
	}
	if st := s.Stats(); st.Held != 0 {
		t.Errorf("%d are held", st.Held)
	}
	if st := sub.Stats(); st.Misused != 2 || st.Held != 0 {
		t.Errorf("%d misuses counted, want 2; %d held", st.Misused, st.Held)
	}
	if n, err := s.ReceiveBatch(b.ctx, nil); n != 0 || err != nil {
		t.Error(n, err)
	}
	ctx, cancel := context.WithCancel(b.ctx)
	cancel()
	if _, err := s.ReceiveBatch(ctx, ms); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := s.Close(b.ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ReceiveBatch(b.ctx, ms); !errors.Is(err, node.ErrClosed) {
		t.Error(err)
	}
}
