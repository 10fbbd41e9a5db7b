package shmio

// MaxEmptyRings is how many rings for nothing, beyond those that were for something, whoever hears a bell puts up with.
// Honest ringers stay at one or two: each ring follows something that the hearer can see, and is heard later than that at
// worst. See docs/decisions/0021.
const MaxEmptyRings = 32

// Rings judges one who rings a bell of ours: hearing a bell costs more than ringing it, so that a ringer who has nothing to
// say must not be heard for ever. The zero value is ready for use. It is not safe for concurrent use.
type Rings struct{ empty int }

// Heard counts a ring, which was for something or not; false: too many were for nothing, and this bell should be heard no
// more.
func (j *Rings) Heard(something bool) bool {
	switch {
	case !something:
		j.empty++
	case j.empty > 0:
		j.empty-- // not to zero: a ring in many must not pay for all of them
	}
	return j.empty <= MaxEmptyRings
}

// heardRing judges a ring of the route's bell; false: the route is corrupt, and the bell to be heard no more. It belongs to
// whoever may receive.
func (r *Reader) heardRing() bool {
	if r.peer == nil || r.err != nil {
		return r.err == nil
	}
	t := r.peer.tail.Load()                                        // pairs with Writer.publish, which comes before the ring
	ok := r.rings.Heard(t != r.rungAt && (r.reading || r.ready())) // who may not be read yet has no reason to ring
	r.rungAt = t
	if !ok {
		_ = r.fail("its writer has rung our bell %d times for nothing", MaxEmptyRings) // the next look returns it
	}
	return ok
}

// SpaceWanted changes whenever ArmSpace asks the reader to ring. It may be called by anybody.
func (w *Writer) SpaceWanted() uint64 { return w.spaceSeen.Load() } // pairs with ArmSpace
