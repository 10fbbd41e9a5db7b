package deaths

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bhome-bus/bhome/node"
)

// starter does all that takes more than one step between a process and the center: it attaches, gets a route as a
// publisher, makes a segment, gets one as a subscriber, serves and asks. What is traced lies between two marks.
func starter(ctx context.Context, socket string) error {
	mark := func() error { return syscall.Kill(os.Getpid(), syscall.SIGWINCH) } // ignored, but the tracer sees it
	if err := mark(); err != nil {
		return err
	}
	n, err := node.Attach(ctx, node.Config{Name: "starter", Socket: socket})
	if err != nil {
		return err
	}
	p, err := n.Publisher(ctx, "f.out")
	if err == nil {
		err = p.WaitForSubscribers(ctx, 1)
	}
	if err != nil {
		return err
	}
	for i := range 8 {
		l, err := p.Loan(ctx, 1000<<(i/4*11)) // from the fifth on there is no room in the first segment
		if err != nil {
			return err
		}
		binary.NativeEndian.PutUint64(l.Bytes(), uint64(i))
		if err := p.Send(ctx, l); err != nil {
			return err
		}
	}
	s, err := n.Subscribe(ctx, "f.in", node.Depth(8), node.History())
	if err != nil {
		return err
	}
	for i := range 3 {
		m, err := s.Receive(ctx)
		if err != nil {
			return err
		}
		if i < 2 { // the third it keeps
			if err := m.Release(); err != nil {
				return err
			}
		}
	}
	if _, err := n.Serve(ctx, "f.svc", func(context.Context, *node.Request) ([]byte, error) { return nil, nil }); err != nil {
		return err
	}
	r, err := n.Request(ctx, "f.echo", []byte("?"))
	if err != nil {
		return err
	}
	if err := errors.Join(r.Release(), mark()); err != nil {
		return err
	}
	for {
		_ = unix.Pause() // it ends with every signal that has a handler
	}
}

// killAt runs a starter and kills it with SIGKILL before, or right after, a system call: at the stop number at. It returns
// how many there were; fewer than at: the starter came to its end, and was killed there.
func killAt(socket string, at int) (stops int, err error) {
	runtime.LockOSThread() // a process is traced by a thread
	defer runtime.UnlockOSThread()
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	pid, err := syscall.ForkExec(self, []string{self}, &syscall.ProcAttr{
		Env:   append(os.Environ(), roleEnv+"=starter", "BHOME_SOCKET="+socket),
		Files: []uintptr{0, 1, 2},
		Sys:   &syscall.SysProcAttr{Ptrace: true},
	})
	if err != nil {
		return 0, err
	}
	var ws syscall.WaitStatus
	over := false
	defer func() {
		if over {
			return
		}
		err = errors.Join(err, syscall.Kill(pid, syscall.SIGKILL)) // a zombie at most
		for tid := 0; tid != pid || !ws.Exited() && !ws.Signaled(); {
			var werr error // each thread's end is told to its tracer, the leader's last
			if tid, werr = syscall.Wait4(-1, &ws, unix.WALL|unix.WNOTHREAD, nil); werr != nil && !errors.Is(werr, syscall.EINTR) {
				err = errors.Join(err, werr)
				return
			}
		}
	}()
	if _, err := syscall.Wait4(pid, &ws, 0, nil); err != nil {
		return 0, err
	}
	if err := syscall.PtraceSetOptions(pid, unix.PTRACE_O_TRACECLONE|unix.PTRACE_O_TRACESYSGOOD|unix.PTRACE_O_EXITKILL); err != nil {
		return 0, err
	}
	const syscallStop = syscall.SIGTRAP | 0x80
	for tid, marks := pid, 0; ; {
		sig := 0
		switch s := ws.StopSignal(); {
		case s == syscallStop && marks == 1:
			if stops++; stops == at {
				return stops, nil
			}
		case s == syscall.SIGWINCH:
			if marks++; marks == 2 {
				return stops, nil
			}
		case s == syscallStop, s == syscall.SIGTRAP, s == syscall.SIGSTOP: // a thread's birth
		default:
			sig = int(s)
		}
		// A thread that is gone meanwhile can't go on.
		if err := syscall.PtraceSyscall(tid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			return stops, err
		}
		for {
			if tid, err = syscall.Wait4(-1, &ws, unix.WALL|unix.WNOTHREAD, nil); err != nil && !errors.Is(err, syscall.EINTR) {
				return stops, err
			}
			if err == nil && tid == pid && (ws.Exited() || ws.Signaled()) {
				over = true
				return stops, fmt.Errorf("the starter ended by itself, status %#x", ws)
			}
			if err == nil && ws.Stopped() {
				break
			}
		}
	}
}

