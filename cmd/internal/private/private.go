// Package private runs a bus of its own for bench, demo and soak: a bhomed in a temporary folder, gone without a trace
// after.
package private

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/bhome-bus/bhome/cmd/internal/child"
)

// Bus is a running private bus. Its methods are for one goroutine.
type Bus struct {
	Name    string
	Socket  string
	dir     string
	program string
	args    []string
	daemon  *child.Process
	ended   bool // the daemon has, by End
}

// stopTimeout bounds the daemon's clean end; then it is killed.
const stopTimeout = 10 * time.Second

// FindDaemon finds bhomed: beside the program self, else in PATH. The error names both places.
func FindDaemon(self string) (string, error) {
	if real, err := filepath.EvalSymlinks(self); err == nil {
		self = real
	}
	beside := filepath.Join(filepath.Dir(self), "bhomed")
	if fi, err := os.Stat(beside); err == nil && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0 {
		return beside, nil
	}
	path, err := exec.LookPath("bhomed")
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return "", fmt.Errorf("no bhomed to start: it is neither beside this program (%s) nor in PATH (%s); build it with: go build -o %s ./cmd/bhomed",
			beside, os.Getenv("PATH"), filepath.Dir(beside))
	}
	return path, nil
}

// Start runs bhomed, found by FindDaemon(self), on a bus of that name in a temporary folder, with args besides. It returns
// once the daemon is ready. The caller closes the bus.
func Start(ctx context.Context, self, name string, args ...string) (bus *Bus, err error) {
	program, err := FindDaemon(self)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "bhome-"+name+"-")
	if err != nil {
		return nil, fmt.Errorf("private bus: %w", err)
	}
	b := &Bus{Name: name, Socket: filepath.Join(dir, "bus.sock"), dir: dir, program: program}
	b.args = append([]string{"--bus", name, "--socket", b.Socket}, args...)
	if err := b.Run(ctx); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

// Run starts the daemon again on the same socket, after End. It returns once the daemon is ready.
func (b *Bus) Run(ctx context.Context) error {
	// The daemon says that it is ready the way it tells systemd.
	path := filepath.Join(b.dir, "ready")
	ready, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("private bus: %w", err)
	}
	defer os.Remove(path) // for the next one; what a datagram socket leaves is its name
	defer ready.Close()
	daemon, err := child.Spawn("bhomed", b.program, b.args, "NOTIFY_SOCKET="+ready.LocalAddr().String())
	if err != nil {
		return err
	}
	b.daemon, b.ended = daemon, false
	// Whatever ends the waiting ends the read.
	bound, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-b.daemon.Done():
			cancel(b.daemon.Wait(ctx))
		case <-bound.Done():
		}
	}()
	stop := context.AfterFunc(bound, func() { _ = ready.SetReadDeadline(time.Now()) })
	defer stop()
	buf := make([]byte, 4096)
	for {
		n, err := ready.Read(buf)
		if err != nil {
			if cause := context.Cause(bound); cause != nil {
				err = cause
			}
			return fmt.Errorf("wait for bhomed to be ready: %w", err)
		}
		if strings.Contains(string(buf[:n]), "READY=1") {
			return nil
		}
	}
}

// PID is the daemon's.
func (b *Bus) PID() int { return b.daemon.PID() }

// Log is the last that the daemon logged.
func (b *Bus) Log() string { return b.daemon.Stderr() }

// Dir is the bus's folder, which Close removes: for what belongs to the bus.
func (b *Bus) Dir() string { return b.dir }

// Signal sends the daemon a signal.
func (b *Bus) Signal(sig syscall.Signal) { b.daemon.Signal(sig) }

// End ends the daemon: with SIGTERM cleanly, or with SIGKILL, and returns once it has ended. After SIGTERM an end that wasn't
// clean is an error.
func (b *Bus) End(sig syscall.Signal) error {
	b.daemon.Signal(sig)
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	b.ended = true
	if err := b.daemon.Wait(ctx); err != nil && sig != syscall.SIGKILL {
		return err
	}
	return nil
}

// Done is closed when the daemon has ended.
func (b *Bus) Done() <-chan struct{} { return b.daemon.Done() }

// Close ends the daemon and removes its folder. An end that wasn't clean is an error.
func (b *Bus) Close() error {
	var err error
	if b.daemon != nil && !b.ended {
		err = b.End(syscall.SIGTERM)
	}
	return errors.Join(err, os.RemoveAll(b.dir))
}
