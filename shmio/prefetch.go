package shmio

import "github.com/bhome-bus/bhome/wire"

// How many lines of a block are asked for beforehand: those behind them the processor finds out itself (docs/decisions/0030).
const (
	lineBytes     = 64
	prefetchLines = 9
)

// WillWrite asks for the first lines of mem, which is to be written soon, while there is something else to do. It changes nothing.
func WillWrite(mem []byte) {
	if n := min((len(mem)+lineBytes-1)/lineBytes, prefetchLines); n > 0 {
		prefetchWrite(&mem[0], n)
	}
}

// WillRead asks for the first lines of mem, which is to be read soon. What lies there isn't looked at.
func WillRead(mem []byte) {
	if len(mem) > 0 {
		prefetchRead(&mem[0], prefetchLines)
	}
}

// WillRead asks for the first lines of the block that w names, if it names one: it is to be read soon. What w or the block says
// isn't looked at.
func (sp *Space) WillRead(w wire.Word) {
	place, generation, ok := w.Place()
	if !ok {
		return
	}
	list := *sp.list.Load()
	for i := range list {
		e := &list[i]
		at := uint64(place) - e.base
		if at >= e.places || e.generation != generation {
			continue
		}
		if mem, off := e.seg.mem, at*placeUnit; off < uint64(len(mem)) {
			prefetchRead(&mem[off], prefetchLines)
		}
		return
	}
}
