package shmio

import (
	"errors"
	"sync"
	"sync/atomic"
)

// ErrInboxClosed says that the Inbox was closed.
var ErrInboxClosed = errors.New("shmio: inbox closed")

// ErrNudged says that somebody wants a receiver to look around: see Nudge.
var ErrNudged = errors.New("shmio: nudged")

const (
	// coolAfter is how many messages other routes deliver before a route that delivered none of them is no longer polled.
	coolAfter = 256
	// favourAfter is how often the same bell rings in a row before receivers sleep at it.
	favourAfter = 3
)

// Inbox is one receiving queue that is fed by many routes. It polls those that lately had something, in turn; the
// others are armed and wait for their bells, and cost nothing. Any number of goroutines may receive: one of them looks,
// the others wait behind it. When there is nothing, one of them (it leads) sleeps at the bell that rang most lately, its
// favourite; the reactor hears the others and wakes it.
type Inbox struct {
	mu       sync.Mutex // held for a few looks at most; guards the places of all readers, too
	all, hot []*Reader
	pos      int    // in hot: whose turn it is
	taken    int    // messages of the route whose turn it is, in a row
	hits     uint64 // messages found
	waiters  int    // parked, or about to be
	leading  bool   // one of them sleeps at the favourite's bell
	spinning bool   // somebody looks at the hot routes now and then: they needn't be armed
	closed   bool
	nudged   bool
	spin     spinner      // the spinning receiver's; else guarded by mu
	others   atomic.Int32 // routes that are polled, but for one; pairs with Reader.ringSpace
	signal   chan struct{}
	done     chan struct{}

	favourite *Reader  // always polled while somebody looks; nil: none has a bell of its own
	bed       *bedside // its bell
	rung      *Reader  // whose bell the reactor heard last, and how often in a row
	rings     int
	watched   <-chan struct{} // the end of the context on which the leader is kicked
	unwatch   func() bool
}

// inboxPlace is where a Reader stands in its Inbox.
type inboxPlace struct {
	in      *Inbox
	all     int // index
	hot     int // index, -1: cold
	lastHit uint64
	bell    *Watch // nil: somebody else hears it
}

// NewInbox makes an empty Inbox.
func NewInbox(s WaitStrategy) *Inbox {
	return &Inbox{spin: newSpinner(s), signal: make(chan struct{}, 1), done: make(chan struct{})}
}

// Add begins to receive from r, which must be in no other Inbox, and must have joined, as Join must not run while others
// look at it. Whoever hears its bell calls Wake. A reader that is in this Inbox already, and a closed Inbox, ignore it.
func (in *Inbox) Add(r *Reader) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.fresh(r) {
		in.add(r)
	}
}

// AddWithBell is Add of a reader with a bell of its own (NewBell's reading end; r's writer has the other): receivers may
// sleep at it, and otherwise the reactor hears it. It takes over bell. Errors are the kernel's: no descriptors, or no more
// watches for this user.
func (in *Inbox) AddWithBell(r *Reader, reactor *Reactor, bell *FD) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if !in.fresh(r) {
		return bell.Close()
	}
	w, err := reactor.WatchBell(bell, func(uint32) { in.ring(r) })
	if err != nil {
		return err
	}
	r.place.bell = w
	in.add(r)
	if in.favourite == nil {
		in.favour(r)
	}
	return nil
}

// fresh tells whether r can be added.
func (in *Inbox) fresh(r *Reader) bool {
	at := r.inbox.Load()
	if at != nil && at != in {
		panic("shmio: Add of a reader that is in another inbox")
	}
	return at == nil && !in.closed
}

func (in *Inbox) add(r *Reader) {
	r.place.in, r.place.all, r.place.hot = in, len(in.all), -1
	in.all = append(in.all, r)
	r.inbox.Store(in)
	in.heat(r)
	in.wakeOne()
}

// ring is what the reactor calls: r is looked at from now on.
func (in *Inbox) ring(r *Reader) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if r.place.in != in {
		return
	}
	if in.rung != r {
		in.rung, in.rings = r, 0
	}
	in.rings++
	if !r.heardRing() {
		r.place.bell.unregister()
	}
	if r.place.hot < 0 {
		in.heat(r)
		in.wakeOne()
	}
}

