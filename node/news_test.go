package node_test

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/bhome-bus/bhome/node"
)

// Messages that come before the news of their segment wait for them, in order; those of others go on meanwhile.
func TestMessagesWaitForNews(t *testing.T) {
	for name, receive := range map[string]func(b *bus, sub *node.Subscription) []node.Message{
		"one by one": func(b *bus, sub *node.Subscription) []node.Message {
			m, err := sub.Receive(b.ctx)
			if err != nil {
				b.t.Fatal(err)
			}
			return []node.Message{m}
		},
		"batches": func(b *bus, sub *node.Subscription) []node.Message {
			ms := make([]node.Message, 8)
			n, err := sub.ReceiveBatch(b.ctx, ms)
			if err != nil {
				b.t.Fatal(err)
			}
			return ms[:n]
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBus(t)
			late, other := b.publisher(b.attach("late"), "a"), b.publisher(b.attach("other"), "a")
			reader := b.attach("reader")
			sub := b.subscribe(reader, "a")
			take := func(want ...string) {
				t.Helper()
				var got []string
				for len(got) < len(want) {
					for _, m := range receive(b, sub) {
						got = append(got, string(m.Bytes()[:6]))
						if err := m.Release(); err != nil {
							t.Error(err)
						}
					}
				}
				if !slices.Equal(got, want) {
					t.Fatalf("got %q, want %q", got, want)
				}
			}
			send := func(p *node.Publisher, text string) {
				t.Helper()
				if err := p.Publish(b.ctx, append([]byte(text), bytes.Repeat([]byte{'.'}, 2000)...)); err != nil {
					t.Fatal(err)
				}
			}
			send(late, "late 0")
			take("late 0")
			send(other, "othr 0")
			take("othr 0")
			tell := node.ForgetSegments(reader, "late")
			for i := range 3 {
				send(late, fmt.Sprint("late ", i))
			}
			for i := range 5 {
				send(other, fmt.Sprint("othr ", i))
				take(fmt.Sprint("othr ", i))
			}
			tell()
			take("late 0", "late 1", "late 2")
			send(late, "late 3")
			take("late 3")
			if bad := reader.Stats().BadWords; bad != 0 {
				t.Errorf("%d words were rubbish", bad)
			}
		})
	}
}

// joined is a publisher and its subscriber in another process, with a route between them.
func joined(t *testing.T) (b *bus, pub *node.Publisher, reader *node.Node, sub *node.Subscription) {
	t.Helper()
	b = newBus(t)
	pub, reader = b.publisher(b.attach("pub"), "a"), b.attach("reader")
	sub = b.subscribe(reader, "a")
	if err := pub.WaitForSubscribers(b.ctx, 1); err != nil {
		t.Fatal(err)
	}
	return b, pub, reader, sub
}

