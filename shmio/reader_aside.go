package shmio

// PutBack puts back what was received from r: it comes again, before anything else of r, once Resume was called. Until then
// nothing is received from r; other routes go on. A block counts as held all the while. false: r is not in the Inbox any
// more, and rec stays the caller's.
func (in *Inbox) PutBack(r *Reader, rec *Record) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if r.place.in != in {
		return false
	}
	r.putAside(rec)
	return true
}

// Resume ends what PutBack began.
func (in *Inbox) Resume(r *Reader) {
	in.mu.Lock()
	defer in.mu.Unlock()
	r.blocked.Store(false)
	if r.place.in == in && r.place.hot < 0 {
		in.heat(r)
		in.wakeOne()
	}
}

// Resume is Inbox.Resume of a reader that is in none.
func (r *Reader) Resume() { r.blocked.Store(false) }

// Aside is how many messages were put back and have not come again.
func (r *Reader) Aside() int { return int(r.asideLen.Load()) }

// putAside keeps a copy of rec, in the order of the route: several may be put back before one comes again.
func (r *Reader) putAside(rec *Record) {
	own := *rec
	i := len(r.aside)
	r.aside = append(r.aside, nil)
	for ; i > 0 && ahead(r.aside[i-1].Seq, own.Seq); i-- {
		r.aside[i] = r.aside[i-1]
	}
	r.aside[i] = &own
	r.asideLen.Store(int32(len(r.aside)))
	r.blocked.Store(true)
}

// takeAside takes the first of what was put back; false: not yet.
func (r *Reader) takeAside(rec *Record) bool {
	if r.blocked.Load() {
		return false
	}
	*rec = *r.aside[0]
	if rec.Payload != nil {
		rec.Payload = rec.buf[:len(rec.Payload)]
	}
	r.aside = append(r.aside[:0], r.aside[1:]...)
	if len(r.aside) == 0 {
		r.aside = nil
	}
	r.asideLen.Store(int32(len(r.aside)))
	return true
}
