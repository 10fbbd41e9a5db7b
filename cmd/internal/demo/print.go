package demo

import (
	"fmt"
	"io"
	"strings"

	"github.com/bhome-bus/bhome/cmd/internal/listing"
	"github.com/bhome-bus/bhome/cmd/internal/units"
)

// Print writes the summary for people.
func (s Summary) Print(w io.Writer) error {
	var b strings.Builder
	line := func(key, format string, args ...any) {
		fmt.Fprintf(&b, "%-18s%s\n", key+":", fmt.Sprintf(format, args...))
	}
	line("files", "%s in the tree, %s published, %s delivered and checked", units.HumanCount(uint64(s.Files)), units.HumanCount(s.Published), units.HumanCount(s.Delivered))
	line("bytes", "%s (%s)", units.HumanCount(s.Bytes), units.HumanBytes(s.Bytes))
	line("messages/s", "%s (%s/s) over %.2f s", units.HumanCount(uint64(s.MsgsPerSec)), units.HumanBytes(uint64(s.BytesPerSec)), s.Seconds)
	line("latency", "%v", s.Latency)
	line("requests", "%s", units.HumanCount(s.Requests))
	line("request latency", "%v", s.RequestLatency)
	line("killed", "%d, gone after %.1f ms", s.Killed, s.GoneAfterMs)
	line("corrupt", "%d", s.Corrupted)
	line("leaked", "%d", s.Leaked)
	for _, f := range s.Faults {
		fmt.Fprintf(&b, "FAULT %s\n", listing.Clean(f))
	}
	_, err := io.WriteString(w, b.String())
	return err
}
