package soak

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bhome-bus/bhome/cmd/internal/child"
	"github.com/bhome-bus/bhome/node"
)

// memberConfig is what a process of the soak is told to be. All randomness of it comes from Seed.
type memberConfig struct {
	Member      uint32
	Name        string
	Bus, Socket string
	Dir         string // of the journals
	Seed        uint64
	Pubs        []pubSpec
	Subs        []subSpec
	Serves      []serveSpec
	Asks        []askSpec
	Mortal      bool // may be killed, and ends itself when a request says so
	Churn       bool // closes and opens its publishers and subscriptions again
	Inject      Fault
	ExitAfter   time.Duration // ends by itself in the middle of something, that long after its start; 0: never
}

// The events of a process, besides child.Failed.
const (
	evReady      = "ready"      // all of its configuration is set up
	evSubscribed = "subscribed" // Subscribe has returned: subscribedEvent
	evPaused     = "paused"     // no publisher and no client does anything
	evReport     = "report"     // the answer to report
	evFault      = "fault"      // something isn't as it must be: a sentence
	evStacks     = "stacks"     // of all goroutines, when something hangs
)

// The commands to a process.
const (
	cmdPause  = "pause"
	cmdResume = "resume"
	cmdReport = "report"
	cmdForget = "forget" // drop what is known of members other than those listed
	cmdStacks = "stacks"
	cmdClose  = "close"
)

type subscribedEvent struct{ Sub, Gen int }

// report is what a process says when it is asked how it stands.
type report struct {
	Serial     int // the command's
	State      string
	Subs       []subReport
	Goroutines int
	HeapBytes  uint64 // after a collection
	Stats      node.Stats
}

// closeTimeout bounds a clean end; retryAttach the time that attaching may take while the center is away or a name's last
// holder is being forgotten. Guards, far above what is usual.
const (
	closeTimeout = 30 * time.Second
	retryAttach  = 60 * time.Second
)

// worker is a process of the soak.
type worker struct {
	cfg     memberConfig
	n       *node.Node
	j       *journal
	pattern pattern
	exitAt  time.Time
	say     chan func(*child.Session) error
	gate    gate
	pausing atomic.Bool // long steps end early
	slots   sync.Mutex  // one takes a slot of the journal at a time
	subs    []*subscriber
	clients clients
	request atomic.Uint64 // the number of the last request
}

// memberRole is the life of one process of the soak.
func memberRole(ctx context.Context, s *child.Session) (err error) {
	w := &worker{pattern: newPattern(), say: make(chan func(*child.Session) error), gate: gate{changed: make(chan struct{})}}
	if err := s.Config(&w.cfg); err != nil {
		return err
	}
	if w.j, err = openJournal(w.cfg.Dir, w.cfg.Member, true); err != nil {
		return err
	}
	defer w.j.close()
	if w.cfg.ExitAfter > 0 {
		w.exitAt = time.Now().Add(w.cfg.ExitAfter)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	var tasks sync.WaitGroup
	go func() { ended <- w.live(ctx, &tasks) }()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case err := <-ended:
			if err != nil {
				return err
			}
			ended = nil // all tasks run
		case f := <-w.say:
			if err := f(s); err != nil {
				return err
			}
		case c := <-s.Commands():
			if c.Name != cmdClose {
				if err := w.obey(ctx, s, c); err != nil {
					return err
				}
				continue
			}
			err := w.leave(cancel, &tasks)
			return err
		}
	}
}

// leave ends the tasks and closes the node. What the tasks still say is nobody's business.
func (w *worker) leave(cancel context.CancelFunc, tasks *sync.WaitGroup) error {
	cancel()
	done := make(chan struct{})
	go func() { tasks.Wait(); close(done) }()
	late := time.After(closeTimeout)
	for over := false; !over; {
		select {
		case <-w.say:
		case <-done:
			over = true
		case <-late:
			return fmt.Errorf("its tasks have not ended %v after they were told to:\n%s", closeTimeout, stacks())
		}
	}
	ctx, stop := context.WithTimeout(context.Background(), closeTimeout)
	defer stop()
	if w.n == nil {
		return nil
	}
	// A service's clients may be gone or stopped: what couldn't be sent to them is no fault. What is held is.
	err := w.n.Close(ctx)
	if left := (*node.NotSentError)(nil); errors.As(err, &left) && left.Held == 0 {
		return nil
	}
	return err
}

