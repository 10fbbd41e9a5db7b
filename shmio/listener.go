package shmio

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// maxSocketPath is what a sockaddr_un holds, without the NUL.
const maxSocketPath = 107

// Listen makes the socket at path with that mode, and its folder (0755; 0700 in /tmp) if there is none. Only one center
// can: the lock beside the socket tells. A socket left by a dead center is replaced. Errors: ErrBusInUse.
func Listen(path string, mode fs.FileMode) (*Listener, error) {
	l, err := listen(path, mode)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return l, nil
}

func listen(path string, mode fs.FileMode) (*Listener, error) {
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("the path has %d bytes, at most %d fit a socket address", len(path), maxSocketPath)
	}
	if err := makeFolder(filepath.Dir(path)); err != nil {
		return nil, err
	}
	lock, err := lockFile(path + ".lock")
	if err != nil {
		return nil, err
	}
	// We have the lock: whatever socket is there, nobody listens on it.
	if st, err := os.Lstat(path); err == nil && st.Mode()&fs.ModeSocket == 0 {
		_ = lock.Close()
		return nil, fmt.Errorf("there is something that isn't a socket (%v)", st.Mode())
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		_ = lock.Close()
		return nil, fmt.Errorf("remove the old socket: %w", err)
	}
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		_ = lock.Close()
		return nil, err
	}
	if err := os.Chmod(path, mode); err != nil {
		_ = l.Close()
		_ = lock.Close()
		return nil, fmt.Errorf("set the socket's mode: %w", err)
	}
	return &Listener{l: l, lock: lock, path: path}, nil
}

// makeFolder makes the socket's folder. One in /tmp is only used if it is ours alone: anybody could have made it.
func makeFolder(dir string) error {
	private := filepath.Dir(dir) == "/tmp"
	mode := fs.FileMode(0o755)
	if private {
		mode = 0o700
	}
	if err := os.MkdirAll(dir, mode); err != nil {
		return fmt.Errorf("make the socket's folder: %w", err)
	}
	if !private {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return fmt.Errorf("look at %s: %w", dir, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != os.Getuid() || st.Mode&0o022 != 0 {
		return fmt.Errorf("%s isn't a folder of our own that only we can write; remove it or choose another socket", dir)
	}
	return nil
}
