// Package terminal says what the standard streams are connected to.
package terminal

import (
	"os"

	"golang.org/x/sys/unix"
)

// Is says whether f is a terminal that understands colours and cursor movement: TERM isn't dumb and NO_COLOR isn't set.
func Is(f *os.File) bool {
	if os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// Width is how many columns the terminal f has; 0 if f is none.
func Width(f *os.File) int {
	ws, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	return int(ws.Col)
}