// Messages whose topic isn't known yet wait for it, too, whatever they lie in and however they are received; what was looked up of them
// before is looked up anew.
func TestMessagesWaitForTheirTopic(t *testing.T) {
	for _, batch := range []int{1, 2, 8} {
		t.Run(fmt.Sprint(batch), func(t *testing.T) {
			b, pub, reader, sub := joined(t)
			const n = 12
			text := func(i int) string { return fmt.Sprintf("%04d%s", i, bytes.Repeat([]byte{'.'}, 300*(i%2))) } // inline, and blocks
			tell := node.ForgetTopics(reader, "pub")
			for i := range n {
				if err := pub.Publish(b.ctx, []byte(text(i))); err != nil {
					t.Fatal(err)
				}
			}
			ms := make([]node.Message, batch)
			if _, ok, err := sub.TryReceive(); ok || err != nil { // the first is put back
				t.Fatal(ok, err)
			}
			tell()
			for got := 0; got < n; {
				k, err := sub.ReceiveBatch(b.ctx, ms)
				if err != nil {
					t.Fatal(err)
				}
				for _, m := range ms[:k] {
					if have := string(m.Bytes()); have != text(got) {
						t.Fatalf("message %d: %.20q, %d bytes", got, have, len(have))
					}
					got++
				}
				if err := node.ReleaseBatch(ms[:k]); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// A batch that has to wait is put back in whole, and then received one by one.
func TestABatchThatWaitedIsReceivedOneByOne(t *testing.T) {
	b, pub, reader, sub := joined(t)
	block := bytes.Repeat([]byte{'x'}, 3000)
	tell := node.ForgetTopics(reader, "pub")
	for i := range 6 {
		block[0] = byte(i)
		if err := pub.Publish(b.ctx, block); err != nil {
			t.Fatal(err)
		}
	}
	got := make(chan []node.Message)
	go func() {
		ms := make([]node.Message, 3)
		n, err := sub.ReceiveBatch(b.ctx, ms) // takes three, puts them back, and waits
		if err != nil {
			t.Error(err)
		}
		got <- ms[:n]
	}()
	eventually(t, func() string {
		if st := sub.Stats(); st.Received != 0 || node.Aside(reader) == 0 {
			return fmt.Sprintf("%d received, %d put back", st.Received, node.Aside(reader))
		}
		return ""
	})
	tell()
	ms := <-got
	for i := range 6 {
		if i >= len(ms) {
			ms = append(ms, b.receive(sub))
		}
		if have := ms[i].Bytes(); len(have) != len(block) || have[0] != byte(i) {
			t.Fatalf("message %d: %d bytes, number %d", i, len(have), have[0])
		}
	}
	if err := node.ReleaseBatch(ms); err != nil {
		t.Fatal(err)
	}
}

// What is never told is rubbish after a while, and given back; what comes after it is read.
func TestNewsThatNeverCome(t *testing.T) {
	b := newBus(t)
	pub := b.publisher(b.attach("pub"), "a")
	reader := b.attach("reader")
	node.SetNewsTimeout(reader, 10*time.Millisecond)
	sub := b.subscribe(reader, "a")
	block := bytes.Repeat([]byte{'x'}, 2000)
	if err := pub.Publish(b.ctx, block); err != nil {
		t.Fatal(err)
	}
	m, err := sub.Receive(b.ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Release(); err != nil {
		t.Fatal(err)
	}
	node.ForgetSegments(reader, "pub")
	for _, payload := range [][]byte{block, block, []byte("short")} {
		if err := pub.Publish(b.ctx, payload); err != nil {
			t.Fatal(err)
		}
	}
	if m, err = sub.Receive(b.ctx); err != nil || string(m.Bytes()) != "short" {
		t.Fatalf("%q, %v", m.Bytes(), err)
	}
	if err := m.Release(); err != nil {
		t.Fatal(err)
	}
	if bad := reader.Stats().BadWords; bad != 2 {
		t.Errorf("%d words were rubbish", bad)
	}
}

// What comes again after its news is a message of its own, whatever the program holds meanwhile.
func TestAMessageThatWaitedIsNoOther(t *testing.T) {
	b := newBus(t)
	late, other := b.publisher(b.attach("late"), "a"), b.publisher(b.attach("other"), "a")
	reader := b.attach("reader")
	sub := b.subscribe(reader, "a")
	send := func(p *node.Publisher, text string) {
		t.Helper()
		if err := p.Publish(b.ctx, append([]byte(text), make([]byte, 2000)...)); err != nil {
			t.Fatal(err)
		}
	}
	receive := func() node.Message {
		t.Helper()
		m, err := sub.Receive(b.ctx)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	is := func(m node.Message, publisher, text string) {
		t.Helper()
		if got := string(m.Bytes()[:len(text)]); got != text || m.Publisher() != publisher {
			t.Errorf("%q of %s, want %q of %s", got, m.Publisher(), text, publisher)
		}
	}
	release := func(ms ...node.Message) {
		t.Helper()
		for _, m := range ms {
			if err := m.Release(); err != nil {
				t.Error(err)
			}
		}
	}
	for _, p := range []*node.Publisher{late, other} {
		send(p, "first")
		release(receive())
	}
	tell := node.ForgetSegments(reader, "late")
	send(late, "late")
	if _, ok, err := sub.TryReceive(); ok || err != nil { // it is put back
		t.Fatal(ok, err)
	}
	send(other, "held")
	send(other, "not held")
	held, not := receive(), receive()
	release(not)
	tell()
	came := receive()
	send(other, "last")
	last := receive()
	is(held, "other", "held")
	is(came, "late", "late")
	is(last, "other", "last")
	release(last, held, came)
	if st := sub.Stats(); st.Held != 0 || st.Received != 6 {
		t.Errorf("%+v", st)
	}
}
