package shmio

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

var (
	// ErrBadBus refuses a bus name.
	ErrBadBus = errors.New("bad bus name")
	// ErrBadSocketPath refuses a path for the socket.
	ErrBadSocketPath = errors.New("bad socket path")
)

// maxSocketPath is what a sockaddr_un holds, without the NUL.
const maxSocketPath = 107

// ValidateBus says what is wrong with a bus's name: 1 to 64 letters, digits, dots, dashes and underscores, no dot first.
func ValidateBus(bus string) error {
	if len(bus) < 1 || len(bus) > 64 || bus[0] == '.' {
		return fmt.Errorf("%w %q: 1 to 64 characters, no dot first", ErrBadBus, bus)
	}
	for _, c := range []byte(bus) {
		ok := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '-' || c == '_'
		if !ok {
			return fmt.Errorf("%w %q: letters, digits, dots, dashes and underscores only", ErrBadBus, bus)
		}
	}
	return nil
}

// SocketCandidates is where everybody looks for the bus's socket, in this order: BHOME_SOCKET,
// $XDG_RUNTIME_DIR/bhome/<bus>.sock (the folder must be absolute), /run/bhome/<bus>.sock.
func SocketCandidates(bus string) []string {
	var paths []string
	if p := os.Getenv("BHOME_SOCKET"); p != "" {
		paths = append(paths, p)
	}
	if d := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(d) {
		paths = append(paths, filepath.Join(d, "bhome", bus+".sock"))
	}
	return append(paths, filepath.Join("/run/bhome", bus+".sock"))
}

// checkSocketPath refuses what no socket address holds, and abstract names, which no file mode protects.
func checkSocketPath(path string) error {
	switch {
	case path == "":
		return fmt.Errorf("%w: it is empty", ErrBadSocketPath)
	case path[0] == '@' || path[0] == 0:
		return fmt.Errorf("%w: abstract sockets are not supported", ErrBadSocketPath)
	case len(path) > maxSocketPath:
		return fmt.Errorf("%w: it has %d bytes, at most %d fit a socket address", ErrBadSocketPath, len(path), maxSocketPath)
	}
	return nil
}
