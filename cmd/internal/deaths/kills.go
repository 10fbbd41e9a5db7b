package deaths

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bhome-bus/bhome/cmd/internal/child"
	"github.com/bhome-bus/bhome/cmd/internal/latency"
	"github.com/bhome-bus/bhome/node"
)

const (
	victimName = "deaths-victim"
	perVictim  = 16                     // messages that a victim holds, and as many that it has sent
	oneLoan    = 16 << 20               // bytes that a victim touches at a time
	between    = 200 * time.Microsecond // two looks
	killLimit  = 30 * time.Second       // for all that must follow a death
)

// victimConfig goes to a process that will be killed.
type victimConfig struct {
	Socket  string
	Touched uint64
}

// victim holds what a process can hold, of others and of its own, and waits for its death.
func victim(ctx context.Context, s *child.Session) error {
	var cfg victimConfig
	if err := s.Config(&cfg); err != nil {
		return err
	}
	n, err := node.Attach(ctx, node.Config{Name: victimName, Socket: cfg.Socket})
	if err != nil {
		return err
	}
	mem, err := n.Publisher(ctx, "deaths.memory")
	if err != nil {
		return err
	}
	for left := cfg.Touched; left > 0; {
		size := min(left, oneLoan)
		l, err := mem.Loan(ctx, int(size)) // never released
		if err != nil {
			return err
		}
		b := l.Bytes()
		for i := 0; i < len(b); i += os.Getpagesize() {
			b[i] = 1
		}
		left -= size
	}
	out, err := n.Publisher(ctx, "deaths.out")
	if err == nil {
		err = out.WaitForSubscribers(ctx, 1)
	}
	if err != nil {
		return err
	}
	for i := range perVictim {
		if err := out.Publish(ctx, numbered(1000, uint64(i))); err != nil {
			return err
		}
	}
	inHand := make(chan struct{})
	if _, err := n.Serve(ctx, "deaths.svc", func(ctx context.Context, _ *node.Request) ([]byte, error) {
		close(inHand)
		<-ctx.Done()
		return nil, ctx.Err()
	}); err != nil {
		return err
	}
	in, err := n.Subscribe(ctx, "deaths.in", node.Depth(perVictim), node.Hold(perVictim), node.OnFull(node.Block))
	if err != nil {
		return err
	}
	if err := s.Emit("attached", n.Session()); err != nil {
		return err
	}
	for range perVictim {
		if _, err := in.Receive(ctx); err != nil { // never released
			return err
		}
	}
	select {
	case <-inHand:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err := s.Emit("loaded", nil); err != nil {
		return err
	}
	<-ctx.Done()
	return context.Cause(ctx)
}

func numbered(size int, i uint64) []byte {
	b := make([]byte, size)
	binary.NativeEndian.PutUint64(b, i)
	return b
}

// watcher is this process on the bus: the victims' caller, publisher, subscriber, and who asks the center.
type watcher struct {
	n   *node.Node
	pub *node.Publisher
	sub *node.Subscription
}

// kills measures so many deaths of victims of one kind.
func kills(ctx context.Context, socket string, count int, touched uint64, launch Launcher) (row KillRow, err error) {
	n, err := node.Attach(ctx, node.Config{Name: "deaths-watcher", Socket: socket, Magazine: node.NoMagazine})
	if err != nil {
		return row, err
	}
	defer func() { err = errors.Join(err, n.Close(context.WithoutCancel(ctx))) }()
	w := watcher{n: n}
	if w.pub, err = n.Publisher(ctx, "deaths.in", node.AllowBlock(time.Minute)); err != nil {
		return row, err
	}
	if w.sub, err = n.Subscribe(ctx, "deaths.out", node.Depth(perVictim), node.OnFull(node.Block)); err != nil {
		return row, err
	}
	times := [4]*latency.Recorder{latency.New(), latency.New(), latency.New(), latency.New()}
	row.Touched, row.Kills = touched, count
	for range count {
		took, err := w.kill(ctx, launch, victimConfig{socket, touched})
		if err != nil {
			return row, err
		}
		for i, d := range took {
			times[i].Record(int64(d))
		}
		read, err := w.readAll()
		if err != nil {
			return row, err
		}
		row.Delivered += read
		row.Lost += perVictim - read
	}
	row.Center, row.Caller, row.Publisher, row.Returned = times[0].Percentiles(), times[1].Percentiles(), times[2].Percentiles(), times[3].Percentiles()
	return row, nil
}

// kill loads a victim, kills it, and tells how long each thing that follows took.
func (w watcher) kill(ctx context.Context, launch Launcher, cfg victimConfig) (took [4]time.Duration, err error) {
	p, err := launch(victimName, cfg)
	if err != nil {
		return took, err
	}
	defer p.Kill()
	var session uint64
	if err := p.Await(ctx, "attached", &session); err != nil {
		return took, err
	}
	if err := errors.Join(w.pub.WaitForSubscribers(ctx, 1), w.n.WaitForService(ctx, "deaths.svc")); err != nil {
		return took, err
	}
	told := make(chan error, 1)
	var toldAt time.Time
	if err := w.n.RequestAsync(ctx, "deaths.svc", []byte("?"), func(_ *node.Reply, err error) { toldAt = time.Now(); told <- err }); err != nil {
		return took, err
	}
	before := w.n.Stats().Granted
	for i := range perVictim {
		if err := w.pub.Publish(ctx, numbered(1000, uint64(i))); err != nil {
			return took, err
		}
	}
	if err := p.Await(ctx, "loaded", nil); err != nil {
		return took, err
	}
	pidfd, err := unix.PidfdOpen(p.PID(), 0)
	if err != nil {
		return took, fmt.Errorf("open a pidfd of the victim: %w", err)
	}
	defer unix.Close(pidfd)
	dead := make(chan time.Time, 1)
	go func() {
		fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
		for {
			if n, err := unix.Poll(fds, -1); n == 1 || err != nil && !errors.Is(err, unix.EINTR) {
				dead <- time.Now()
				return
			}
		}
	}()
	p.Signal(syscall.SIGKILL)
	ctx, cancel := context.WithTimeoutCause(ctx, killLimit, fmt.Errorf("not all that follows a death has followed within %v", killLimit))
	defer cancel()
	var ends [4]time.Time // of what follows, in took's order
	over := make(chan error, len(ends))
	wait := func(i int, ask func() (bool, error)) {
		go func() { err := poll(ctx, between, ask); ends[i] = time.Now(); over <- err }()
	}
	wait(0, func() (bool, error) { return w.forgotten(ctx, session) })
	wait(2, func() (bool, error) { return w.pub.Subscribers() == 0, nil })
	wait(3, func() (bool, error) { return w.n.Stats().Granted <= before, nil })
	go func() {
		err := <-told // also when w's node closes
		if ends[1] = toldAt; errors.Is(err, node.ErrProviderGone) {
			over <- nil
			return
		}
		over <- fmt.Errorf("the caller was told %w, not that the provider is gone", err)
	}()
	for range ends {
		if err := <-over; err != nil {
			return took, err
		}
	}
	at := <-dead
	for i, end := range ends {
		took[i] = max(0, end.Sub(at)) // a peer can hear of it before we do
	}
	return took, nil
}

// forgotten asks the center whether anything of a session is left.
func (w watcher) forgotten(ctx context.Context, session uint64) (bool, error) {
	procs, err := w.n.Procs(ctx)
	if err != nil || slices.ContainsFunc(procs, func(r *node.ProcRow) bool { return r.GetSession() == session }) {
		return false, err
	}
	topics, err := w.n.Topics(ctx)
	if err != nil || slices.ContainsFunc(topics, func(r *node.TopicRow) bool {
		return slices.ContainsFunc(slices.Concat(r.GetPublishers(), r.GetSubscribers(), r.GetProviders()), func(name string) bool {
			return strings.HasPrefix(name, victimName)
		})
	}) {
		return false, err
	}
	msgs, _, err := w.n.Msgs(ctx)
	return err == nil && !slices.ContainsFunc(msgs, func(r *node.MsgRow) bool {
		return r.GetOwnerSession() == session || slices.Contains(r.GetHolders(), victimName)
	}), err
}

// readAll reads what a dead victim had sent, and returns how many of its messages there are, in order.
func (w watcher) readAll() (int, error) {
	for i := 0; ; i++ {
		m, ok, err := w.sub.TryReceive()
		if !ok || err != nil {
			return i, err
		}
		if got := binary.NativeEndian.Uint64(m.Bytes()); got != uint64(i) {
			return i, fmt.Errorf("a dead process's message %d came as its %dth", got, i)
		}
		if err := m.Release(); err != nil {
			return i, err
		}
	}
}
