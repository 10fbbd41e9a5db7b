package deaths

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bhome-bus/bhome/node"
)

const sleeperHolds = 4

// sleeper is the process that will be stopped: it holds messages, serves, and on each line of its input publishes ten
// messages and reads what it has missed.
func sleeper(ctx context.Context, n *node.Node) error {
	in, err := n.Subscribe(ctx, "late.in", node.Depth(16))
	if err != nil {
		return err
	}
	out, err := n.Publisher(ctx, "late.out")
	if err != nil {
		return err
	}
	if _, err := n.Serve(ctx, "late.svc", func(context.Context, *node.Request) ([]byte, error) { return nil, nil }); err != nil {
		return err
	}
	fmt.Println("ready")
	var held []node.Message
	for range sleeperHolds {
		m, err := in.Receive(ctx)
		if err != nil {
			return err
		}
		held = append(held, m)
	}
	fmt.Println("holds")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		for i := range 10 {
			if err := out.Publish(ctx, numbered(1000, i)); err != nil {
				return err
			}
		}
		for {
			m, ok, err := in.TryReceive()
			if err != nil {
				return err
			}
			if !ok {
				break
			}
			fmt.Println("got", binary.NativeEndian.Uint64(m.Bytes()))
			if err := m.Release(); err != nil {
				return err
			}
		}
		intact := true
		for i, m := range held {
			intact = intact && string(m.Bytes()) == string(numbered(3000, i)) && m.Release() == nil
		}
		fmt.Println("intact:", intact)
	}
	return nil
}

// pauses are the ways to stop a process; each returns how to let it go on.
func pauses() map[string]func(t *testing.T, pid int) (goOn func()) {
	return map[string]func(t *testing.T, pid int) func(){"SIGSTOP": stopped, "debugger": traced}
}

func stopped(t *testing.T, pid int) func() {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for state(t, pid) != "T" {
		runtime.Gosched()
	}
	return func() {
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
			t.Error(err)
		}
	}
}

// traced stops every thread as a debugger does. All of that has to come from one thread.
func traced(t *testing.T, pid int) func() {
	t.Helper()
	held, resume, over := make(chan error), make(chan struct{}), make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread() // it must not end: processes that it started would get their death signal
		tids := map[int]bool{}
		for more := true; more; { // threads may be born until all are stopped
			more = false
			tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
			for _, task := range tasks {
				tid, _ := strconv.Atoi(filepath.Base(task))
				if err != nil || tids[tid] {
					continue
				}
				if err = unix.PtraceSeize(tid); err == nil {
					err = unix.PtraceInterrupt(tid)
				}
				if err == nil {
					_, err = syscall.Wait4(tid, nil, unix.WALL, nil)
				}
				tids[tid], more = true, true
			}
			if err != nil {
				held <- err
				return
			}
		}
		held <- nil
		<-resume
		var err error
		for tid := range tids {
			if e := syscall.PtraceDetach(tid); e != nil {
				err = e
			}
		}
		over <- err
	}()
	if err := <-held; err != nil {
		t.Fatal("trace it:", err)
	}
	return func() {
		close(resume)
		if err := <-over; err != nil {
			t.Error("let it go on:", err)
		}
	}
}

// eventually asks until the answer is "", and fails with the last one if that takes too long.
func eventually(t *testing.T, ask func() string) {
	t.Helper()
	end := time.Now().Add(patience)
	for wrong := ask(); wrong != ""; wrong = ask() {
		if time.Now().After(end) {
			t.Fatal(wrong)
		}
		<-time.After(2 * time.Millisecond) // between questions
	}
}

// procNamed is the row of a process; nil: there is none.
func procNamed(t *testing.T, n *node.Node, name string) *node.ProcRow {
	t.Helper()
	rows, err := n.Procs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		if r.GetName() == name {
			return r
		}
	}
	return nil
}

