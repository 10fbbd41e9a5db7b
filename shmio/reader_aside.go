package shmio

import "slices"

// PutBack puts back what was received: it comes again, before anything else of this route, once Resume was called. Until
// then nothing is received from it; an inbox's other routes go on. A block counts as held all the while. It may be called
// by anybody who received it.
func (r *Reader) PutBack(rec *Record) {
	own := *rec
	own.buf, own.Tag = nil, nil
	if own.IsBlock() {
		own.Payload = nil // the caller's, if it noted there where the block is
	} else {
		own.Payload = slices.Clone(rec.Payload) // the buffer is the caller's
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	i := len(r.aside)
	r.aside = append(r.aside, nil)
	for ; i > 0 && ahead(r.aside[i-1].Seq, own.Seq); i-- { // several may be put back before one comes again
		r.aside[i] = r.aside[i-1]
	}
	r.aside[i] = &own
	r.blocked.Store(true)
	r.asideLen.Store(int32(len(r.aside)))
}

// Resume ends what PutBack began. It may be called by anybody.
func (r *Reader) Resume() {
	r.blocked.Store(false)
	if in := r.inbox.Load(); in != nil {
		in.Wake(r)
	}
}

// Aside is how many messages were put back and have not come again.
func (r *Reader) Aside() int { return int(r.asideLen.Load()) }

// takeAside takes the first of what was put back; false: not yet.
func (r *Reader) takeAside(rec *Record) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.blocked.Load() || len(r.aside) == 0 {
		return false
	}
	buf, tag := rec.buf, rec.Tag
	*rec = *r.aside[0]
	rec.Tag, rec.Last, rec.Next = tag, false, 0 // what came behind it then doesn't now
	if rec.buf = buf; rec.Payload != nil {
		rec.Payload = rec.own()[:copy(rec.own()[:], rec.Payload)]
	}
	r.aside = append(r.aside[:0], r.aside[1:]...)
	if len(r.aside) == 0 {
		r.aside = nil
	}
	r.asideLen.Store(int32(len(r.aside)))
	return true
}
