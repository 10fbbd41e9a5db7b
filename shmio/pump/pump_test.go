package pump

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"slices"
	"sync/atomic"
	"syscall"
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

func TestWordsAndFramesArriveInOrder(t *testing.T) {
	l := newLink(t, newSystem(t), Config{BatchItems: 7})
	var want []string
	for i := range uint64(100) {
		frame := bytes.Repeat([]byte{byte(i)}, int(i)*100)
		switch i % 3 {
		case 0:
			l.push(1, i)
			want = append(want, fmt.Sprint("word ", i))
		case 1:
			if i < 30 {
				l.pushFrame(1, wire.KindControl, frame)
				want = append(want, string(frame))
			}
		case 2:
			frame = frame[:min(len(frame), 100)]
			for l.writers[1].PushInline(wire.Inline{Kind: wire.KindControl}, frame) != shmio.Sent {
				runtime.Gosched()
			}
			l.writers[1].Commit()
			want = append(want, string(frame))
		}
	}
	var got []string
	var frames uint64
	for len(got) < len(want) {
		b := await(t, l.batches)
		if len(b.Items) > 7 || b.Generation != 1 {
			t.Fatal(len(b.Items), b.Generation)
		}
		for _, it := range b.Items {
			if it.Queue != 1 {
				t.Fatal("queue", it.Queue)
			}
			if it.Frame != nil {
				frames++
				got = append(got, string(it.Frame))
			} else {
				got = append(got, fmt.Sprint("word ", uint64(it.Word)>>4))
			}
		}
		b.Done()
	}
	if !slices.Equal(got, want) {
		t.Fatal("other items than were sent")
	}
	if c := &l.count; c.Words.Load() != uint64(len(want)) || c.Frames.Load() != frames {
		t.Fatal(c.Words.Load(), c.Frames.Load())
	}
	if _, err := l.writers[1].Reclaim(); err != nil || l.writers[1].Out() != 0 {
		t.Fatal("blocks were not returned at once:", err, l.writers[1].Out())
	}
}

// TestFlood: a node that never stops sending, and a target that is busy: no more batches than credits, the flood stays
// in the node's ring, and another link doesn't notice.
func TestFlood(t *testing.T) {
	sys := newSystem(t)
	l, other := newLink(t, sys, Config{BatchItems: 16, Credits: 3}), newLink(t, sys, Config{})
	var pushed uint64
	for full := 0; full < 1000; {
		if l.push(0, pushed) {
			pushed++
			full = 0
		} else {
			full++ // the pump may be about to take some more
			runtime.Gosched()
		}
		if pushed > 512+3*16 {
			t.Fatalf("%d words were taken", pushed)
		}
	}
	var held []*Batch
	for range 3 {
		held = append(held, await(t, l.batches))
	}
	if l.count.Stalls.Load() == 0 {
		t.Error("the pump didn't stall")
	}
	for i := range uint64(1000) {
		if !other.push(0, i) {
			t.Fatal("the other link is full")
		}
		other.take(0, i, 1)
	}
	select {
	case b := <-l.batches:
		t.Fatal("a fourth batch of three:", len(b.Items))
	default:
	}
	next := uint64(0)
	for _, b := range held {
		for _, it := range b.Items {
			if it.Word != word(next) {
				t.Fatalf("%#x, want %d", it.Word, next)
			}
			next++
		}
		b.Done()
		b.Done() // gives no second credit
	}
	l.take(0, next, pushed-next)
}

// TestKilledPumpIsReplaced: stopped from outside at any moment and spawned again, it goes on where it was.
func TestKilledPumpIsReplaced(t *testing.T) {
	l := newLink(t, newSystem(t), Config{BatchItems: 5})
	var sending atomic.Bool
	sending.Store(true)
	const total = 20_000
	go func() {
		defer sending.Store(false)
		for i := uint64(0); i < total; {
			if l.push(0, i) {
				i++
			} else {
				runtime.Gosched()
			}
		}
	}()
	kills := 0
	var next, generation uint64
	for next < total {
		b := await(t, l.batches)
		if b.Generation < generation {
			t.Fatal("generation", b.Generation, "after", generation)
		}
		generation = b.Generation
		for _, it := range b.Items {
			if it.Word != word(next) {
				t.Fatalf("%#x, want %d", it.Word, next)
			}
			next++
		}
		b.Done()
		if next%200 < 5 && sending.Load() {
			l.stop()
			l.pump = l.sys.Root.Spawn(l.props)
			kills++
		}
	}
	if kills == 0 || generation != uint64(kills)+1 {
		t.Fatal(kills, generation)
	}
}

