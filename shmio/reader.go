package shmio

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/bhome-bus/bhome/wire"
)

// Reader is the receiver's end of a route: it owns the reader half and believes nothing that the writer half says.
//
// TryReceive, Arm and Disarm belong to one goroutine at a time (an Inbox sees to that); Return may be called by any.
type Reader struct {
	spec  RouteSpec
	half  *readerHalf
	peer  *writerHalf
	ring  []uint64
	bytes []byte // the ring as bytes
	rets  []uint64
	bell  Ringer
	id    uint64

	next    uint64 // next slot to read; what the shared head says
	tail    uint64 // as last loaded from the peer
	misses  int    // looks in a row that found nothing
	heels   int    // looks in a row that found a little, and soon: we are at the writer's heels
	reading bool   // joined, or the writer's process is dead
	arms    uint64 // last epoch
	rings   Rings  // of its bell, and tail at the last one
	rungAt  uint64
	asleep  bool // armed is stored
	err     error
	aside   []*Record // put back
	run     *Run      // that of the message before, if there is more of it

	blocked  atomic.Bool  // what was put back has to wait; pairs with Resume
	asideLen atomic.Int32 // of aside; pairs with Aside

	dead    atomic.Bool  // the writer's process
	held    atomic.Int64 // blocks read and not returned
	starved atomic.Bool  // held so many that it looked empty: Return must wake the inbox
	inbox   atomic.Pointer[Inbox]
	place   inboxPlace // guarded by the inbox

	mu        sync.Mutex // guards what follows, and the order of returns
	gone      bool       // left
	retTail   uint64
	retHead   uint64   // as last loaded from the peer
	backlog   []uint64 // returns that found the ring full
	runs      []*Run   // to be used again
	waiting   atomic.Bool
	spaceFor  atomic.Uint64 // last epoch of wantsSpace that was rung for
	spaceSeen atomic.Uint64 // last epoch that was seen
	spaceAt   atomic.Uint64 // head from which on it is rung for; pairs with spaceSeen

	tag  any
	step func(point string) // tests stop here
}

// Record is one received message. Its Payload lies in itself: it is valid until it is used to receive again. The zero
// Record is ready for use; it should be reused. What is written for each message comes first, as it is one cache line.
type Record struct {
	Seq     uint64                // of a block: what Return wants
	Word    wire.Word             // a block's message word, a command, or the inline record's first word
	Head    wire.InlineHead       // of an inline record
	Corr    uint64                // of an inline record that has one, else 0
	Payload []byte                // of an inline record, else nil: a place for the caller to note where the block is
	buf     *[wire.MaxInline]byte // where Payload lies; made for the first inline record, as who holds a million blocks needs none
	Tag     any                   // the caller's; it stays
	Next    wire.Word             // of what TryReceive took, behind a block: the word of what comes next, as a hint; 0: nothing is known
	run     *Run                  // of a block: those that it is returned with; nil: none
	Last    bool                  // of what TryReceive took: nothing had come behind it, as far as was known
}

// own is the buffer of r for inline records.
func (r *Record) own() *[wire.MaxInline]byte {
	if r.buf == nil {
		r.buf = new([wire.MaxInline]byte)
	}
	return r.buf
}

// IsBlock tells whether the message is a block, which must be returned.
func (r *Record) IsBlock() bool { return !r.Word.IsCommand() }

// IsInline tells whether the message is an inline record.
func (r *Record) IsInline() bool { return r.Word.IsInline() }

// End is the cursor behind the message.
func (r *Record) End() uint64 {
	if slots, ok := r.Word.InlineSlots(); ok {
		return r.Seq + slots
	}
	return r.Seq + 1
}

// NewReader lays out a reader half in mem and makes its reader; the half exists for others from then on. mem must hold
// spec.ReaderSize bytes; the Reader uses them until the owner unmaps them, after Close.
func NewReader(mem []byte, spec RouteSpec) (*Reader, error) {
	if err := spec.Validate(); err != nil {
		return nil, fmt.Errorf("making a reader: %w", err)
	}
	if err := checkHalf("reader", mem, spec.ReaderSize()); err != nil {
		return nil, fmt.Errorf("making a reader: %w", err)
	}
	mem = mem[:spec.ReaderSize()]
	h := view[readerHalf](mem, 0)
	h.routeID.Store(0)
	clear(mem[8:returnOffset])
	h.returnSlots, h.returnOffset = spec.twiceOut(), returnOffset
	h.head.Store(spec.First)
	h.claim.Store(spec.First)
	h.skippedTo.Store(spec.First)
	r := &Reader{
		spec: spec, half: h, id: spec.ID, next: spec.First, tail: spec.First,
		rets: words(mem, returnOffset, uint64(spec.twiceOut())),
	}
	h.routeID.Store(spec.ID) // last: the half exists
	return r, nil
}

