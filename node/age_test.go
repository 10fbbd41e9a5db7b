package node

import (
	"testing"
	"time"

	"github.com/bhome-bus/bhome/wire"
)

// What a topic keeps, which is in blocks, may be of any age; an inline record's is told up to 24 days, and a stamp of the future is of now.
func TestAge(t *testing.T) {
	const day = 24 * time.Hour
	for _, c := range []struct{ sent, at, want time.Duration }{
		{5 * day, 5 * day, 0}, {5*day + time.Hour, 5 * day, 0}, {day, 2 * day, day}, {day, 31 * day, 30 * day}, {day, 91 * day, 90 * day},
	} {
		var m received
		m.rec.Word = 64 << 4
		m.found(nil, 1, 0, uint64(c.sent), 1, wire.KindPublish)
		if got := m.ageAt(uint64(c.at)); got != c.want {
			t.Errorf("a block sent at %v is at %v %v old, want %v", c.sent, c.at, got, c.want)
		}
		if c.want > 24*day {
			continue
		}
		m.rec.Head = wire.NewInlineHead(wire.KindPublish, 1, 1, uint32(c.sent/time.Millisecond))
		m.rec.Word = m.rec.Head.First
		if got := m.ageAt(uint64(c.at)); got != c.want {
			t.Errorf("an inline record sent at %v is at %v %v old, want %v", c.sent, c.at, got, c.want)
		}
	}
}
