// Package access tests who may do what on a bus with processes of several users: the daemon and all of them are real
// processes, and what a process can't read is looked for in its memory.
package access

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bhome-bus/bhome/node"
)

// patience bounds what must happen at all.
const patience = 60 * time.Second

const (
	socketEnv  = "BHOME_ACCESS_SOCKET" // makes this test binary an agent on that bus
	programEnv = "BHOME_ACCESS_BHOMED"
)

func TestMain(m *testing.M) {
	if socket := os.Getenv(socketEnv); socket != "" {
		runAgent(socket)
		return
	}
	os.Exit(run(m))
}

// run builds the daemon where every user may run it. Other users need root, as CI has it by sudo.
func run(m *testing.M) int {
	if os.Getuid() != 0 && os.Getenv(programEnv) == "" {
		return asRoot()
	}
	dir, err := os.MkdirTemp("", "bhome-access-")
	if err == nil {
		defer os.RemoveAll(dir)
		err = os.Chmod(dir, 0o755)
	}
	if err == nil && os.Getenv(programEnv) == "" {
		err = build(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "build bhomed:", err)
		return 1
	}
	return m.Run()
}

func build(dir string) error {
	program := filepath.Join(dir, "bhomed")
	cmd := exec.Command("go", "build", "-o", program, "./cmd/bhomed")
	cmd.Dir = filepath.Join("..", "..")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return os.Setenv(programEnv, program)
}

// asRoot runs the tests again by sudo, with a daemon that is built here: root may have no Go.
func asRoot() int {
	dir, err := os.MkdirTemp("", "bhome-access-")
	if err == nil {
		defer os.RemoveAll(dir)
		if err = os.Chmod(dir, 0o755); err == nil {
			err = build(dir)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "build bhomed:", err)
		return 1
	}
	self, err := os.Executable()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	args := append([]string{"-n", "env", programEnv + "=" + os.Getenv(programEnv), self}, os.Args[1:]...)
	cmd := exec.Command("sudo", args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "these tests run processes as several users: run them as root, or with a sudo that asks for no password:", err)
		return 1
	}
	return 0
}

// The users of these tests, unknown to the machine, and a group that bob is in besides his own.
const (
	alice   = 70001
	bob     = 70002
	eve     = 70003
	mallory = 70004
	staff   = 70010
)

// bus is a daemon, started again at will under the same socket.
type bus struct {
	t      *testing.T
	dir    string
	socket string
	cmd    *exec.Cmd
	log    bytes.Buffer // of daemons that have ended
}

// newBus starts a daemon with that text as its configuration.
func newBus(t *testing.T, config string) *bus {
	t.Helper()
	dir, err := os.MkdirTemp("", "bhome-access-bus-")
	if err != nil {
		t.Fatal(err)
	}
	b := &bus{t: t, dir: dir, socket: filepath.Join(dir, "bus.sock")}
	t.Cleanup(func() {
		b.kill()
		if t.Failed() {
			t.Logf("the daemon's log:\n%s", &b.log)
		}
		os.RemoveAll(dir)
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	b.start(config)
	return b
}

func (b *bus) start(config string) {
	b.t.Helper()
	file := filepath.Join(b.dir, "bhomed.toml")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		b.t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(b.dir, "log"))
	if err != nil {
		b.t.Fatal(err)
	}
	defer log.Close()
	b.cmd = exec.Command(os.Getenv(programEnv), "-c", file, "--socket", b.socket)
	b.cmd.Stdout, b.cmd.Stderr = log, log
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := b.cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	eventually(b.t, func() string {
		if strings.Contains(b.logged(), "ready") {
			return ""
		}
		return "bhomed is not ready: " + b.logged()
	})
}

// logged is what the daemon that runs now has logged.
func (b *bus) logged() string {
	text, err := os.ReadFile(filepath.Join(b.dir, "log"))
	if err != nil {
		b.t.Fatal(err)
	}
	return string(text)
}

func (b *bus) kill() {
	if b.cmd == nil {
		return
	}
	_ = b.cmd.Process.Kill()
	_ = b.cmd.Wait()
	b.cmd = nil
	b.log.WriteString(b.logged())
}

// restart kills the daemon and starts another, with another configuration if there is one.
func (b *bus) restart(config string) {
	b.t.Helper()
	b.kill()
	b.start(config)
}

// agent is a process of some user that does what it is told, a line a command and one in answer.
type agent struct {
	t    *testing.T
	name string
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
}

func (b *bus) agent(name string, uid uint32, groups ...uint32) *agent {
	b.t.Helper()
	a := &agent{t: b.t, name: name, cmd: exec.Command("/proc/self/exe")}
	a.cmd.Env = append(os.Environ(), socketEnv+"="+b.socket)
	a.cmd.Dir = "/"
	a.cmd.Stderr = os.Stderr
	a.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Credential: &syscall.Credential{Uid: uid, Gid: uid, Groups: groups}}
	in, err := a.cmd.StdinPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	out, err := a.cmd.StdoutPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	a.in, a.out = in, bufio.NewReader(out)
	if err := a.cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		_ = in.Close()
		_ = a.cmd.Process.Kill()
		_ = a.cmd.Wait()
	})
	return a
}

// ask gives a command and returns what the agent says to it.
func (a *agent) ask(words ...string) string {
	a.t.Helper()
	if _, err := fmt.Fprintln(a.in, strings.Join(words, " ")); err != nil {
		a.t.Fatalf("%s: %q: %v", a.name, words, err)
	}
	line, err := a.out.ReadString('\n')
	if err != nil {
		a.t.Fatalf("%s: %q: %v", a.name, words, err)
	}
	return strings.TrimSpace(line)
}

// must is a command that succeeds with that answer.
func (a *agent) must(want string, words ...string) {
	a.t.Helper()
	if got := a.ask(words...); got != want {
		a.t.Fatalf("%s: %q: %q, want %q", a.name, words, got, want)
	}
}

// refused is a command that a rule forbids.
func (a *agent) refused(rule string, words ...string) {
	a.t.Helper()
	if got := a.ask(words...); !strings.HasPrefix(got, "not allowed by "+rule+":") || !strings.Contains(got, rule) {
		a.t.Fatalf("%s: %q: %q, want a refusal by rule %q", a.name, words, got, rule)
	}
}

// eventually waits until f says nothing any more.
func eventually(t *testing.T, f func() string) {
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
		time.Sleep(5 * time.Millisecond)
	}
}

// answer says how a command ended.
func answer(err error) string {
	var rule *node.NotAllowedError
	switch {
	case err == nil:
		return "ok"
	case asRule(err, &rule):
		return fmt.Sprintf("not allowed by %s: %v", rule.Rule, err)
	default:
		return "error: " + strings.ReplaceAll(err.Error(), "\n", "; ")
	}
}

// timeLimit bounds what an agent does for one command.
func timeLimit() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), patience/2)
}