// TestFaultCostsOneRestart: memory that vanishes under the pump's hands is a panic of its actor, which its supervisor
// restarts; when it comes back, nothing was lost.
func TestFaultCostsOneRestart(t *testing.T) {
	l := newLink(t, newSystem(t), Config{})
	failures := make(chan any, 10)
	sub := l.sys.EventStream.Subscribe(func(e any) {
		if s, ok := e.(*actor.SupervisorEvent); ok {
			failures <- s.Reason
		}
	})
	defer l.sys.EventStream.Unsubscribe(sub)

	mem, err := syscall.Mmap(-1, 0, 1<<16, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Munmap(mem)
	spec := shmio.RouteSpec{ID: 99, Slots: 512, Depth: 512, Out: 32, Policy: shmio.BlockOnFull}
	w, err := shmio.NewWriter(mem, spec)
	if err != nil {
		t.Fatal(err)
	}
	rmem := make([]byte, spec.ReaderSize())
	r, err := shmio.NewReader(rmem, spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Join(mem, nil); err != nil {
		t.Fatal(err)
	}
	if err := w.Join(rmem, ring{func() { l.inbox.Wake(r) }}); err != nil {
		t.Fatal(err)
	}
	w.PushCommand(word(5))
	w.Commit()
	if err := syscall.Mprotect(mem, syscall.PROT_NONE); err != nil {
		t.Fatal(err)
	}
	l.stop()
	cfg := Config{Inbox: l.inbox, Queues: []*shmio.Reader{l.readers[0], l.readers[1], r}, Space: shmio.NewSpace(), Count: &l.count}
	cfg.Target = l.sys.Root.Spawn(actor.PropsFromProducer(func() actor.Actor { return collect{l} }))
	l.props = Props(cfg)
	l.pump = l.sys.Root.Spawn(l.props)
	f, ok := await(t, failures).(*Failure)
	if !ok || len(f.Stack) == 0 || f.Error() == "" {
		t.Fatal("the supervisor heard", f)
	}
	b := await(t, l.broken) // the third time in a row
	if f = new(Failure); !errors.As(b.Err, &f) || l.count.Panics.Load() != sameFault {
		t.Fatal(b.Err, l.count.Panics.Load())
	}
	l.stop()
	if err := syscall.Mprotect(mem, syscall.PROT_READ|syscall.PROT_WRITE); err != nil {
		t.Fatal(err)
	}
	l.props = Props(cfg)
	l.pump = l.sys.Root.Spawn(l.props)
	l.take(2, 5, 1)
}

func TestRubbishBreaksTheLink(t *testing.T) {
	for name, c := range map[string]struct {
		send func(l *link)
		want error
	}{
		"a block that isn't there": {func(l *link) {
			w, _ := wire.Message(1<<20, 0)
			l.writers[0].Push(w, 1, nil)
		}, shmio.ErrUnknownSegment},
		"a block without a header": {func(l *link) {
			w, _ := wire.Message(l.seg.Place(8192), 0)
			l.writers[0].Push(w, 1, nil)
		}, shmio.ErrBadBlock},
		"a published message":   {func(l *link) { l.pushFrame(0, wire.KindPublish, []byte("x")) }, ErrRubbish},
		"a frame too long":      {func(l *link) { l.pushFrame(0, wire.KindControl, make([]byte, 101)) }, ErrRubbish},
		"an inline publication": {func(l *link) { l.writers[0].PushInline(wire.Inline{}, []byte("x")) }, ErrRubbish},
		"a closed inbox":        {func(l *link) { l.take(0, 0, 3); l.inbox.Close() }, shmio.ErrInboxClosed},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLink(t, newSystem(t), Config{MaxFrame: 100})
			for i := range uint64(3) {
				l.push(0, i)
			}
			c.send(l)
			l.writers[0].Commit()
			b := await(t, l.broken)
			if !errors.Is(b.Err, c.want) || b.Generation != 1 {
				t.Fatalf("%v, want %v", b.Err, c.want)
			}
			if c.want != shmio.ErrInboxClosed {
				l.take(0, 0, 3) // what came before was not lost
			}
		})
	}
}

func TestPropsWantTheirConfig(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Fatal("Props took an empty Config")
		}
	}()
	Props(Config{})
}

func TestPumpsLeaveNothingBehind(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Run("", func(t *testing.T) {
		l := newLink(t, newSystem(t), Config{})
		l.push(0, 0)
		l.take(0, 0, 1)
	})
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for runtime.NumGoroutine() > before {
		if ctx.Err() != nil {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
		runtime.Gosched()
	}
}
