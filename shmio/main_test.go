package shmio

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// childEnv makes the test binary run one of children instead of the tests: what needs a second process.
const childEnv = "BHOME_SHMIO_TEST_CHILD"

// children get the arguments; descriptor 3 on are those passed along. They end with standard input.
func children() map[string]func(args []string) error {
	return map[string]func([]string) error{
		"idle": func([]string) error { return nil }, "violate": childViolate, "ring": childRing, "listen": childListen,
		"segment": childSegment, "flood": childFlood,
	}
}

func TestMain(m *testing.M) {
	name := os.Getenv(childEnv)
	if name == "" {
		os.Exit(m.Run())
	}
	err := children()[name](os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "child", name+":", err)
		os.Exit(1)
	}
	fmt.Println("done")
	_, _ = io.Copy(io.Discard, os.Stdin) // until the parent has what it wants
}

const nobody = 65534

type proc struct {
	*exec.Cmd
	t     *testing.T
	in    io.WriteCloser
	lines *bufio.Scanner
	over  bool
}

// startChild runs a child, as the given uid (0: ours), and ends it with the test. fds are lent.
func startChild(t *testing.T, uid uint32, name string, args []string, fds ...*FD) *proc {
	t.Helper()
	if uid != 0 && os.Getuid() != 0 {
		t.Skip("another uid needs root")
	}
	c := exec.Command("/proc/self/exe", args...) // the binary's folder may be closed to another uid; this isn't
	c.Env = append(os.Environ(), childEnv+"="+name)
	c.Stderr = os.Stderr
	if uid != 0 {
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		c.Dir = "/"
	}
	for _, f := range fds {
		n, err := unix.FcntlInt(uintptr(f.Int()), unix.F_DUPFD_CLOEXEC, 0)
		noErr(t, err)
		file := os.NewFile(uintptr(n), "passed")
		defer file.Close()
		c.ExtraFiles = append(c.ExtraFiles, file)
	}
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	p := &proc{Cmd: c, t: t, in: in, lines: bufio.NewScanner(out)}
	t.Cleanup(p.kill)
	return p
}

// expect waits for a line.
func (p *proc) expect(line string) {
	p.t.Helper()
	if !p.lines.Scan() || p.lines.Text() != line {
		p.t.Fatalf("the child said %q (%v), want %q", p.lines.Text(), p.lines.Err(), line)
	}
}

func (p *proc) kill() {
	if p.over {
		return
	}
	p.over = true
	_ = p.Process.Kill()
	_ = p.in.Close()
	_ = p.Wait()
}

// checkLeaks fails the test if it leaves a goroutine or a descriptor behind. The collector is off meanwhile, so that it
// doesn't tidy up lost descriptors.
func checkLeaks(t *testing.T) {
	t.Helper()
	r, err := NewReactor(time.Second) // the runtime's own descriptors exist from here on
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	gc := debug.SetGCPercent(-1)
	ignore, before := goleak.IgnoreCurrent(), openFDs(t)
	t.Cleanup(func() {
		goleak.VerifyNone(t, ignore)
		for fd, what := range openFDs(t) {
			if before[fd] != what {
				t.Errorf("descriptor %d is left: %s", fd, what)
			}
		}
		debug.SetGCPercent(gc)
	})
}

func openFDs(t *testing.T) map[int]string {
	t.Helper()
	dir, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	fds := map[int]string{}
	for _, e := range dir {
		n, _ := strconv.Atoi(e.Name())
		if what, err := os.Readlink(filepath.Join("/proc/self/fd", e.Name())); err == nil && !strings.HasPrefix(what, "/proc/") {
			fds[n] = what
		}
	}
	return fds
}

// shortDir is a folder whose path leaves room for a socket's name, open to every uid.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "bh")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

const patience = 10 * time.Second

// await receives from c, or fails.
func await[T any](t *testing.T, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("waited in vain for %s", what)
		panic("unreachable")
	}
}

func wantErr(t *testing.T, err, want error, contains ...string) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error is %v, want %v", err, want)
	}
	for _, s := range contains {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("error %q doesn't say %q", err, s)
		}
	}
}

func noErr(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
