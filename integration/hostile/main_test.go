// Package hostile attacks a real bhomed and real honest nodes with processes that write whatever they like into their own
// memory and their sockets: honest traffic goes on exactly, what bhomed takes stays bounded, and its log names the offender.
package hostile

import (
	"bufio"
	"bytes"
	"encoding/json"
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

// patience bounds what must happen at all; nothing is measured against it.
const patience = 60 * time.Second

var programs string // the folder with bhomed and bhctl; set once, before the tests

func TestMain(m *testing.M) {
	if role := os.Getenv(roleEnv); role != "" {
		if err := limitedRole(role); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		return
	}
	code := func() int {
		dir, err := os.MkdirTemp("", "bhome-hostile-")
		if err != nil {
			fmt.Println(err)
			return 1
		}
		defer os.RemoveAll(dir)
		if out, err := exec.Command("go", "build", "-o", dir, "github.com/bhome-bus/bhome/cmd/...").CombinedOutput(); err != nil {
			fmt.Printf("%v\n%s", err, out)
			return 1
		}
		programs = dir
		return m.Run()
	}()
	os.Exit(code)
}

// logBook is what bhomed writes, and a signal for each piece.
type logBook struct {
	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{}
}

func (l *logBook) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.changed)
	l.changed = make(chan struct{})
	return l.text.Write(b)
}

func (l *logBook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// wait waits until the log has the words, in one line.
func (l *logBook) wait(t *testing.T, words ...string) {
	t.Helper()
	end := time.After(patience)
	for {
		l.mu.Lock()
		text, changed := l.text.String(), l.changed
		l.mu.Unlock()
	lines:
		for line := range strings.Lines(text) {
			for _, w := range words {
				if !strings.Contains(line, w) {
					continue lines
				}
			}
			return
		}
		select {
		case <-changed:
		case <-end:
			t.Fatalf("no line with %q in the log:\n%s", words, text[max(0, len(text)-4000):])
		}
	}
}

// daemon is a bhomed of a test.
type daemon struct {
	cmd    *exec.Cmd
	socket string
	log    *logBook
}

// startDaemon runs bhomed; under, if there is any, is the command that runs it.
func startDaemon(t *testing.T, under ...string) *daemon {
	t.Helper()
	d := &daemon{socket: filepath.Join(t.TempDir(), "s"), log: &logBook{changed: make(chan struct{})}}
	args := append(under, filepath.Join(programs, "bhomed"), "--socket", d.socket, "--log-level", "info")
	d.cmd = exec.Command(args[0], args[1:]...)
	d.cmd.Stderr = d.log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if d.cmd.ProcessState == nil {
			_ = d.cmd.Process.Kill() // it may have ended
			_ = d.cmd.Wait()         // by the signal
		}
		if t.Failed() {
			text := d.log.String()
			t.Log("bhomed's log:\n" + text[max(0, len(text)-8000):])
		}
	})
	d.log.wait(t, "ready:")
	return d
}

// stop ends it as an operator would.
func (d *daemon) stop(t *testing.T) {
	t.Helper()
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Wait(); err != nil {
		t.Errorf("bhomed ended with %v", err)
	}
	for _, bad := range []string{"panic", "has failed", "goroutine "} {
		if strings.Contains(d.log.String(), bad) {
			t.Errorf("bhomed's log has %q:\n%s", bad, d.log)
		}
	}
}

// child is bhctl in one of its roles.
type child struct {
	t      *testing.T
	name   string
	cmd    *exec.Cmd
	in     io.WriteCloser
	events chan event
	errs   bytes.Buffer
}

type event struct {
	Name string          `json:"event"`
	Data json.RawMessage `json:"data"`
}

func start(t *testing.T, role string, config any) *child {
	t.Helper()
	c := &child{t: t, name: role, cmd: exec.Command(filepath.Join(programs, "bhctl"), "child", role), events: make(chan event, 1024)}
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	c.cmd.Stderr = &c.errs
	in, err := c.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c.in = in
	go func() {
		defer close(c.events)
		for s := bufio.NewScanner(out); s.Scan(); {
			var e event
			if json.Unmarshal(s.Bytes(), &e) == nil {
				c.events <- e
			}
		}
	}()
	t.Cleanup(c.kill)
	c.send("start", config)
	return c
}

func (c *child) pid() int { return c.cmd.Process.Pid }

func (c *child) kill() {
	if c.cmd.ProcessState != nil {
		return
	}
	_ = c.cmd.Process.Kill() // it may have ended
	c.drain()
	_ = c.cmd.Wait() // by the signal
}

func (c *child) drain() {
	for range c.events { // Wait wants its output read
	}
}

func (c *child) send(command string, data any) {
	c.t.Helper()
	b, err := json.Marshal(map[string]any{"command": command, "data": data})
	if err != nil {
		c.t.Fatal(err)
	}
	if _, err := c.in.Write(append(b, '\n')); err != nil {
		c.drain()
		_ = c.cmd.Wait() // its words follow
		c.t.Fatalf("%s has ended: %v\n%s", c.name, err, c.errs.String())
	}
}

// await reads up to the event and its data into v, if not nil.
func (c *child) await(name string, v any) {
	c.t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case e, ok := <-c.events:
			switch {
			case !ok:
				_ = c.cmd.Wait() // its words follow
				c.t.Fatalf("%s has ended: %s", c.name, c.errs.String())
			case e.Name == "failed":
				c.t.Fatalf("%s: %s", c.name, e.Data)
			case e.Name != name:
				continue
			}
			if v != nil {
				if err := json.Unmarshal(e.Data, v); err != nil {
					c.t.Fatal(err)
				}
			}
			return
		case <-timeout:
			c.t.Fatalf("%s doesn't say %q", c.name, name)
		}
	}
}

// end says close and waits for a clean end.
func (c *child) end() {
	c.t.Helper()
	c.send("close", nil)
	_ = c.in.Close()
	c.drain()
	if err := c.cmd.Wait(); err != nil {
		c.t.Errorf("%s: %v\n%s", c.name, err, c.errs.String())
	}
}

// eventually is a check that is repeated until it holds: f returns what is wrong.
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