// A process that is killed at any step of its handshake, of a segment's making, of a route's set-up leaves nothing behind,
// and what it had sent arrives.
func TestKilledAtAnyStep(t *testing.T) {
	const points = 64
	d := newDaemon(t)
	n := attach(t, d, "n")
	s, err := n.Subscribe(t.Context(), "f.out", node.Depth(64), node.OnFull(node.Block))
	if err != nil {
		t.Fatal(err)
	}
	p, err := n.Publisher(t.Context(), "f.in", node.Keep(3))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if err := p.Publish(t.Context(), numbered(1000, i)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := n.Serve(t.Context(), "f.echo", func(context.Context, *node.Request) ([]byte, error) { return nil, nil }); err != nil {
		t.Fatal(err)
	}
	total, err := killAt(d.socket, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d steps, killed at %d of them", total, points)
	base := n.Stats()
	got := map[uint64]int{} // messages by session: those of one starter may come when the next is on its way
	for i := range points {
		at := 1 + i*total/points
		if i > 0 {
			if _, err := killAt(d.socket, at); err != nil {
				t.Fatal(err)
			}
		} // the first look is at the one that came to its end
		eventually(t, func() string {
			for {
				m, ok, err := s.TryReceive()
				if err != nil {
					t.Fatal(err)
				}
				if !ok {
					break
				}
				from := m.PublisherSession()
				if num := int(binary.NativeEndian.Uint64(m.Bytes())); num != got[from] {
					t.Fatalf("killed at step %d of %d: message %d came as its %dth", at, total, num, got[from])
				}
				got[from]++
				if err := m.Release(); err != nil {
					t.Fatal(err)
				}
			}
			return traces(t, n, p, base.SegmentBytes)
		})
		if i == 0 {
			for _, sent := range got {
				if len(got) != 1 || sent != 8 {
					t.Fatalf("messages of the one that came to its end: %v, want 8", got)
				}
			}
		}
	}
	if len(got) < points/10 {
		t.Errorf("only %d of %d starters had sent something", len(got), points)
	}
}

// traces says what of a starter is left, at the center or at n.
func traces(t *testing.T, n *node.Node, p *node.Publisher, segments uint64) string {
	t.Helper()
	if st := n.Stats(); p.Subscribers() != 0 || st.RoutesIn != 0 || st.RoutesOut != 0 || st.Held != 0 || st.SegmentBytes > segments {
		return fmt.Sprintf("n has %d subscribers, %+v", p.Subscribers(), st)
	}
	procs, err := n.Procs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(procs) != 1 {
		return fmt.Sprint("processes: ", procs)
	}
	topics, err := n.Topics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range topics {
		if slices.Contains(slices.Concat(r.GetPublishers(), r.GetSubscribers(), r.GetProviders()), "starter") || strings.HasPrefix(r.GetTopic(), "f.svc") {
			return fmt.Sprint("a topic: ", r)
		}
	}
	msgs, sums, err := n.Msgs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range msgs {
		if r.GetOwner() != "n" || len(r.GetHolders()) > 0 {
			return fmt.Sprint("a block: ", r)
		}
	}
	if int(sums.Blocks) != n.Stats().Granted {
		return fmt.Sprintf("%d blocks are granted, n has %d", sums.Blocks, n.Stats().Granted)
	}
	info, err := n.Center(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if c := info.GetCounters(); c["sessions"] != 1 || c["segment_bytes"] != procs[0].GetSegmentBytes() {
		return fmt.Sprintf("counters: %v, n's segments are %d bytes", c, procs[0].GetSegmentBytes())
	}
	return ""
}
