package soak

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/bhome-bus/bhome/cmd/internal/listing"
	"github.com/bhome-bus/bhome/cmd/internal/units"
)

// Print writes the summary for people. again is the command that does the same once more.
func (s Summary) Print(w io.Writer, again string) error {
	var b strings.Builder
	line := func(key, format string, args ...any) {
		fmt.Fprintf(&b, "%-22s%s\n", key+":", fmt.Sprintf(format, args...))
	}
	line("seed", "%d", s.Seed)
	line("time", "%.1f s, %d rounds", s.Seconds, s.Rounds)
	line("published", "%s messages (%s), %s sends refused", units.HumanCount(s.Published), units.HumanBytes(s.PublishedB), units.HumanCount(s.Refused))
	line("received", "%s messages (%s), %s/s", units.HumanCount(s.Received), units.HumanBytes(s.ReceivedB), units.HumanCount(uint64(float64(s.Received)/s.Seconds)))
	line("requests", "%s: %s replies, %s errors as they should be", units.HumanCount(s.Requests), units.HumanCount(s.Replies), units.HumanCount(s.ClearErrors))
	line("kills", "%d, %.1f a minute", s.Kills(), float64(s.Kills())/s.Seconds*60)
	for _, act := range slices.Sorted(maps.Keys(s.Acts)) {
		line("  "+act, "%d", s.Acts[act])
	}
	line("compared", "%d pairs of publisher and subscription", s.Pairs)
	line("looks at the bus", "%d", s.Looks)
	for _, g := range []struct {
		name string
		Growth
	}{{"bhomed", s.Center}, {"who lived throughout", s.Members}} {
		line(g.name, "at most %d descriptors (first %d), %s (first %s), %d threads", g.Descriptors, g.FirstDescriptors,
			units.HumanBytes(g.Private), units.HumanBytes(g.FirstPrivate), g.Threads)
	}
	for _, f := range s.Faults {
		fmt.Fprintf(&b, "FAULT %s\n", listing.Clean(f))
	}
	if !s.OK() {
		fmt.Fprintf(&b, "again: %s\n", again)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
