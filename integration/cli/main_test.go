// Package cli tests the programs as a person or a script uses them: real processes, real signals, what they print and
// with what status they end.
package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// wait is how long anything may take that happens by itself; it only bounds failing tests.
const wait = 30 * time.Second

// binDir is where TestMain has built the programs; "" if it has not.
func binDir() string { return os.Getenv("BHOME_TEST_BIN") }

func TestMain(m *testing.M) {
	if role := os.Getenv("BHOME_TEST_ROLE"); role != "" {
		os.Exit(runRole(role))
	}
	os.Exit(withPrograms(m.Run))
}

// withPrograms builds both programs into a folder that any user can read, for the tests that drop root.
func withPrograms(run func() int) int {
	dir, err := os.MkdirTemp("", "bhome-cli-")
	if err == nil {
		defer os.RemoveAll(dir)
		err = os.Chmod(dir, 0o755)
	}
	if err == nil {
		cmd := exec.Command("go", "build", "-o", dir, "./cmd/bhomed", "./cmd/bhctl")
		cmd.Dir = filepath.Join("..", "..")
		if out, berr := cmd.CombinedOutput(); berr != nil {
			err = fmt.Errorf("%w: %s", berr, out)
		}
	}
	if err == nil {
		err = os.Setenv("BHOME_TEST_BIN", dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "build the programs:", err)
		return 1
	}
	return run()
}

// bus is a daemon under test.
type bus struct {
	t      *testing.T
	socket string
	cmd    *exec.Cmd
	log    *lines
	ended  chan struct{}
	err    error // after ended
}

// lines collects output, however much, and lets tests wait for a line.
type lines struct {
	mu   sync.Mutex
	more chan struct{} // closed and replaced when there is more
	all  []string
	read int // how many until has seen
	over bool
}

func newLines(r io.ReadCloser) *lines {
	l := &lines{more: make(chan struct{})}
	go func() {
		defer r.Close()
		sc := bufio.NewScanner(r)
		sc.Buffer(nil, 1<<20)
		for sc.Scan() {
			l.add(sc.Text(), false)
		}
		l.add("", true)
	}()
	return l
}

func (l *lines) add(s string, over bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over = over; !over {
		l.all = append(l.all, s)
	}
	close(l.more)
	l.more = make(chan struct{})
}

// until returns the first line from here on that contains text.
func (l *lines) until(t *testing.T, text string) string {
	t.Helper()
	late := time.After(wait)
	for {
		l.mu.Lock()
		for l.read < len(l.all) {
			s := l.all[l.read]
			l.read++
			if strings.Contains(s, text) {
				l.mu.Unlock()
				return s
			}
		}
		more, over, said := l.more, l.over, strings.Join(l.all, "\n")
		l.mu.Unlock()
		if over {
			t.Fatalf("it ended without %q; it said:\n%s", text, said)
		}
		select {
		case <-more:
		case <-late:
			t.Fatalf("no %q within %v; it said:\n%s", text, wait, said)
		}
	}
}

// rest is everything, once it has ended.
func (l *lines) rest() []string {
	for {
		l.mu.Lock()
		more, over, all := l.more, l.over, l.all
		l.mu.Unlock()
		if over {
			return all
		}
		<-more
	}
}

