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

// WillRead asks for the first lines of a block that was looked up, which is to be read soon. What lies there isn't looked at.
func (r *Record) WillRead() {
	if len(r.Payload) > 0 && r.IsBlock() {
		prefetchRead(&r.Payload[0])
	}
}

// WillRead asks for the first lines of the block that w names, if it names one: it is to be read soon. What w or the block says
// isn't looked at.
func (sp *Space) WillRead(w wire.Word) {
	place, generation, ok := w.Place()
	if !ok {
		return
	}
	if e, off := find(*sp.list.Load(), place, generation); e != nil && off < uint64(len(e.seg.mem)) {
		prefetchRead(&e.seg.mem[off])
	}
}
