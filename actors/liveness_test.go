package actors

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bhome-bus/bhome/node"
	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
)

// later has a session believe that so much time has passed. The center's own ticks would undo it.
func (b *testBus) later(session uint64, d time.Duration) {
	b.t.Helper()
	if !b.cfg.hooks.ownTicks {
		b.t.Fatal("not without ownTicks")
	}
	b.system.Root.Send(b.sessionPID(session), &tick{now: monotonic() + int64(d)})
}

func (b *testBus) state(name string) string {
	b.t.Helper()
	for _, p := range askCenter[*ProcsReply](b, &QueryProcs{}).Procs {
		if p.GetName() == name {
			return p.GetState()
		}
	}
	return "unknown"
}

// An unresponsive provider isn't chosen, keeps what it has, and is chosen again when it is heard.
func TestUnresponsive(t *testing.T) {
	b := newTestBus(t, func(c *Config) { c.OfflineAfter, c.KillAfter, c.hooks.ownTicks = time.Minute, time.Hour, true })
	client := b.attach("client")
	r := b.onlineRaw("silent")
	if err := r.common(1, bhomev1.MsgType_MSG_TYPE_REGISTER_RPC, &bhomev1.RegisterRPC{Service: 1, Topic: "svc", Depth: 4, Hold: 4}); err != nil {
		t.Fatal(err)
	}
	place := r.alloc(1, 100)
	if err := client.WaitForService(b.ctx, "svc"); err != nil {
		t.Fatal(err)
	}
	online := func() bool {
		t.Helper()
		ps, err := client.Providers(b.ctx, "svc")
		if err != nil || len(ps) != 1 {
			t.Fatal(ps, err)
		}
		return ps[0].GetOnline()
	}
	b.later(r.session, 30*time.Second)
	r.alive()
	if s := b.state("silent"); s != "online" || !online() {
		t.Fatal("after half of the time:", s)
	}
	b.later(r.session, 61*time.Second)
	b.log.wait(t, "unresponsive", "name=silent")
	if s := b.state("silent"); s != "unresponsive" {
		t.Error("its state is", s)
	}
	eventually(t, func() string {
		ctx, cancel := context.WithTimeout(b.ctx, patience/20) // one that was quicker than the news is never answered
		defer cancel()
		if _, err := client.Request(ctx, "svc", []byte("x")); !errors.Is(err, node.ErrNoProvider) {
			return fmt.Sprint("a request: ", err)
		}
		return ""
	})
	eventually(t, func() string { // asked of the center, not of the client's memory
		if rows := askCenter[*TopicsReply](b, &QueryTopics{}).Topics; len(rows) != 1 || fmt.Sprint(rows[0].GetProviders()) != "[silent (unresponsive)]" {
			return fmt.Sprint("topics: ", rows)
		}
		return ""
	})
	if n := b.counter("granted_blocks"); n < 2 {
		t.Error("something was taken from a living process:", n)
	}
	r.alive()
	b.log.wait(t, "responsive again", "name=silent")
	if s := b.state("silent"); s != "online" {
		t.Error("its state is", s)
	}
	if err := client.WaitForService(b.ctx, "svc"); err != nil {
		t.Error(err)
	}
	r.free(1, place)
	r.alive()
	if n := b.counter("late_frees"); n != 0 {
		t.Error("its grant was taken away")
	}
}

// A heart that only moves its counter is heard, and its silence too. That the center sees it move is TestIdleSessionsSleep's.
func TestHeartbeatsAreHeard(t *testing.T) {
	b := newTestBus(t, func(c *Config) { c.OfflineAfter, c.KillAfter, c.hooks.ownTicks = time.Minute, time.Hour, true })
	r := b.onlineRaw("quiet")
	for minute, step := range []struct {
		beats bool
		state string
	}{{true, "online"}, {true, "online"}, {false, "online"}, {false, "unresponsive"}, {true, "online"}, {false, "online"}, {false, "unresponsive"}} {
		later := &tick{now: monotonic() + int64(minute+1)*int64(59*time.Second)}
		if step.beats {
			later.beat = later.now
		}
		b.system.Root.Send(b.sessionPID(r.session), later)
		if s := b.state("quiet"); s != step.state {
			t.Fatalf("look %d: %s, want %s", minute+1, s, step.state)
		}
	}
}

// childSocket in the environment makes this program a node that waits for the end of its standard input.
const childSocket = "BHOME_ACTORS_TEST_SOCKET"