// startBus starts bhomed with args on a socket of its own and waits until it is ready.
func startBus(t *testing.T, args ...string) *bus {
	t.Helper()
	dir, err := os.MkdirTemp("", "bhome-bus-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	b := &bus{t: t, socket: filepath.Join(dir, "bus.sock")}
	b.start(append([]string{"--socket", b.socket}, args...), nil)
	b.log.until(t, "ready")
	return b
}

// start runs bhomed; change adapts the command first.
func (b *bus) start(args []string, change func(*exec.Cmd)) {
	b.t.Helper()
	b.cmd = exec.Command(filepath.Join(binDir(), "bhomed"), args...)
	if change != nil {
		change(b.cmd)
	}
	r, w, err := os.Pipe()
	if err != nil {
		b.t.Fatal(err)
	}
	b.cmd.Stderr = w
	if err := b.cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	w.Close()
	b.log, b.ended = newLines(r), make(chan struct{})
	go func() {
		b.err = b.cmd.Wait()
		close(b.ended)
	}()
	b.t.Cleanup(func() { b.stop() })
}

// stop ends the daemon as an operator does and returns its log and how it ended.
func (b *bus) stop() ([]string, error) {
	_ = b.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-b.ended:
	case <-time.After(wait):
		_ = b.cmd.Process.Signal(syscall.SIGQUIT) // shows what it is doing
		<-b.ended
		b.t.Errorf("bhomed did not end within %v of SIGTERM:\n%s", wait, strings.Join(b.log.rest(), "\n"))
	}
	return b.log.rest(), b.err
}

// result is how a command ended.
type result struct {
	code           int
	stdout, stderr string
}

// ctl runs bhctl to its end on the bus.
func (b *bus) ctl(stdin string, args ...string) result {
	b.t.Helper()
	return ctl(b.t, stdin, append([]string{"--socket", b.socket}, args...)...)
}

// ok is ctl that must end well; it returns what was printed.
func (b *bus) ok(stdin string, args ...string) string {
	b.t.Helper()
	r := b.ctl(stdin, args...)
	if r.code != 0 {
		b.t.Fatalf("bhctl %v: status %d: %s", args, r.code, r.stderr)
	}
	return r.stdout
}

func ctl(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*wait)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(binDir(), "bhctl"), args...)
	cmd.Stdin = strings.NewReader(stdin)
	return finish(t, cmd)
}

func finish(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatalf("%v: %v", cmd.Args, err)
	}
	return result{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

// background is a process that runs on while the test does.
type background struct {
	cmd      *exec.Cmd
	out, err *lines
	stdin    io.WriteCloser
}

// spawn starts bhctl on the bus and leaves it running; it is killed at the end of the test if it hasn't ended.
func (b *bus) spawn(args ...string) *background {
	b.t.Helper()
	return spawn(b.t, exec.Command(filepath.Join(binDir(), "bhctl"), append([]string{"--socket", b.socket}, args...)...))
}

// role starts this test program in a role of roles_test.go.
func (b *bus) role(role string, args ...string) *background {
	b.t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), "BHOME_TEST_ROLE="+role, "BHOME_SOCKET="+b.socket)
	return spawn(b.t, cmd)
}

func spawn(t *testing.T, cmd *exec.Cmd) *background {
	t.Helper()
	p := &background{cmd: cmd}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if p.stdin, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.out, p.err = newLines(stdout), newLines(stderr)
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	return p
}

// end waits for the process's end and returns its status and the rest of its output.
func (p *background) end(t *testing.T) result {
	t.Helper()
	kill := time.AfterFunc(wait, func() { _ = p.cmd.Process.Kill() })
	defer kill.Stop()
	r := result{stdout: strings.Join(p.out.rest(), "\n"), stderr: strings.Join(p.err.rest(), "\n")}
	_ = p.cmd.Wait() // the status says it
	r.code = p.cmd.ProcessState.ExitCode()
	return r
}

// interrupt ends the process as Ctrl-C does.
func (p *background) interrupt(t *testing.T) result {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	return p.end(t)
}

// decode reads one JSON document.
func decode[T any](t *testing.T, text string) (v T) {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return v
}

// eventually asks until the answer is "", and fails with the last one if that takes too long.
func eventually(t *testing.T, ask func() string) {
	t.Helper()
	late := time.Now().Add(wait)
	for {
		wrong := ask()
		if wrong == "" {
			return
		}
		if time.Now().After(late) {
			t.Fatal(wrong)
		}
		time.Sleep(5 * time.Millisecond) // between questions, not in hope
	}
}
