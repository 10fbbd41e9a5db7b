package shmio

import (
	"context"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// childListen listens on args[0] until it is killed.
func childListen(args []string) error {
	l, err := Listen(args[0], 0o600)
	if err != nil {
		return err
	}
	fmt.Println(l.Path())
	return nil // the listener lives on: TestMain waits for the end of input
}

func TestListenOnceOnABus(t *testing.T) {
	checkLeaks(t)
	path := filepath.Join(shortDir(t), "default.sock")
	c := startChild(t, 0, "listen", []string{path})
	c.expect(path)
	for range 2 {
		l, err := Listen(path, 0o600)
		if err == nil {
			l.Close()
			t.Fatal("two centers on one bus")
		}
		wantErr(t, err, ErrBusInUse, "process "+strconv.Itoa(c.Process.Pid), path+".lock")
	}
	conn, err := Dial(context.Background(), path) // the refused ones have broken nothing
	noErr(t, err)
	if conn.Peer().PID != int32(c.Process.Pid) {
		t.Errorf("peer %+v", conn.Peer())
	}
	noErr(t, conn.Close())
	c.kill() // and leaves its socket and its pid in the lock file
	if _, err := os.Lstat(path); err != nil {
		t.Fatal("no stale socket to be replaced:", err)
	}
	_, err = Dial(context.Background(), path)
	wantErr(t, err, unix.ECONNREFUSED, path)
	l, err := Listen(path, 0o600)
	noErr(t, err)
	_, err = Listen(path, 0o600)
	wantErr(t, err, ErrBusInUse, "process "+strconv.Itoa(os.Getpid())) // ourselves, too
	noErr(t, l.Close())
	noErr(t, l.Close())
	if _, err := os.Lstat(path); err == nil {
		t.Error("the socket is left behind")
	}
	_, err = Dial(context.Background(), path)
	wantErr(t, err, fs.ErrNotExist, path)
	l, err = Listen(path, 0o600)
	noErr(t, err)
	noErr(t, l.Close())
}

func TestListenModes(t *testing.T) {
	checkLeaks(t)
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	dir := shortDir(t)
	for mode, folder := range map[fs.FileMode]fs.FileMode{0o600: 0o700, 0o666: 0o700 /* the umask's */, 0o660: 0o700} {
		path := filepath.Join(dir, mode.String()[7:], "x", "s")
		l, err := Listen(path, mode)
		noErr(t, err)
		st, err := os.Stat(path)
		noErr(t, err)
		if st.Mode().Perm() != mode {
			t.Errorf("mode %v, want %v", st.Mode().Perm(), mode)
		}
		if st, err = os.Stat(filepath.Dir(path)); err != nil || st.Mode().Perm() != folder {
			t.Errorf("folder %v, want %v", st.Mode().Perm(), folder)
		}
		if st, err = os.Stat(path + ".lock"); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("lock file %v (%v)", st.Mode().Perm(), err)
		}
		noErr(t, l.Close())
	}
	unix.Umask(0)
	for mode, folder := range map[fs.FileMode]fs.FileMode{0o600: 0o700, 0o666: 0o755} {
		path := filepath.Join(dir, "open"+mode.String()[7:], "s")
		l, err := Listen(path, mode)
		noErr(t, err)
		if st, err := os.Stat(filepath.Dir(path)); err != nil || st.Mode().Perm() != folder {
			t.Errorf("folder %v, want %v", st.Mode().Perm(), folder)
		}
		noErr(t, l.Close())
	}
}

