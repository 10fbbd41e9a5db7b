package shmio

import "github.com/bhome-bus/bhome/wire"

// Push stages a block: word is its message word, size its payload bytes. Sent: it is out until h.Returned (h may be
// nil). Every other outcome leaves it the caller's. Dropping what is older calls that one's Returned from here.
func (w *Writer) Push(word wire.Word, size uint64, h Held) Outcome {
	if word.IsCommand() {
		panic("shmio: Push of a command word")
	}
	if n := (need{slots: 1, block: true, size: size}); !w.fits(n) || w.ended {
		if o := w.room(n); o != Sent {
			return o
		}
	}
	w.ring[w.tail&uint64(w.spec.Slots-1)] = uint64(word)
	w.out.put(w.tail, uint64(word), size, h)
	w.pushed(1)
	return Sent
}

// PushInline stages a message that travels inside the ring; the payload is copied. in.Len is ignored: payload says it.
// TooLarge: it needs a block.
func (w *Writer) PushInline(in wire.Inline, payload []byte) Outcome {
	return w.pushInline(&in, payload)
}

func (w *Writer) pushInline(in *wire.Inline, payload []byte) Outcome {
	if len(payload) > wire.MaxInline {
		return TooLarge
	}
	in.Len = len(payload)
	slots := uint64(in.Slots())
	if slots > w.recordLimit {
		return TooLarge
	}
	w.willPush(slots)
	if n := (need{slots: slots}); !w.fits(n) || w.ended {
		if o := w.room(n); o != Sent {
			return o
		}
	}
	mask := uint64(w.spec.Slots - 1)
	at := w.tail & mask
	var n uint64
	if !in.HasCorr && !in.HasTrace && at+slots <= uint64(len(w.ring)) { // what most messages are, in one piece
		record := w.ring[at : at+slots]
		record[slots-1] = 0 // no stale bytes behind the payload
		h := in.Head()
		record[0], record[1] = uint64(h.First), h.Meta
		copy(w.bytes[(at+2)*8:], payload)
		w.pushed(slots)
		return Sent
	}
	if at+wire.MaxInlineHead <= uint64(len(w.ring)) {
		n = uint64(in.PutWords(w.ring[at:]))
	} else {
		var head [wire.MaxInlineHead]uint64
		n = uint64(in.PutWords(head[:]))
		for i := range n {
			w.ring[(at+i)&mask] = head[i]
		}
	}
	if len(payload) > 0 {
		if len(payload)%8 != 0 {
			w.ring[(at+slots-1)&mask] = 0 // no stale bytes behind the payload
		}
		from := (at + n) & mask * 8
		if k := copy(w.bytes[from:], payload); k < len(payload) {
			copy(w.bytes, payload[k:])
		}
	}
	w.pushed(slots)
	return Sent
}

// willPush asks for the lines that a record of so many slots at tail will lie in, all at once: they have to come from the reader's core, and
// stores wait for them one after the other.
func (w *Writer) willPush(slots uint64) {
	const words = lineBytes / 8
	at := w.tail & uint64(len(w.ring)-1) &^ (words - 1)
	if at+words <= uint64(len(w.ring)) {
		prefetchWrite(&w.bytes[at*8], int(w.tail%words+slots+words-1)/words)
	}
}

// pushed counts a message that lies at tail.
func (w *Writer) pushed(slots uint64) {
	w.tail += slots
	w.unread++
	w.lengths.add(uint32(slots), 1)
	w.sent++
}

// PushCommand stages a command word other than Inline. It takes a slot like a message and is never out.
func (w *Writer) PushCommand(word wire.Word) Outcome {
	if !word.IsCommand() || word.Cmd() == wire.CmdInline {
		panic("shmio: PushCommand of a word that is none")
	}
	if n := (need{slots: 1}); !w.fits(n) || w.ended {
		if o := w.room(n); o != Sent {
			return o
		}
	}
	w.ring[w.tail&uint64(w.spec.Slots-1)] = uint64(word)
	w.pushed(1)
	return Sent
}

// Commit shows the reader all that was staged, with one store, and rings its bell if it sleeps: once for each time that
// it fell asleep.
func (w *Writer) Commit() {
	w.publish()
	w.saveStats()
	if !w.unrung || w.peer == nil {
		return
	}
	w.unrung = false
	w.at("armed")
	e := w.peer.armed.Load() // pairs with Reader.Arm: it stores armed, then loads tail
	if e != 0 && e != w.rungFor {
		w.rungFor = e
		if w.bell != nil {
			w.bell.Ring(uint32(w.spec.ID))
		}
	}
}

// publish stores tail if it moved.
func (w *Writer) publish() {
	if w.tail == w.published {
		return
	}
	w.at("tail")
	w.published = w.tail
	w.unrung = true
	w.half.tail.Store(w.tail) // pairs with Reader.load: the slots before it are written
}

func (w *Writer) saveStats() {
	if w.sentSaid != w.sent {
		w.sentSaid = w.sent
		storeStat(&w.half.sent, w.sent)
	}
	if w.droppedSaid != w.dropped {
		w.droppedSaid = w.dropped
		storeStat(&w.half.dropped, w.dropped)
	}
	if w.bytesSaid != w.out.bytes {
		w.bytesSaid = w.out.bytes
		storeStat(&w.half.bytesOut, w.out.bytes)
	}
	if w.badSaid != w.badReturns {
		w.badSaid = w.badReturns
		storeStat(&w.half.badReturns, w.badReturns)
	}
}
