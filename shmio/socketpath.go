package shmio

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// ErrBadBus refuses a bus name.
var ErrBadBus = errors.New("bad bus name")

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

// SocketCandidates is where everybody looks for the bus's socket, in this order: BHOME_SOCKET; $XDG_RUNTIME_DIR/bhome;
// /run/bhome; and for users without a runtime folder, who can't write to /run, a folder of their own in /tmp.
func SocketCandidates(bus string) []string {
	var paths []string
	if p := os.Getenv("BHOME_SOCKET"); p != "" {
		paths = append(paths, p)
	}
	if d := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(d) {
		paths = append(paths, filepath.Join(d, "bhome", bus+".sock"))
	}
	paths = append(paths, filepath.Join("/run/bhome", bus+".sock"))
	if uid := os.Getuid(); uid != 0 {
		paths = append(paths, filepath.Join("/tmp", "bhome-"+strconv.Itoa(uid), bus+".sock"))
	}
	return paths
}