func TestListenRefuses(t *testing.T) {
	dir := shortDir(t)
	open := filepath.Join(dir, "open")
	noErr(t, os.Mkdir(open, 0o700))
	noErr(t, os.Chmod(open, 0o777))
	file := filepath.Join(dir, "file")
	noErr(t, os.WriteFile(file, []byte("precious"), 0o600))
	link := filepath.Join(dir, "link")
	noErr(t, os.Symlink(file, link+".lock"))
	checkLeaks(t)
	for name, c := range map[string]struct {
		path string
		want error
		says string
	}{
		"empty":          {"", ErrBadSocketPath, "empty"},
		"abstract":       {"@bus", ErrBadSocketPath, "abstract"},
		"long":           {"/tmp/" + strings.Repeat("x", 103), ErrBadSocketPath, "108 bytes, at most 107"},
		"a file":         {file, ErrBadSocketPath, "isn't a socket"},
		"open folder":    {filepath.Join(open, "s"), ErrBadSocketPath, "anybody may write"},
		"linked lock":    {link, unix.ELOOP, "lock file"},
		"file as folder": {filepath.Join(file, "s"), unix.ENOTDIR, "folder"},
	} {
		l, err := Listen(c.path, 0o600)
		if err == nil {
			l.Close()
			t.Fatalf("%s: accepted", name)
		}
		wantErr(t, err, c.want, c.says)
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "precious" {
		t.Errorf("the file is %q now (%v)", b, err)
	}
	_, err := Dial(context.Background(), "@bus")
	wantErr(t, err, ErrBadSocketPath)
}

func TestListenerCloseEndsAccept(t *testing.T) {
	checkLeaks(t)
	l, err := Listen(filepath.Join(shortDir(t), "s"), 0o600)
	noErr(t, err)
	done := make(chan error)
	go func() { _, err := l.Accept(); done <- err }()
	noErr(t, l.Close())
	wantErr(t, await(t, done, "Accept"), net.ErrClosed)
}

// One who accepts nobody, with a full backlog: Dial waits as long as it is told, and no longer.
func TestDialWaitsForTheBacklog(t *testing.T) {
	checkLeaks(t)
	path := filepath.Join(shortDir(t), "s")
	lfd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	noErr(t, err)
	defer unix.Close(lfd)
	noErr(t, unix.Bind(lfd, &unix.SockaddrUnix{Name: path}))
	noErr(t, unix.Listen(lfd, 0))
	first, err := Dial(context.Background(), path)
	noErr(t, err)
	defer first.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	_, err = Dial(ctx, path)
	wantErr(t, err, context.DeadlineExceeded, "accepts nobody")
	done := make(chan error)
	go func() {
		c, err := Dial(context.Background(), path)
		if err == nil {
			err = c.Close()
		}
		done <- err
	}()
	n, _, err := unix.Accept4(lfd, unix.SOCK_CLOEXEC)
	noErr(t, err)
	defer unix.Close(n)
	noErr(t, await(t, done, "Dial"))
}

func TestSocketCandidates(t *testing.T) {
	for _, c := range []struct {
		socket, runtime string
		want            string
	}{
		{"", "", "/run/bhome/b.sock"},
		{"", "/run/user/1", "/run/user/1/bhome/b.sock /run/bhome/b.sock"},
		{"", "relative", "/run/bhome/b.sock"},
		{"/x/y", "/run/user/1", "/x/y /run/user/1/bhome/b.sock /run/bhome/b.sock"},
	} {
		t.Setenv("BHOME_SOCKET", c.socket)
		t.Setenv("XDG_RUNTIME_DIR", c.runtime)
		if got := strings.Join(SocketCandidates("b"), " "); got != c.want {
			t.Errorf("BHOME_SOCKET=%q XDG_RUNTIME_DIR=%q: %s", c.socket, c.runtime, got)
		}
	}
}

func TestValidateBus(t *testing.T) {
	for _, ok := range []string{"default", "a", "A-b_c.9", strings.Repeat("x", 64)} {
		noErr(t, ValidateBus(ok))
	}
	for _, bad := range []string{"", ".", "..", ".hidden", "a/b", "ä", "a b", strings.Repeat("x", 65)} {
		wantErr(t, ValidateBus(bad), ErrBadBus)
	}
}
