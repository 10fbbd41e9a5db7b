package child

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
)

// Process is a running child, or any program started with Spawn. Its methods are safe for concurrent use.
type Process struct {
	label  string
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	events chan Event
	done   chan struct{} // closed once it has been waited for
	err    error         // its end; read after done
	tail   *tail
	mu     sync.Mutex // one command at a time
}

// ErrEnded is an answer that a child can't give any more.
var ErrEnded = errors.New("the process has ended")

// Start runs args of the program executable as a child and gives it config. label is for messages.
func Start(label, executable string, args []string, config any) (*Process, error) {
	cmd := exec.Command(executable, args...)
	p := &Process{label: label, cmd: cmd, events: make(chan Event, 1024), done: make(chan struct{}), tail: &tail{}}
	var err error
	if p.stdin, err = cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("start %s: %w", label, err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", label, err)
	}
	if err := p.spawn(func() {
		defer close(p.events)
		dec := json.NewDecoder(bufio.NewReader(stdout))
		for {
			var e Event
			if err := dec.Decode(&e); err != nil {
				return // its end; rubbish can't come from our own program
			}
			p.events <- e
		}
	}); err != nil {
		return nil, err
	}
	if err := p.Send(start, config); err != nil {
		p.Kill()
		return nil, err
	}
	return p, nil
}

// Spawn runs another program, with env added to the environment, that speaks no events.
func Spawn(label, executable string, args []string, env ...string) (*Process, error) {
	cmd := exec.Command(executable, args...)
	cmd.Env = append(cmd.Environ(), env...)
	p := &Process{label: label, cmd: cmd, events: make(chan Event), done: make(chan struct{}), tail: &tail{}}
	if err := p.spawn(func() { close(p.events) }); err != nil {
		return nil, err
	}
	return p, nil
}

// spawn starts the command on a thread that lives as long as the process: the kernel sends the death signal when the
// thread that started it ends, so a child outlives its parent in no way that the parent can end.
func (p *Process) spawn(read func()) error {
	p.cmd.Stderr = p.tail
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err != nil {
			return
		}
		read() // all of stdout, before Wait closes it
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start %s: %w", p.label, err)
	}
	return nil
}

// Label is what messages call the process.
func (p *Process) Label() string { return p.label }

// PID is the process's.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Events are the child's reports, until it ends. They must be read, or the child waits.
func (p *Process) Events() <-chan Event { return p.events }

// Done is closed once the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Stderr is the last that it wrote there.
func (p *Process) Stderr() string { return p.tail.String() }

// Send tells the child a command.
func (p *Process) Send(name string, data any) error {
	raw, err := json.Marshal(data)
	if err == nil {
		p.mu.Lock()
		err = json.NewEncoder(p.stdin).Encode(Command{Name: name, Data: raw})
		p.mu.Unlock()
	}
	if err != nil {
		return fmt.Errorf("tell %s to %s: %w", p.label, name, err)
	}
	return nil
}

// Await reads events until name comes, and its data into v (nil: ignored). Others are dropped; Failed, or the process's end,
// is an error.
func (p *Process) Await(ctx context.Context, name string, v any) error {
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %q of %s: %w", name, p.label, context.Cause(ctx))
		case e, ok := <-p.events:
			switch {
			case !ok:
				return p.ended()
			case e.Name == Failed:
				return p.failure(e)
			case e.Name != name:
			case v == nil:
				return nil
			default:
				return e.Read(v)
			}
		}
	}
}

func (p *Process) failure(e Event) error {
	var text string
	if err := e.Read(&text); err != nil {
		text = string(e.Data)
	}
	return fmt.Errorf("%s (pid %d): %s", p.label, p.PID(), text)
}

// ended describes an end that was not expected.
func (p *Process) ended() error {
	<-p.done
	err := fmt.Errorf("%s (pid %d): %w", p.label, p.PID(), ErrEnded)
	if p.err != nil {
		err = fmt.Errorf("%w: %w", err, p.err)
	}
	if text := strings.TrimSpace(p.Stderr()); text != "" {
		err = fmt.Errorf("%w: %s", err, text)
	}
	return err
}

// Signal sends a signal; one that has ended gets none.
func (p *Process) Signal(sig syscall.Signal) { _ = p.cmd.Process.Signal(sig) }

// Kill ends the process with SIGKILL and waits until it has.
func (p *Process) Kill() {
	p.Signal(syscall.SIGKILL)
	p.drain()
}

// Wait waits for the process's end and returns how it ended; when ctx is done first, it is killed.
func (p *Process) Wait(ctx context.Context) error {
	if p.stdin != nil {
		_ = p.stdin.Close() // nothing more to tell
	}
	stop := context.AfterFunc(ctx, func() { p.Signal(syscall.SIGKILL) })
	defer stop()
	p.drain()
	if p.err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%s (pid %d) was killed: %w", p.label, p.PID(), context.Cause(ctx))
	}
	return p.ended()
}

func (p *Process) drain() {
	for range p.events { // so that it isn't held up by a full pipe
	}
	<-p.done
}

// tail keeps the last of what is written to it.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

const tailBytes = 64 << 10

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b...)
	if over := len(t.buf) - tailBytes; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf)
}
