package pump

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/bhome-bus/bhome/shmio"
	"github.com/bhome-bus/bhome/wire"
)

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
	mem, err := syscall.Mmap(-1, 0, 1<<16, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Munmap(mem) }) // after newLink's: the pump reads until then
	l := newLink(t, newSystem(t), Config{})
	failures := make(chan any, 10)
	sub := l.sys.EventStream.Subscribe(func(e any) {
		if s, ok := e.(*actor.SupervisorEvent); ok {
			failures <- s.Reason
		}
	})
	defer l.sys.EventStream.Unsubscribe(sub)

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
	l.stop() // first: the race detector can't say where it was if memory goes in the midst of an atomic
	if err := syscall.Mprotect(mem, syscall.PROT_NONE); err != nil {
		t.Fatal(err)
	}
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
