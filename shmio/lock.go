package shmio

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrBusInUse says that another center has the bus.
var ErrBusInUse = errors.New("the bus is in use")

// lockFile takes the lock that makes a center the only one of its bus. The file stays: unlinking it would let two
// processes lock two files of the same name. Nobody else may open it, since whoever can read a file can lock it.
func lockFile(path string) (_ *os.File, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock file: %w", err)
	}
	defer func() {
		if err != nil {
			_ = f.Close() // the error that matters is err
		}
	}()
	switch err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK):
		return nil, fmt.Errorf("%w: %s holds %s; stop it, or choose another bus", ErrBusInUse, lockHolder(f), path)
	case err != nil:
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	if err := f.Truncate(0); err != nil {
		return nil, fmt.Errorf("empty %s: %w", path, err)
	}
	if _, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); err != nil {
		return nil, fmt.Errorf("write our pid to %s: %w", path, err)
	}
	return f, nil
}

// lockHolder is the holder's own word.
func lockHolder(f *os.File) string {
	b, err := io.ReadAll(io.LimitReader(f, 32))
	pid, perr := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || perr != nil {
		return "another process" // it has only just taken it
	}
	return fmt.Sprintf("process %d", pid)
}