// Join takes the peer's writer half, mapped read-only, and its bell (nil: it needs none). Its fixed fields must be what
// the spec says; they aren't looked at again. It must not be called while another goroutine receives from this route.
func (r *Reader) Join(writer []byte, bell Ringer) error {
	if r.peer != nil {
		return fmt.Errorf("joining route %#x: %w: joined already", r.id, ErrRouteSpec)
	}
	if err := checkHalf("writer", writer, r.spec.WriterSize()); err != nil {
		return fmt.Errorf("joining route %#x: %w", r.id, err)
	}
	p := view[writerHalf](writer, 0)
	if id := p.routeID.Load(); id != r.id {
		return fmt.Errorf("joining route %#x: %w: writer half has id %#x", r.id, ErrCorruptRoute, id)
	}
	s := r.spec
	for _, f := range [...]struct {
		name string
		at   *uint32
		want uint32
	}{
		{"slots", &p.slots, s.Slots}, {"depth", &p.depth, s.Depth}, {"out", &p.out, s.Out},
		{"policy", &p.policy, uint32(s.Policy)}, {"tableSlots", &p.tableSlots, s.twiceOut()},
		{"ringOffset", &p.ringOffset, ringOffset}, {"tableOffset", &p.tableOffset, s.tableOffset()}, {"zero", &p.zero, 0},
	} {
		if got := atomic.LoadUint32(f.at); got != f.want {
			return fmt.Errorf("joining route %#x: %w: %s is %d, want %d", r.id, ErrCorruptRoute, f.name, got, f.want)
		}
	}
	if got := atomic.LoadUint64(&p.first); got != s.First {
		return fmt.Errorf("joining route %#x: %w: first is %#x, want %#x", r.id, ErrCorruptRoute, got, s.First)
	}
	end := s.tableOffset()
	r.mu.Lock()
	r.peer = p
	r.ring = words(writer, ringOffset, uint64(s.Slots))
	r.bytes = writer[ringOffset:end:end]
	r.bell = bell
	r.mu.Unlock()
	if in := r.inbox.Load(); in != nil {
		in.Wake(r)
	}
	return nil
}

// SetPeerDead tells that the writer's process has died: what it sent may be read even if it never joined, and nobody
// takes returns any more.
func (r *Reader) SetPeerDead() {
	r.dead.Store(true)
	if in := r.inbox.Load(); in != nil {
		in.Wake(r)
	}
}

// Spec returns what the route was made of.
func (r *Reader) Spec() RouteSpec { return r.spec }

// Tag returns what SetTag set.
func (r *Reader) Tag() any { return r.tag }

// SetTag keeps the owner's own pointer with the Reader. Set it before others use the Reader.
func (r *Reader) SetTag(tag any) { r.tag = tag }

// HeldCount is how many blocks were read and not returned.
func (r *Reader) HeldCount() int { return int(r.held.Load()) }

// Head is up to where messages were taken.
func (r *Reader) Head() uint64 { return r.half.head.Load() }

// Unread is how many slots (not messages) wait to be read, as the writer says; at most Slots.
func (r *Reader) Unread() uint64 {
	r.mu.Lock()
	p := r.peer
	r.mu.Unlock()
	if p == nil {
		return 0
	}
	from := r.half.head.Load()
	if d := p.dropTo.Load(); ahead(d, from) {
		from = d
	}
	return min(p.tail.Load()-from, uint64(r.spec.Slots))
}

// Leave tells the writer that this end looks at its half no more, but for whether it is there: nothing is received after
// it. Take the Reader out of its inbox first; like TryReceive it belongs to one goroutine at a time. false: not yet, as
// blocks are held, or returns wait that the writer has no room for.
func (r *Reader) Leave() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.peer == nil || r.gone {
		return r.gone
	}
	if r.flush(); r.held.Load() > 0 || len(r.backlog) > 0 {
		return false
	}
	r.gone, r.reading, r.tail = true, false, r.next
	r.half.left.Store(r.id) // pairs with Writer.ReaderLeft: it takes the returns before it
	return true
}

// Close ends the route at this end: the half stops to exist. Take it out of its inbox first. Returns of what is held
// still go to the writer.
func (r *Reader) Close() { r.half.routeID.Store(0) }

func (r *Reader) fail(format string, args ...any) error {
	r.err = fmt.Errorf("route %#x: %w: %s", r.id, ErrCorruptRoute, fmt.Sprintf(format, args...))
	return r.err
}

func (r *Reader) at(point string) {
	if r.step != nil {
		r.step(point)
	}
}
