// Package deaths kills and stops real processes: what was sent still arrives, and whoever waits is told.
package deaths

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bhome-bus/bhome/node"
)

// patience bounds what must happen at all; nothing is measured against it.
const patience = 60 * time.Second

// roleEnv makes this test binary play a part instead of testing: name of the part, then its socket.
const roleEnv = "BHOME_DEATHS_ROLE"

func TestMain(m *testing.M) {
	if role := os.Getenv(roleEnv); role != "" {
		if err := play(role, os.Getenv("BHOME_SOCKET")); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(withDaemon(m.Run))
}

// daemonEnv is where TestMain has built bhomed.
const daemonEnv = "BHOME_DEATHS_DAEMON"

// withDaemon builds bhomed for all tests.
func withDaemon(run func() int) int {
	dir, err := os.MkdirTemp("", "bhome-deaths-")
	if err == nil {
		defer os.RemoveAll(dir)
		err = os.Setenv(daemonEnv, filepath.Join(dir, "bhomed"))
	}
	if err == nil {
		var out []byte
		if out, err = exec.Command("go", "build", "-o", os.Getenv(daemonEnv), "github.com/bhome-bus/bhome/cmd/bhomed").CombinedOutput(); err != nil {
			err = fmt.Errorf("%w\n%s", err, out)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "build bhomed:", err)
		return 1
	}
	return run()
}

// play is what the other processes do. They report on standard output and end with standard input.
func play(role, socket string) error {
	ctx := context.Background()
	if role == "starter" {
		return starter(ctx, socket)
	}
	cfg := node.Config{Name: role, Socket: socket}
	if role == "taker" {
		cfg.Name, cfg.Takeover = "cam", true
	}
	n, err := node.Attach(ctx, cfg)
	if err != nil {
		return err
	}
	switch role {
	case "sleeper":
		return sleeper(ctx, n)
	case "holder":
		return holder(ctx, n)
	case "cam", "taker":
		go func() {
			<-n.Done()
			fmt.Println("displaced:", errors.Is(n.Err(), node.ErrDisplaced))
		}()
	case "keeper":
		var s *node.Subscription
		if s, err = n.Subscribe(ctx, "t", node.Depth(16), node.Hold(16)); err == nil {
			fmt.Println("ready")
			for range 10 {
				if _, err = s.Receive(ctx); err != nil {
					return err
				}
			}
			fmt.Println("holds 10")
		}
	case "provider":
		_, err = n.Serve(ctx, "slow", func(ctx context.Context, _ *node.Request) ([]byte, error) {
			fmt.Println("in hand")
			<-ctx.Done()
			return nil, ctx.Err()
		})
	case "publisher":
		var p *node.Publisher
		if p, err = n.Publisher(ctx, "t", node.AllowBlock(time.Minute)); err == nil {
			if err = p.WaitForSubscribers(ctx, 1); err == nil {
				for i := range 50 {
					if err = p.Publish(ctx, numbered(1000, i)); err != nil {
						return err
					}
				}
			}
		}
	case "streamer":
		var p *node.Publisher
		if p, err = n.Publisher(ctx, "t", node.AllowBlock(time.Minute)); err == nil {
			err = p.WaitForSubscribers(ctx, 1)
		}
		fmt.Println("ready")
		in := bufio.NewScanner(os.Stdin) // a line: so many more messages
		for next := 0; err == nil && in.Scan(); {
			more, aerr := strconv.Atoi(in.Text())
			if aerr != nil {
				return aerr
			}
			for range more {
				if err = p.Publish(ctx, numbered(500, next)); err != nil {
					return err
				}
				next++
			}
			fmt.Println("sent", next)
		}
		return err
	case "subscriber":
		var s *node.Subscription
		if s, err = n.Subscribe(ctx, "t", node.Depth(16)); err == nil {
			fmt.Println("ready")
			for m := range s.Messages(ctx) {
				fmt.Println("got", binary.NativeEndian.Uint64(m.Bytes()))
				if err := m.Release(); err != nil {
					return err
				}
			}
		}
	}
	if err != nil {
		return err
	}
	fmt.Println("ready")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

func numbered(size, i int) []byte {
	b := make([]byte, size)
	binary.NativeEndian.PutUint64(b, uint64(i))
	return b
}

// process is another process, to be read line by line.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines chan string
}

func start(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, cmd: cmd, in: in, lines: make(chan string, 4096)}
	go func() {
		defer close(p.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			p.lines <- s.Text()
		}
	}()
	t.Cleanup(p.kill)
	return p
}

// kill ends it with SIGKILL, and waits for that.
func (p *process) kill() {
	if p.cmd.ProcessState == nil {
		_ = p.cmd.Process.Kill() // it may have ended
		_ = p.cmd.Wait()         // by the signal
	}
}

// next is the next line; the test fails if there is none in time.
func (p *process) next() string {
	p.t.Helper()
	select {
	case l, ok := <-p.lines:
		if !ok {
			p.t.Fatal("the process has ended")
		}
		return l
	case <-time.After(patience):
		p.t.Fatal("the process says nothing")
	}
	return ""
}

func (p *process) until(line string) {
	p.t.Helper()
	for p.next() != line {
	}
}

func role(t *testing.T, name, socket string) *process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), roleEnv+"="+name, "BHOME_SOCKET="+socket)
	return start(t, cmd)
}

// daemon runs bhomed on a socket of the test's own.
type daemon struct {
	*process
	socket string
	args   []string
}

func newDaemon(t *testing.T, args ...string) *daemon {
	t.Helper()
	d := &daemon{socket: filepath.Join(t.TempDir(), "bus.sock"), args: args}
	d.run(t)
	return d
}

// run starts it and waits until it listens.
func (d *daemon) run(t *testing.T) {
	t.Helper()
	d.process = start(t, exec.Command(os.Getenv(daemonEnv), append([]string{"--socket", d.socket, "--log-level", "error"}, d.args...)...))
	deadline := time.Now().Add(patience)
	for {
		n, err := node.Attach(t.Context(), node.Config{Name: "waits", Socket: d.socket, Inspect: true})
		if err == nil {
			if err := n.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		<-time.After(5 * time.Millisecond) // there is no event before the socket is there
	}
}

func attach(t *testing.T, d *daemon, name string) *node.Node {
	t.Helper()
	n, err := node.Attach(t.Context(), node.Config{Name: name, Socket: d.socket})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := n.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return n
}

// state is the letter in /proc/<pid>/stat.
func state(t *testing.T, pid int) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))[0]
}