// favour makes r's bell the one to sleep at.
func (in *Inbox) favour(r *Reader) {
	in.unfavour()
	bed, err := newBedside(r.place.bell.fd)
	if err != nil {
		return // no descriptor is left: the reactor goes on to hear it
	}
	r.place.bell.unregister()
	in.favourite, in.bed = r, bed
}

// unfavour leaves the favourite's bell to the reactor.
func (in *Inbox) unfavour() {
	if in.favourite == nil {
		return
	}
	in.bed.close()
	if in.favourite.err == nil { // else it was rung for nothing, and is heard no more
		in.favourite.place.bell.register()
	}
	in.favourite, in.bed = nil, nil
}

// Remove ends to receive from r; when it returns nobody looks at r any more. A reader that isn't in the Inbox is
// ignored.
func (in *Inbox) Remove(r *Reader) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.remove(r)
}

// Wake is for whoever hears r's bell: it is looked at from now on. It doesn't block.
func (in *Inbox) Wake(r *Reader) { in.WakeAndSee(r) }

// WakeAndSee is Wake that tells a number which changes whenever the writer says that there is more: the writer's word. A
// reader that isn't in the Inbox, whose memory may be gone, has 0.
func (in *Inbox) WakeAndSee(r *Reader) (pushed uint64) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if r.place.in != in {
		return 0
	}
	if r.place.hot < 0 {
		in.heat(r)
		in.wakeOne()
	}
	if r.peer != nil {
		pushed = r.peer.tail.Load() // pairs with Writer.publish, which comes before the ring
	}
	return pushed
}

// Backstop looks at every route that isn't polled, and wakes those that have something after all: a bell that was
// stolen or forgotten costs a delay.
func (in *Inbox) Backstop() {
	const atOnce = 64
	for from := 0; ; from += atOnce {
		in.mu.Lock()
		to := min(from+atOnce, len(in.all))
		for i := from; i < to; i++ {
			r := in.all[i]
			if r.waiting.Load() {
				r.flushReturns()
			}
			if r.place.hot < 0 && r.hasNews() {
				in.heat(r)
				in.wakeOne()
			}
		}
		end := to == len(in.all)
		in.mu.Unlock()
		if end {
			return
		}
	}
}

// Nudge has one receiver, the one that waits or the next that comes, return with ErrNudged.
func (in *Inbox) Nudge() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.nudged = true
	in.wakeOne()
}

// Close ends all receiving with ErrInboxClosed and lets the readers go.
func (in *Inbox) Close() {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.closed {
		return
	}
	in.closed = true
	close(in.done)
	for len(in.all) > 0 {
		in.remove(in.all[len(in.all)-1])
	}
	if in.unwatch != nil {
		in.unwatch()
	}
}

func (in *Inbox) wakeOne() {
	if in.waiters == 0 {
		return
	}
	if in.leading {
		if in.bed != nil { // else it is awake already
			in.bed.kick()
		}
		return
	}
	select {
	case in.signal <- struct{}{}:
	default:
	}
}

func (in *Inbox) heat(r *Reader) {
	r.Disarm()
	r.place.hot = len(in.hot)
	r.place.lastHit = in.hits
	in.hot = append(in.hot, r)
	in.others.Store(int32(len(in.hot) - 1))
}

// cool arms a hot route; false: it has something after all and stays hot.
func (in *Inbox) cool(r *Reader) bool {
	if !r.Arm() {
		r.Disarm()
		r.place.lastHit = in.hits
		return false
	}
	in.unheat(r)
	return true
}

func (in *Inbox) unheat(r *Reader) {
	last := len(in.hot) - 1
	at := r.place.hot
	in.hot[at] = in.hot[last]
	in.hot[at].place.hot = at
	in.hot[last] = nil
	in.hot = in.hot[:last]
	in.others.Store(int32(last - 1))
	r.place.hot = -1
}

func (in *Inbox) remove(r *Reader) {
	if r.place.in != in {
		return
	}
	if r.place.hot >= 0 {
		in.unheat(r)
	}
	r.Disarm()
	if w := r.place.bell; w != nil {
		if r == in.favourite {
			in.bed.close()
			in.favourite, in.bed = nil, nil
		}
		_ = w.Close() // there is nothing to lose
	}
	if in.rung == r {
		in.rung = nil
	}
	last := len(in.all) - 1
	at := r.place.all
	in.all[at] = in.all[last]
	in.all[at].place.all = at
	in.all[last] = nil
	in.all = in.all[:last]
	r.place = inboxPlace{}
	r.inbox.Store(nil)
}
