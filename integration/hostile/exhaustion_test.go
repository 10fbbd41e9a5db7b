package hostile

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bhome-bus/bhome/node"
)

// roleEnv makes this test binary a node that runs into a limit, instead of testing; the socket is BHOME_SOCKET.
const roleEnv = "BHOME_HOSTILE_ROLE"

// limitedRole loans more and more until it is refused, says why, and shows that it goes on: a line each.
func limitedRole(role string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	switch role {
	case "mappings":
		return mappingsRole()
	case "center":
		return centerRole()
	}
	if role == "attach" {
		_, err := node.Attach(ctx, node.Config{Name: role})
		fmt.Println("refused:", err)
		return nil
	}
	n, err := node.Attach(ctx, node.Config{Name: role})
	if err != nil {
		return err
	}
	pub, err := n.Publisher(ctx, "limited")
	if err != nil {
		return err
	}
	if role == "address-space" {
		// What it takes so far, and a little more: ulimit -v would have to be known before.
		now, err := addressSpace()
		if err == nil {
			err = unix.Setrlimit(unix.RLIMIT_AS, &unix.Rlimit{Cur: now + 256<<20, Max: now + 256<<20})
		}
		if err != nil {
			return err
		}
	}
	fmt.Println("ready")
	in := bufio.NewScanner(os.Stdin)
	if !in.Scan() {
		return nil
	}
	var loans []node.Loan
	for {
		l, err := pub.Loan(ctx, 16<<20)
		if err != nil {
			var le *node.LimitError
			if !errors.Is(err, node.ErrNoMemory) || !errors.As(err, &le) {
				return err
			}
			fmt.Printf("refused: limit %s after %d loans: %v\n", le.Limit, len(loans), err)
			break
		}
		b := l.Bytes()
		for i := 0; i < len(b); i += 4096 { // all of it can be used
			b[i] = 1
		}
		loans = append(loans, l)
	}
	for _, l := range loans {
		if err := l.Release(); err != nil {
			return err
		}
	}
	if err := pub.Publish(ctx, []byte("it goes on")); err != nil {
		return err
	}
	fmt.Println("goes on")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// addressSpace is our own.
func addressSpace() (uint64, error) {
	b, err := os.ReadFile("/proc/self/statm")
	var pages uint64
	if err == nil {
		_, err = fmt.Sscan(string(b), &pages)
	}
	return pages * uint64(os.Getpagesize()), err
}

// limited is a process in such a role, run by the command under, if any.
type limited struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func startLimited(t *testing.T, d *daemon, role string, under ...string) *limited {
	t.Helper()
	return startLimitedLogging(t, d, role, os.Stderr, under...)
}

// startLimitedLogging is startLimited with another place for what it says on stderr.
func startLimitedLogging(t *testing.T, d *daemon, role string, log io.Writer, under ...string) *limited {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args := append(under, self)
	l := &limited{t: t, cmd: exec.Command(args[0], args[1:]...)}
	l.cmd.Env = append(os.Environ(), roleEnv+"="+role, "BHOME_SOCKET="+d.socket)
	l.cmd.Stderr = log
	l.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := l.cmd.StdoutPipe()
	if err == nil {
		l.in, err = l.cmd.StdinPipe()
	}
	if err == nil {
		err = l.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	l.out = bufio.NewScanner(out)
	t.Cleanup(func() {
		_ = l.cmd.Process.Kill() // it may have ended
		_ = l.cmd.Wait()         // by the signal
	})
	return l
}

// line is the next that it says, which has to begin so.
func (l *limited) line(begin string) string {
	l.t.Helper()
	if !l.out.Scan() || !strings.HasPrefix(l.out.Text(), begin) {
		l.t.Fatalf("%q, want %q (%v)", l.out.Text(), begin, l.out.Err())
	}
	return l.out.Text()
}

func attach(t *testing.T, d *daemon, name string) *node.Node {
	t.Helper()
	n, err := node.Attach(t.Context(), node.Config{Name: name, Socket: d.socket})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeNode(t, n) })
	return n
}

func closeNode(t *testing.T, n *node.Node) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := n.Close(ctx); err != nil {
		t.Errorf("close: %v", err)
	}
}