func childMain() bool {
	socket := os.Getenv(childSocket)
	if socket == "" {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	n, err := node.Attach(ctx, node.Config{Name: "child", Socket: socket, NoReconnect: true})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("attached")
	_, _ = io.Copy(io.Discard, os.Stdin)
	if err := n.Close(ctx); err != nil {
		os.Exit(1)
	}
	return true
}

// child starts a process that attaches, and waits until it has.
func (b *testBus) child() (cmd *exec.Cmd, session uint64) {
	b.t.Helper()
	cmd = exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childSocket+"="+b.socket)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = in.Close()
		_ = cmd.Wait()
	})
	if _, err := io.ReadFull(out, make([]byte, len("attached\n"))); err != nil {
		b.t.Fatal("the child doesn't attach:", err)
	}
	for _, p := range askCenter[*ProcsReply](b, &QueryProcs{}).Procs {
		if p.GetName() == "child" {
			return cmd, p.GetSession()
		}
	}
	b.t.Fatal("the child isn't listed")
	return nil, 0
}

// A process that has been silent too long is killed where the operator asked for it, and only there.
func TestKillUnresponsive(t *testing.T) {
	for _, kill := range []bool{false, true} {
		t.Run(fmt.Sprint(kill), func(t *testing.T) {
			b := newTestBus(t, func(c *Config) {
				c.KillUnresponsive, c.OfflineAfter, c.KillAfter, c.hooks.ownTicks = kill, time.Minute, 2*time.Minute, true
			})
			cmd, session := b.child()
			if err := cmd.Process.Signal(unix.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			b.later(session, 119*time.Second)
			b.log.wait(t, "unresponsive", "name=child")
			b.later(session, 121*time.Second)
			if !kill {
				b.state("child") // asked of the session: it has handled the tick
				if n := b.log.count("killing"); n != 0 {
					t.Error("it was killed unasked")
				}
				if err := cmd.Process.Signal(unix.SIGCONT); err != nil {
					t.Error(err)
				}
				b.later(session, 0)
				if s := b.state("child"); s != "online" {
					t.Error("it is", s)
				}
				return
			}
			b.log.wait(t, "killing an unresponsive process", "name=child", fmt.Sprint("pid=", cmd.Process.Pid))
			if err := cmd.Wait(); err == nil || cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Error("its end:", cmd.ProcessState)
			}
			b.log.wait(t, "gone", "name=child", "the process has died")
			eventually(t, func() string {
				if n := b.counter("granted_blocks"); n != 0 {
					return fmt.Sprint(n, " blocks of the dead are left")
				}
				return ""
			})
		})
	}
}

// A process that lives but whose socket is gone keeps all that it has until it dies.
func TestDetached(t *testing.T) {
	b := newTestBus(t)
	r := b.onlineRaw("raw")
	r.alloc(1, 100)
	_ = r.conn.Close()
	b.log.wait(t, "detached", "name=raw")
	if s := b.state("raw"); s != "detached" {
		t.Error("its state is", s)
	}
	if n := b.counter("granted_blocks"); n != 2 {
		t.Errorf("%d blocks are granted, want 2", n)
	}
	if _, err := node.Attach(b.ctx, node.Config{Name: "raw", Socket: b.socket}); !errors.Is(err, node.ErrNameInUse) {
		t.Error("its name:", err)
	}
}

// Stop leaves nothing: no actor, goroutine, descriptor or mapping.
func TestStopLeavesNothing(t *testing.T) {
	before := countResources(t)
	b := newTestBus(t)
	var nodes []*node.Node
	for i := range 5 {
		n, err := node.Attach(b.ctx, node.Config{Name: fmt.Sprint("n", i), Socket: b.socket, NoReconnect: true})
		if err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, n)
		if _, err := n.Subscribe(b.ctx, "a."); err != nil {
			t.Fatal(err)
		}
		p, err := n.Publisher(b.ctx, "a.b")
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Publish(b.ctx, make([]byte, 100_000)); err != nil {
			t.Fatal(err)
		}
	}
	half, _ := rawHello(t, "half") // connected, and says nothing
	half.dial(b.socket)
	raws := []*rawNode{half, b.onlineRaw("raw"), b.onlineRaw("detached"), b.attachRaw("attached")}
	_ = raws[2].conn.Close()
	b.log.wait(t, "detached", "name=detached")
	stop := time.Now()
	b.stop()
	if took := time.Since(stop); took > 3*time.Second {
		t.Errorf("Stop took %v", took)
	}
	for _, m := range b.system.ProcessRegistry.LocalPIDs.LocalPIDs {
		for _, id := range m.Keys() {
			if id == "deadletter" || id == "eventstream" { // the framework's own
				continue
			}
			t.Errorf("actor %s is left", id)
		}
	}
	for _, n := range nodes {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		_ = n.Close(ctx) // its center is gone
		cancel()
	}
	for _, r := range raws {
		r.close()
	}
	noLeak(t, before)
}
