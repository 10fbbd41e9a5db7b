package shmio

import "github.com/bhome-bus/bhome/wire"

// How many lines of a block are asked for before it is written: those behind them the processor finds out itself (docs/decisions/0030).
// Before it is read they are up to 17 (prefetchRead; docs/decisions/0033).
const (
	lineBytes  = 64
	writeLines = 9
)

// WillWrite asks for the first lines of mem, which is to be written soon, while there is something else to do. It changes nothing.
func WillWrite(mem []byte) {
	if n := min((len(mem)+lineBytes-1)/lineBytes, writeLines); n > 0 {
		prefetchWrite(&mem[0], n)
	}
}

// WillRead asks for the first lines of a block that was looked up and whose payload is likely of so many bytes: it is to be read soon. What
// lies there isn't looked at.
func (r *Record) WillRead(size int) {
	if len(r.Payload) > 0 && r.IsBlock() {
		willRead(r.Payload, size)
	}
}

// WillRead is Record.WillRead of the block that w names, if it names one. What w says isn't looked at.
func (sp *Space) WillRead(w wire.Word, size int) {
	place, generation, ok := w.Place()
	if !ok {
		return
	}
	if e, off := find(*sp.list.Load(), place, generation); e != nil && off < uint64(len(e.seg.mem)) {
		willRead(e.seg.mem[off:], size)
	}
}

func willRead(mem []byte, size int) {
	prefetchRead(&mem[0], (wire.HeaderSize+size+lineBytes-1)/lineBytes)
}