// works shows that two nodes exchange messages, small ones and one that takes new memory.
func works(t *testing.T, a, b *node.Node, topic string, sizes ...int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s, err := a.Subscribe(ctx, topic, node.OnFull(node.Block))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(ctx)
	p, err := b.Publisher(ctx, topic, node.AllowBlock(patience))
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range sizes {
		if err := p.Publish(ctx, make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		m, err := s.Receive(ctx)
		if err != nil || len(m.Bytes()) != size {
			t.Fatal(err)
		}
		if err := m.Release(); err != nil {
			t.Fatal(err)
		}
	}
}

// A bhomed that may open few files refuses newcomers by that limit; those who are here go on, and new ones come when some
// have left.
func TestCenterWithFewDescriptors(t *testing.T) {
	d := startDaemon(t, "sh", "-c", `ulimit -n 160; exec "$0" "$@"`)
	a, b := attach(t, d, "a"), attach(t, d, "b")
	works(t, a, b, "t", 10, 1000)
	var more []*node.Node
	for {
		n, err := node.Attach(t.Context(), node.Config{Name: fmt.Sprint("more", len(more)), Socket: d.socket})
		if err != nil {
			var le *node.LimitError
			if !errors.As(err, &le) || le.Limit != "descriptors" || !strings.Contains(err.Error(), "ulimit -n") {
				t.Errorf("%v, want the limit of descriptors", err)
			}
			break
		}
		if more = append(more, n); len(more) > 100 {
			t.Fatal("all get in")
		}
	}
	d.log.wait(t, "a process is refused", "limit=descriptors", fmt.Sprintf("pid=%d ", os.Getpid()))
	works(t, a, b, "t2", 10, 1000, 4<<20)
	for _, n := range more {
		closeNode(t, n)
	}
	eventually(t, func() string {
		n, err := node.Attach(t.Context(), node.Config{Name: "late", Socket: d.socket})
		if err != nil {
			return err.Error()
		}
		closeNode(t, n)
		return ""
	})
	d.stop(t)
}

// A node that may open few files is told so.
func TestNodeWithFewDescriptors(t *testing.T) {
	d := startDaemon(t)
	l := startLimited(t, d, "attach", "sh", "-c", `ulimit -n 12; exec "$0"`)
	if text := l.line("refused:"); !strings.Contains(text, "too many open files") && !strings.Contains(text, "no room for them in our table") {
		t.Error(text)
	}
	a, b := attach(t, d, "a"), attach(t, d, "b")
	works(t, a, b, "t", 10, 1000)
	d.stop(t)
}

// A loan that doesn't fit the address space (ulimit -v) is refused as such; what fits goes on.
func TestNodeWithLittleAddressSpace(t *testing.T) {
	d := startDaemon(t)
	l := startLimited(t, d, "address-space")
	l.line("ready")
	fmt.Fprintln(l.in, "go")
	if text := l.line("refused: limit address space"); !strings.Contains(text, "cannot allocate memory") {
		t.Error(text)
	}
	l.line("goes on")
	works(t, attach(t, d, "a"), attach(t, d, "b"), "t", 10, 1000, 4<<20)
	d.stop(t)
}

// memoryCgroup makes one below ours and limits it; false: this user may not, and the tests of the packages that read made-up
// cgroups have to do.
func memoryCgroup(t *testing.T, limit uint64) (procs string, ok bool) {
	t.Helper()
	self, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(self)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) < 3 {
			continue
		}
		root, file := "/sys/fs/cgroup", "memory.max"
		if f[1] == "memory" {
			root, file = "/sys/fs/cgroup/memory", "memory.limit_in_bytes"
		} else if f[0] != "0" {
			continue
		}
		dir := filepath.Join(root, f[2], fmt.Sprint("bhome-test-", os.Getpid()))
		if os.Mkdir(dir, 0o755) != nil {
			continue
		}
		if os.WriteFile(filepath.Join(dir, file), []byte(fmt.Sprint(limit)), 0o644) != nil {
			_ = os.Remove(dir) // it is as it was
			continue
		}
		t.Cleanup(func() {
			eventually(t, func() string { // its process has to be gone
				if err := os.Remove(dir); err != nil {
					return err.Error()
				}
				return ""
			})
		})
		return filepath.Join(dir, "cgroup.procs"), true
	}
	return "", false
}

// A node in a memory cgroup is refused what its cgroup has no room for, instead of being killed when it touches it.
func TestNodeInASmallMemoryCgroup(t *testing.T) {
	procs, ok := memoryCgroup(t, 160<<20)
	if !ok {
		t.Log("no memory cgroup can be made here: node.TestNoRoomInTheCgroup and shmio.TestCgroups have to do")
		return
	}
	d := startDaemon(t)
	l := startLimited(t, d, "cgroup", "sh", "-c", `echo $$ > `+procs+` && exec "$0"`)
	l.line("ready")
	fmt.Fprintln(l.in, "go")
	if text := l.line("refused: limit cgroup"); !strings.Contains(text, "memory cgroup /sys/fs/cgroup") {
		t.Error(text)
	}
	l.line("goes on")
	works(t, attach(t, d, "a"), attach(t, d, "b"), "t", 10, 1000, 4<<20)
	_ = l.in.Close()
	if err := l.cmd.Wait(); err != nil {
		t.Errorf("the node ended with %v", err)
	}
	d.stop(t)
}

// A disk that is full, as far as the log is concerned, stops nobody.
func TestLogToAFullDisk(t *testing.T) {
	d := &daemon{socket: filepath.Join(t.TempDir(), "s"), log: &logBook{changed: make(chan struct{})}}
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	d.cmd = exec.Command(filepath.Join(programs, "bhomed"), "--socket", d.socket, "--log-level", "debug")
	d.cmd.Stderr, d.cmd.Stdout = full, full
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.cmd.Process.Kill() }() // it may have ended
	var a *node.Node
	eventually(t, func() string { // there is no event before the socket is there
		if a, err = node.Attach(t.Context(), node.Config{Name: "a", Socket: d.socket}); err != nil {
			return err.Error()
		}
		return ""
	})
	defer closeNode(t, a)
	works(t, a, attach(t, d, "b"), "t", 10, 1000, 4<<20)
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Wait(); err != nil {
		t.Errorf("bhomed ended with %v", err)
	}
}
