package pump

import (
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/bhome-bus/bhome/shmio"
	"github.com/bhome-bus/bhome/wire"
)

const patience = 20 * time.Second

// link is what a center has of one node: queues up with writers that play the node, a data segment, and a pump whose
// batches come out of a channel.
type link struct {
	t       *testing.T
	sys     *actor.ActorSystem
	inbox   *shmio.Inbox
	writers []*shmio.Writer
	readers []*shmio.Reader
	seg     *shmio.Segment
	next    uint64 // offset of the next block in seg
	props   *actor.Props
	pump    *actor.PID
	count   Counters

	batches chan *Batch
	broken  chan *Broken
}

// collect is the target: it passes on what it gets.
type collect struct{ l *link }

func (a collect) Receive(c actor.Context) {
	switch m := c.Message().(type) {
	case *Batch:
		a.l.batches <- m
	case *Broken:
		a.l.broken <- m
	}
}

func newSystem(t *testing.T) *actor.ActorSystem {
	sys := actor.NewActorSystem(actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger {
		return slog.New(slog.NewTextHandler(io.Discard, nil))
	}))
	t.Cleanup(sys.Shutdown)
	return sys
}

// ring wakes the inbox at once.
type ring struct{ f func() }

func (r ring) Ring(uint32) { r.f() }

func newLink(t *testing.T, sys *actor.ActorSystem, cfg Config) *link {
	l := &link{t: t, sys: sys, inbox: shmio.NewInbox(shmio.Adaptive), next: 4096,
		batches: make(chan *Batch, 10_000), broken: make(chan *Broken, 100)}
	var err error
	if l.seg, err = shmio.HeapSegment(shmio.SegmentSpec{Kind: shmio.KindData, Size: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	space := shmio.NewSpace()
	if err := space.Add(l.seg); err != nil {
		t.Fatal(err)
	}
	for k := range uint64(2) {
		spec := shmio.RouteSpec{ID: 16 + k, Slots: 512, Depth: 512, Out: 32, Policy: shmio.BlockOnFull}
		wmem, rmem := make([]byte, spec.WriterSize()), make([]byte, spec.ReaderSize())
		w, err := shmio.NewWriter(wmem, spec)
		if err != nil {
			t.Fatal(err)
		}
		r, err := shmio.NewReader(rmem, spec)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Join(wmem, nil); err != nil {
			t.Fatal(err)
		}
		if err := w.Join(rmem, ring{func() { l.inbox.Wake(r) }}); err != nil {
			t.Fatal(err)
		}
		l.writers, l.readers = append(l.writers, w), append(l.readers, r)
	}
	target := sys.Root.Spawn(actor.PropsFromProducer(func() actor.Actor { return collect{l} }))
	cfg.Inbox, cfg.Queues, cfg.Space, cfg.Target, cfg.Count = l.inbox, l.readers, space, target, &l.count
	l.props = Props(cfg)
	l.pump = sys.Root.Spawn(l.props)
	t.Cleanup(func() {
		l.stop()
		_ = sys.Root.StopFuture(target).Wait()
		l.inbox.Close()
		l.seg.Close()
	})
	return l
}

func (l *link) stop() {
	if err := l.sys.Root.StopFuture(l.pump).Wait(); err != nil {
		l.t.Errorf("stopping the pump: %v", err)
	}
}

// push tries to push a word that carries n.
func (l *link) push(queue int, n uint64) bool {
	if l.writers[queue].PushCommand(word(n)) != shmio.Sent {
		return false
	}
	l.writers[queue].Commit()
	return true
}

func word(n uint64) wire.Word { return wire.Word(1 | uint64(wire.CmdFree)<<1 | n<<4) }

// pushFrame sends a frame in a block of its own.
func (l *link) pushFrame(queue int, kind wire.Kind, frame []byte) {
	l.t.Helper()
	at := l.next
	l.next += (wire.HeaderSize + uint64(len(frame)) + 63) / 64 * 64
	mem, err := l.seg.Memory(at, wire.HeaderSize+uint64(len(frame)))
	if err != nil {
		l.t.Fatal(err)
	}
	h := wire.Header{Tag: wire.BlockTag, Size: uint32(len(frame)), Kind: kind}
	if err := h.Put(mem); err != nil {
		l.t.Fatal(err)
	}
	copy(mem[wire.HeaderSize:], frame)
	w, err := wire.Message(l.seg.Place(at), 0)
	if err != nil {
		l.t.Fatal(err)
	}
	if o := l.writers[queue].Push(w, uint64(len(frame)), nil); o != shmio.Sent {
		l.t.Fatal(o)
	}
	l.writers[queue].Commit()
}

func await[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatal("waited in vain")
		panic("unreachable")
	}
}

// take receives n words that carry upwards from `from` on queue, giving the batches back.
func (l *link) take(queue uint8, from, n uint64) {
	l.t.Helper()
	for want := from; want < from+n; {
		b := await(l.t, l.batches)
		for _, it := range b.Items {
			if it.Queue != queue || it.Word != word(want) {
				l.t.Fatalf("queue %d: %#x, want queue %d: %#x", it.Queue, it.Word, queue, word(want))
			}
			want++
		}
		b.Done()
	}
}
