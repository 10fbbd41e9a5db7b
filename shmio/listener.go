package shmio

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Listener is a center's socket, with the lock that makes it the only one. Safe for concurrent use.
type Listener struct {
	l    *net.UnixListener
	lock *os.File
	path string

	once sync.Once
	err  error // of the first Close
}

// Listen makes the socket at path with that mode, and its folder if there is none (0755 if others may use the socket,
// else 0700). Only one center can: the lock file beside the socket tells, and names the process that has it. A socket
// left by a dead center is replaced. Errors: ErrBusInUse, ErrBadSocketPath, os.ErrPermission.
func Listen(path string, mode fs.FileMode) (*Listener, error) {
	l, err := listen(path, mode.Perm())
	if err != nil {
		return nil, fmt.Errorf("listen on %q: %w", path, err)
	}
	return l, nil
}

func listen(path string, mode fs.FileMode) (_ *Listener, err error) {
	if err := checkSocketPath(path); err != nil {
		return nil, err
	}
	if err := makeFolder(filepath.Dir(path), mode); err != nil {
		return nil, err
	}
	lock, err := lockFile(path + ".lock")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = lock.Close() // the error that matters is err
		}
	}()
	// We have the lock: whatever socket is there, nobody listens on it.
	if st, err := os.Lstat(path); err == nil && st.Mode()&fs.ModeSocket == 0 {
		return nil, fmt.Errorf("%w: there is something that isn't a socket (%v)", ErrBadSocketPath, st.Mode())
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove the old socket: %w", err)
	}
	// A socket's mode is that of its descriptor when it is bound, less the umask: it is never more open than mode.
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var cerr error
		if err := raw.Control(func(fd uintptr) { cerr = unix.Fchmod(int(fd), uint32(mode)) }); err != nil {
			return err
		}
		return cerr
	}}
	l, err := lc.Listen(context.Background(), "unixpacket", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, mode); err != nil { // and not less open either
		_ = l.Close() // the error that matters is err
		return nil, fmt.Errorf("set the socket's mode: %w", err)
	}
	return &Listener{l: l.(*net.UnixListener), lock: lock, path: path}, nil
}

// makeFolder makes the socket's folder. It refuses one in which anybody could put a socket in the place of ours.
func makeFolder(dir string, socket fs.FileMode) error {
	mode := fs.FileMode(0o700)
	if socket&0o077 != 0 {
		mode = 0o755
	}
	if err := os.MkdirAll(dir, mode); err != nil {
		return fmt.Errorf("make the socket's folder: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return fmt.Errorf("look at %s: %w", dir, err)
	}
	if st.Mode&0o002 != 0 && st.Mode&unix.S_ISVTX == 0 {
		return fmt.Errorf("%w: anybody may write to the folder %s, and replace the socket", ErrBadSocketPath, dir)
	}
	return nil
}

// Path is where it listens.
func (l *Listener) Path() string { return l.path }

// Accept waits for a connection; net.ErrClosed after Close.
func (l *Listener) Accept() (*Conn, error) {
	c, err := l.l.AcceptUnix()
	if err != nil {
		return nil, fmt.Errorf("accept: %w", err)
	}
	return newConn(c)
}

// Close removes the socket, then lets go of the lock. The lock file stays, empty: see lockFile. Idempotent.
func (l *Listener) Close() error {
	l.once.Do(func() {
		err := l.l.Close()     // it unlinks the socket
		_ = l.lock.Truncate(0) // so that nobody takes our pid for the next holder's
		if err = errors.Join(err, l.lock.Close()); err != nil {
			l.err = fmt.Errorf("stop listening on %s: %w", l.path, err)
		}
	})
	return l.err
}
