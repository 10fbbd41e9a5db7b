package actors

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"go.uber.org/goleak"

	"github.com/bhome-bus/bhome/node"
	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
)

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

func TestMain(m *testing.M) {
	if childMain() || fuseMain() {
		return
	}
	goleak.VerifyTestMain(m)
}

// testBus is a center in this process, with hooks, and its log.
type testBus struct {
	t      testing.TB
	ctx    context.Context
	system *actor.ActorSystem
	pid    *actor.PID
	cfg    Config
	socket string
	log    *logBook
}

func newTestBus(t testing.TB, change ...func(*Config)) *testBus {
	t.Helper()
	before := countResources(t)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	b := &testBus{t: t, ctx: ctx, log: newLogBook()}
	b.system = actor.NewActorSystem(actor.WithDeadLetterThrottleInterval(time.Millisecond), actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger { return slog.New(slog.DiscardHandler) }))
	b.cfg = DefaultConfig()
	b.cfg.Socket = filepath.Join(t.TempDir(), "bus.sock")
	b.cfg.Logger = slog.New(b.log)
	for _, f := range change {
		f(&b.cfg)
	}
	b.start()
	t.Cleanup(func() {
		b.stop()
		b.system.Shutdown()
		cancel()
		noLeak(t, before)
		if t.Failed() {
			t.Log("the center's log:\n" + b.log.String())
		}
	})
	return b
}

func (b *testBus) start() {
	b.t.Helper()
	pid, info, err := Spawn(b.system.Root, "center", b.cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	b.pid, b.socket = pid, info.Socket
}

func (b *testBus) stop() {
	b.t.Helper()
	if b.pid == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := Stop(ctx, b.system, b.pid); err != nil {
		b.t.Error(err)
	}
	b.pid = nil
}

// attach joins the bus, and leaves it at the end of the test.
func (b *testBus) attach(name string, change ...func(*node.Config)) *node.Node {
	b.t.Helper()
	cfg := node.Config{Name: name, Socket: b.socket}
	for _, f := range change {
		f(&cfg)
	}
	n, err := node.Attach(b.ctx, cfg)
	if err != nil {
		b.t.Fatalf("attach %q: %v", name, err)
	}
	b.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = n.Close(ctx) // tests that care close it themselves
	})
	return n
}

// role is one of the center's record keepers.
func (b *testBus) role(name string) *actor.PID { return actor.NewPID(b.pid.Address, b.pid.Id+"/"+name) }

// sessionPID is a session's actor.
func (b *testBus) sessionPID(session uint64) *actor.PID {
	b.t.Helper()
	for _, m := range b.system.ProcessRegistry.LocalPIDs.LocalPIDs {
		for _, id := range m.Keys() {
			if strings.Contains(id, fmt.Sprint(sessionPrefix, session, "-")) && strings.Count(id, "/") == 1 {
				return actor.NewPID(b.pid.Address, id)
			}
		}
	}
	b.t.Fatalf("no actor of session %d", session)
	return nil
}

// childrenOf are an actor's living children.
func (b *testBus) childrenOf(pid *actor.PID) (children []*actor.PID) {
	for _, m := range b.system.ProcessRegistry.LocalPIDs.LocalPIDs {
		for _, id := range m.Keys() {
			if rest, ok := strings.CutPrefix(id, pid.Id+"/"); ok && !strings.Contains(rest, "/") {
				children = append(children, actor.NewPID(pid.Address, id))
			}
		}
	}
	return children
}

// askCenter asks the center one of the public questions.
func askCenter[R any](b *testBus, q any) R {
	b.t.Helper()
	r, err := b.system.Root.RequestFuture(b.pid, q, patience).Result()
	if err != nil {
		b.t.Fatalf("%T: %v", q, err)
	}
	return r.(R)
}

func (b *testBus) counter(name string) uint64 {
	b.t.Helper()
	return askCenter[*bhomev1.QueryCenterReply](b, &QueryCenter{}).GetCounters()[name]
}

// eventually waits until f says nothing any more; what it says last is the failure.
func eventually(t testing.TB, f func() string) {
	t.Helper()
	end := time.Now().Add(patience)
	for {
		what := f()
		if what == "" {
			return
		}
		if time.Now().After(end) {
			t.Fatal(what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// logBook keeps what is logged.
type logBook struct {
	mu      *sync.Mutex
	lines   *[]string
	changed *chan struct{}
	attrs   string
}

func newLogBook() *logBook {
	ch := make(chan struct{})
	return &logBook{mu: new(sync.Mutex), lines: new([]string), changed: &ch}
}

func (l *logBook) Enabled(context.Context, slog.Level) bool { return true }
func (l *logBook) WithGroup(string) slog.Handler            { return l }
func (l *logBook) WithAttrs(as []slog.Attr) slog.Handler {
	c := *l
	for _, a := range as {
		c.attrs += " " + a.String()
	}
	return &c
}

func (l *logBook) Handle(_ context.Context, r slog.Record) error {
	var s strings.Builder
	fmt.Fprintf(&s, "%v %s%s", r.Level, r.Message, l.attrs)
	r.Attrs(func(a slog.Attr) bool { fmt.Fprintf(&s, " %s", a); return true })
	l.mu.Lock()
	defer l.mu.Unlock()
	*l.lines = append(*l.lines, s.String())
	close(*l.changed)
	*l.changed = make(chan struct{})
	return nil
}

func (l *logBook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(*l.lines, "\n")
}

// count is how many lines have all of the words.
func (l *logBook) count(words ...string) (n int) {
	n, _, _ = l.find(words)
	return n
}

func (l *logBook) find(words []string) (n int, line string, changed chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
next:
	for _, s := range *l.lines {
		for _, w := range words {
			if !strings.Contains(s, w) {
				continue next
			}
		}
		n, line = n+1, s
	}
	return n, line, *l.changed
}

// wait waits for a line that has all of the words, and returns the last such.
func (l *logBook) wait(t testing.TB, words ...string) string {
	t.Helper()
	end := time.After(patience)
	for {
		n, line, changed := l.find(words)
		if n > 0 {
			return line
		}
		select {
		case <-changed:
		case <-end:
			t.Fatalf("no line with %q in the log:\n%s", words, l)
		}
	}
}

// resources are what a process can leak: descriptors, and mappings of memfds.
type resources struct{ fds, maps int }

func countResources(t testing.TB) (r resources) {
	t.Helper()
	if p, w, err := os.Pipe(); err == nil { // from now on the runtime's own poller is there
		p.Close()
		w.Close()
	}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	return resources{len(fds), strings.Count(string(maps), "/memfd:")}
}

// noLeak waits until nothing is there that wasn't before.
func noLeak(t testing.TB, before resources) {
	t.Helper()
	eventually(t, func() string {
		now := countResources(t)
		if now.fds <= before.fds && now.maps <= before.maps {
			return ""
		}
		return fmt.Sprintf("leaked: %d descriptors and %d mappings were open, now %d and %d", before.fds, before.maps, now.fds, now.maps)
	})
}

func pidOf(testing.TB) int { return os.Getpid() }

func uidOf() int { return os.Getuid() }

type ctxT = context.Context

// faults is how many faults of a process are counted.
func (b *testBus) faults(name string) uint64 {
	b.t.Helper()
	for _, p := range askCenter[*ProcsReply](b, &QueryProcs{}).Procs {
		if p.GetName() == name {
			return p.GetFaults()
		}
	}
	b.t.Fatalf("no process %q", name)
	return 0
}
