package actors

import (
	"testing"

	"github.com/bhome-bus/bhome/shmio"
	"github.com/bhome-bus/bhome/wire"
)

// The halves of a link lie beside one another within their part of the link segment, and begin in few pages: those are what an
// idle node costs.
func TestLinkLayout(t *testing.T) {
	type span struct{ from, to uint64 }
	var all []span
	pages := map[uint64]bool{0: true} // the header
	add := func(i int, size, head uint64) {
		from := halfOffset(i)
		if from%128 != 0 || from < linkHalvesAt || from+size > linkBlocks {
			t.Errorf("half %d is at %d, %d bytes", i, from, size)
		}
		for _, s := range all {
			if from < s.to && s.from < from+size {
				t.Errorf("half %d at %d overlaps [%d, %d)", i, from, s.from, s.to)
			}
		}
		all = append(all, span{from, from + size})
		for at := from; at < from+head; at++ {
			pages[at/pageBytes] = true
		}
	}
	for q := range wire.SocketCount {
		add(q, shmio.LinkSpec(q).WriterSize(), 640+64)
	}
	for i := range upQueues {
		add(wire.SocketCount+i, shmio.LinkSpec(upQueue(i)).ReaderSize(), shmio.LinkSpec(upQueue(i)).ReaderSize())
	}
	if len(pages) > 3 {
		t.Errorf("the header and the halves begin in %d pages", len(pages))
	}
}
