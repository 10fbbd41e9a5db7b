package daemon

import (
	"fmt"
	"net"
	"os"
	"strings"
)

// notify tells whoever started the daemon (systemd's Type=notify, or bhctl with a bus of its own) how it is doing, if
// NOTIFY_SOCKET says that it wants to hear.
func notify(state string) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	if name, ok := strings.CutPrefix(path, "@"); ok { // the abstract namespace
		path = "\x00" + name
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("notify: %w", err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(state)); err != nil {
		return fmt.Errorf("notify: %w", err)
	}
	return nil
}