// A process that is stopped for longer than every time-out loses nothing but its turn.
func TestLateIsNotDead(t *testing.T) {
	for name, pause := range pauses() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDaemon(t, "--offline", "300ms", "--kill", "300ms") // without --kill-unresponsive the latter means nothing
			p := role(t, "sleeper", d.socket)
			p.until("ready")
			n := attach(t, d, "n")
			pub, err := n.Publisher(t.Context(), "late.in")
			if err != nil {
				t.Fatal(err)
			}
			for i := range sleeperHolds {
				if err := pub.Publish(t.Context(), numbered(3000, i)); err != nil {
					t.Fatal(err)
				}
			}
			p.until("holds")
			if err := n.WaitForService(t.Context(), "late.svc"); err != nil {
				t.Fatal(err)
			}
			other := attach(t, d, "other")
			if _, err := other.Serve(t.Context(), "late.svc", func(context.Context, *node.Request) ([]byte, error) { return nil, nil }); err != nil {
				t.Fatal(err)
			}
			before := procNamed(t, n, "sleeper")
			goOn := pause(t, p.cmd.Process.Pid)
			is := func(state string) {
				t.Helper()
				eventually(t, func() string {
					if r := procNamed(t, n, "sleeper"); r.GetState() != state {
						return fmt.Sprintf("it is %q, not %s", r.GetState(), state)
					}
					return ""
				})
			}
			is("unresponsive")
			// It isn't chosen: once the client has heard of it, every request is the other's.
			ask := func() (string, error) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				r, err := n.Request(ctx, "late.svc", nil)
				if err != nil {
					return "", err
				}
				return r.Provider(), r.Release()
			}
			for turn := 0; turn < 10; turn++ {
				switch who, err := ask(); {
				case err == nil && who == "other":
				case err != nil && turn == 0: // it was on its way before the news
					turn = -1
				default:
					t.Fatalf("request %d is answered by %q, %v", turn, who, err)
				}
			}
			// Its subscription fills, and then drops the oldest; nobody waits.
			for i := range 100 {
				if err := pub.Publish(t.Context(), numbered(3000, i)); err != nil {
					t.Fatal(err)
				}
			}
			eventually(t, func() string {
				rows, err := n.Topics(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				for _, r := range rows {
					// It may have been stopped within taking a message, which then counts as taken.
					if r.GetTopic() == "late.in" && r.GetDrops() >= 83 && r.GetDrops() <= 84 && r.GetDepth() >= 16 {
						return ""
					}
				}
				return fmt.Sprint("drops: ", rows)
			})
			// A newcomer's Subscribe doesn't wait for it, and gets what it publishes from then on.
			s, err := attach(t, d, "new").Subscribe(t.Context(), "late.out", node.Depth(64))
			if err != nil {
				t.Fatal(err)
			}
			// Nothing was taken from it.
			if now := procNamed(t, n, "sleeper"); now.GetSession() != before.GetSession() || now.GetGrantedBlocks() != before.GetGrantedBlocks() ||
				now.GetSegmentBytes() != before.GetSegmentBytes() {
				t.Errorf("it has %v, had %v", now, before)
			}
			fmt.Fprintln(p.in, "go")
			goOn()
			for i := range 10 {
				receive(t, s, i)
			}
			want := 84
			for l := p.next(); l != "intact: true"; l = p.next() {
				if got, err := strconv.Atoi(strings.TrimPrefix(l, "got ")); err != nil || got != want && want != 84 {
					t.Fatalf("%q, want message %d", l, want)
				} else if got == want {
					want++
				}
			}
			if want != 100 {
				t.Errorf("it got messages up to %d", want-1)
			}
			is("online")
			eventually(t, func() string { // and it is chosen again
				if who, err := ask(); err != nil || who != "sleeper" {
					return fmt.Sprint(who, err)
				}
				return ""
			})
		})
	}
}

// An operator who asks for it has those killed that are late for too long.
func TestKillUnresponsiveProcesses(t *testing.T) {
	d := newDaemon(t, "--offline", "1s", "--kill", "2s", "--kill-unresponsive")
	p := role(t, "sleeper", d.socket)
	p.until("ready")
	n := attach(t, d, "n")
	stopped(t, p.cmd.Process.Pid)
	_ = p.cmd.Wait() // the status says it
	if ws := p.cmd.ProcessState.Sys().(syscall.WaitStatus); ws.Signal() != syscall.SIGKILL {
		t.Fatal("its end:", p.cmd.ProcessState)
	}
	eventually(t, func() string {
		if r := procNamed(t, n, "sleeper"); r != nil {
			return fmt.Sprint("it is still known: ", r)
		}
		return ""
	})
}