// live attaches and starts all tasks.
func (w *worker) live(ctx context.Context, tasks *sync.WaitGroup) error {
	tasks.Add(1) // leave waits for us
	defer tasks.Done()
	if err := w.attach(ctx); err != nil {
		return unlessOver(ctx, err)
	}
	r := w.rand(0)
	for i, spec := range w.cfg.Subs {
		s := &subscriber{w: w, index: i, spec: spec, r: w.rand(100 + i)}
		if err := s.open(ctx); err != nil {
			return unlessOver(ctx, err)
		}
		w.slots.Lock()
		w.subs = append(w.subs, s)
		w.slots.Unlock()
		tasks.Go(func() { w.faultUnless(ctx, s.run(ctx)) })
	}
	for i, spec := range w.cfg.Serves {
		if err := w.serve(ctx, i, spec); err != nil {
			return unlessOver(ctx, err)
		}
	}
	for i, spec := range w.cfg.Pubs {
		p := &publisher{w: w, index: i, spec: spec, r: w.rand(200 + i)}
		if err := p.open(ctx); err != nil {
			return unlessOver(ctx, err)
		}
		tasks.Go(func() { w.faultUnless(ctx, p.run(ctx)) })
	}
	for i, spec := range w.cfg.Asks {
		a, err := w.client(i, spec)
		if err != nil {
			return err
		}
		tasks.Go(func() { w.faultUnless(ctx, a.run(ctx)) })
	}
	if r.IntN(2) == 0 && len(w.cfg.Pubs) > 0 {
		tasks.Go(func() { w.unsent(ctx, w.rand(300)) })
	}
	w.emit(ctx, evReady, nil)
	return nil
}

func (w *worker) rand(part int) *rand.Rand { return rand.New(rand.NewPCG(w.cfg.Seed, uint64(part))) }

// attach tries until there is a center and the name is free: its last holder may just have been killed.
func (w *worker) attach(ctx context.Context) error {
	late, cancel := context.WithTimeout(ctx, retryAttach)
	defer cancel()
	cfg := node.Config{Name: w.cfg.Name, Bus: w.cfg.Bus, Socket: w.cfg.Socket, AttachTimeout: retryAttach}
	for {
		n, err := node.Attach(late, cfg)
		switch {
		case err == nil:
			w.n = n
			return nil
		case late.Err() == nil && (errors.Is(err, node.ErrNoDaemon) || errors.Is(err, node.ErrNameInUse) || errors.Is(err, node.ErrDisconnected)):
			sleep(late, 10*time.Millisecond)
		default:
			return err
		}
	}
}

func unlessOver(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// faultUnless tells a task's error, unless the task was told to end.
func (w *worker) faultUnless(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil {
		w.fault(ctx, "%v (the node's state is %v: %v)", err, w.n.State(), w.n.Err())
	}
}

func (w *worker) fault(ctx context.Context, format string, args ...any) {
	w.emit(ctx, evFault, fmt.Sprintf(format, args...))
}

func (w *worker) emit(ctx context.Context, name string, data any) {
	select {
	case w.say <- func(s *child.Session) error { return s.Emit(name, data) }:
	case <-ctx.Done():
	}
}

// maybeExit ends the process on the spot once its time has come.
func (w *worker) maybeExit() {
	if !w.exitAt.IsZero() && time.Now().After(w.exitAt) {
		w.exit()
	}
}

func (w *worker) exit() {
	w.j.leave()
	os.Exit(3)
}

// obey does what the director says. It never waits for a task.
func (w *worker) obey(ctx context.Context, s *child.Session, c child.Command) error {
	switch c.Name {
	case cmdPause:
		w.pausing.Store(true)
		go func() {
			if w.gate.pause(ctx) {
				w.emit(ctx, evPaused, nil)
			}
		}()
		return nil
	case cmdResume:
		w.pausing.Store(false)
		w.gate.resume()
		return nil
	case cmdReport:
		r := report{}
		if err := c.Read(&r.Serial); err != nil {
			return err
		}
		if w.n != nil {
			r.Stats, r.State = w.n.Stats(), w.n.State().String()
		}
		w.slots.Lock()
		for _, sub := range w.subs {
			r.Subs = append(r.Subs, sub.report())
		}
		w.slots.Unlock()
		r.Goroutines = runtime.NumGoroutine()
		var m runtime.MemStats
		debug.FreeOSMemory()
		runtime.ReadMemStats(&m)
		r.HeapBytes = m.HeapAlloc
		return s.Emit(evReport, r)
	case cmdForget:
		var living []uint32
		if err := c.Read(&living); err != nil {
			return err
		}
		for _, sub := range w.subs {
			sub.forget(living)
		}
		w.clients.forget()
		return nil
	case cmdStacks:
		return s.Emit(evStacks, stacks())
	default:
		return fmt.Errorf("a process of the soak doesn't know how to %q", c.Name)
	}
}

func stacks() string {
	buf := make([]byte, 1<<20)
	return string(buf[:runtime.Stack(buf, true)])
}

// sleep waits for d, less if ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// stall sleeps, but not through a pause.
func (w *worker) stall(ctx context.Context, d time.Duration) {
	for end := time.Now().Add(d); ctx.Err() == nil && !w.pausing.Load() && time.Now().Before(end); {
		sleep(ctx, min(20*time.Millisecond, time.Until(end)))
	}
}
