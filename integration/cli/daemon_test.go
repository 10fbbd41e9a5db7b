package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestFirstScreen is what everybody does first: bhomed &, then bhctl procs, with no flags.
func TestFirstScreen(t *testing.T) {
	dir := t.TempDir()
	env := append(os.Environ(), "XDG_RUNTIME_DIR="+dir, "BHOME_SOCKET=")
	firstScreen(t, env, nil, filepath.Join(dir, "bhome", "default.sock"))
}

// aUser is somebody who is not root.
const aUser = 61234

// TestFirstScreenAsUser is the same as an ordinary user with the runtime folder that a login session has.
func TestFirstScreenAsUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can become another user")
	}
	dir, err := os.MkdirTemp("", "bhome-user-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chown(dir, aUser, aUser); err != nil {
		t.Fatal(err)
	}
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "XDG_RUNTIME_DIR=" + dir}
	firstScreen(t, env, &syscall.Credential{Uid: aUser, Gid: aUser}, filepath.Join(dir, "bhome", "default.sock"))
}

// TestUserWithoutRuntimeFolderIsToldWhatToDo: without a place for the socket the message says how to give it one, and that
// works.
func TestUserWithoutRuntimeFolderIsToldWhatToDo(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can become another user")
	}
	cmd := exec.Command(filepath.Join(binDir(), "bhomed"))
	cmd.Env, cmd.Dir = []string{"PATH=" + os.Getenv("PATH")}, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: aUser, Gid: aUser}}
	r := finish(t, cmd)
	for _, want := range []string{"/run/bhome/default.sock", "XDG_RUNTIME_DIR", "--socket", "BHOME_SOCKET"} {
		if r.code != 1 || !strings.Contains(r.stderr, want) || strings.Count(r.stderr, "\n") != 1 {
			t.Errorf("status %d, %s; want status 1 and one line with %s", r.code, r.stderr, want)
		}
	}
}

func firstScreen(t *testing.T, env []string, as *syscall.Credential, socket string) {
	change := func(cmd *exec.Cmd) {
		cmd.Env, cmd.Dir = env, "/"
		if as != nil {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as}
		}
	}
	b := &bus{t: t, socket: socket}
	b.start(nil, change)
	ready := b.log.until(t, "ready")
	for _, want := range []string{"bus=default", "socket=" + socket, fmt.Sprintf("pid=%d", b.cmd.Process.Pid), "limit_bus="} {
		if !strings.Contains(ready, want) {
			t.Errorf("the ready line lacks %q: %s", want, ready)
		}
	}
	cmd := exec.Command(filepath.Join(binDir(), "bhctl"), "procs")
	change(cmd)
	r := finish(t, cmd)
	if r.code != 0 || !strings.HasPrefix(r.stdout, "NAME ") {
		t.Errorf("bhctl procs: status %d, %s%s", r.code, r.stdout, r.stderr)
	}
	if _, err := b.stop(); err != nil {
		t.Errorf("bhomed ended with %v", err)
	}
	if _, err := os.Stat(socket); !os.IsNotExist(err) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func TestSecondInstanceIsRefused(t *testing.T) {
	b := startBus(t)
	r := finish(t, exec.Command(filepath.Join(binDir(), "bhomed"), "--socket", b.socket))
	if r.code != 1 || !strings.Contains(r.stderr, fmt.Sprint(b.cmd.Process.Pid)) || !strings.Contains(r.stderr, b.socket) {
		t.Errorf("status %d, %s; want status 1, the pid %d and the socket", r.code, r.stderr, b.cmd.Process.Pid)
	}
	b.ok("", "procs") // the first goes on
}

func TestSecondBeginsWhereTheFirstWasKilled(t *testing.T) {
	b := startBus(t)
	if err := b.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-b.ended
	c := &bus{t: t, socket: b.socket}
	c.start([]string{"--socket", b.socket}, nil)
	c.log.until(t, "ready")
	c.ok("", "procs")
}

func TestSignalsEndItCleanly(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		b := startBus(t, "--log-json")
		p := b.spawn("sub", "a", "--name", "someone") // somebody is there: that doesn't hold it up
		p.err.until(t, "subscribed")
		start := time.Now()
		if err := b.cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		<-b.ended
		if b.err != nil || time.Since(start) > 10*time.Second {
			t.Errorf("%v: ended with %v after %v", sig, b.err, time.Since(start))
		}
		stopped := false
		for _, line := range b.log.rest() {
			var entry map[string]any
			if err := json.Unmarshal([]byte(line), &entry); err != nil {
				t.Errorf("a line of the log isn't JSON: %v: %s", err, line)
			}
			stopped = stopped || entry["@message"] == "stopped"
		}
		if !stopped {
			t.Errorf("%v: the log doesn't say that it stopped", sig)
		}
		if r := b.ctl("", "procs"); r.code != 3 || !strings.Contains(r.stderr, b.socket) {
			t.Errorf("bhctl without a daemon: status %d, %s", r.code, r.stderr)
		}
	}
}

func TestEventsAreLoggedOnOneLine(t *testing.T) {
	b := startBus(t, "--log-level", "debug")
	p := b.spawn("sub", "a", "--name", "someone")
	p.err.until(t, "subscribed")
	if line := b.log.until(t, "someone"); !strings.Contains(line, fmt.Sprint(p.cmd.Process.Pid)) {
		t.Errorf("who came isn't told with its pid: %s", line)
	}
	_ = p.cmd.Process.Kill()
	_ = p.end(t)
	b.log.until(t, "someone")
}

func TestConfigFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "bhomed.toml")
	socket := filepath.Join(dir, "s")
	if err := os.WriteFile(file, []byte(fmt.Sprintf("bus = \"lab\"\nsocket = %q\nsocket_mode = \"0600\"\n[limits]\nnode = \"8MiB\"\n", socket)), 0o600); err != nil {
		t.Fatal(err)
	}
	b := &bus{t: t, socket: socket}
	b.start([]string{"-c", file}, nil)
	b.log.until(t, "bus=lab")
	if fi, err := os.Stat(socket); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", fi, err)
	}
	b.ok("", "procs")
	r := b.ctl("", "pub", "big", "--file", "/proc/self/exe")
	if r.code != 1 || !strings.Contains(r.stderr, "limit") {
		t.Errorf("more than the node's limit: status %d, %s", r.code, r.stderr)
	}
	if err := os.WriteFile(file, []byte("bus = \"lab\"\n[limits]\nnodes = 3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r = finish(t, exec.Command(filepath.Join(binDir(), "bhomed"), "-c", file))
	if want := file + `:3: unknown key "limits.nodes"; did you mean "limits.node"?`; r.code != 2 || !strings.Contains(r.stderr, want) {
		t.Errorf("status %d, %s; want %s", r.code, r.stderr, want)
	}
}
