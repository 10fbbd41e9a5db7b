package shmio

import (
	"errors"
	"fmt"
	"math"
	"os"
	"structs"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/bhome-bus/bhome/wire"
)

// Kind is what a segment is for.
type Kind uint32

// The kinds of segments.
const (
	KindProcess Kind = 1 // segment 0 of a process: header, counters, halves
	KindControl Kind = 2 // more halves
	KindData    Kind = 3 // message blocks
	KindLink    Kind = 4 // the center's side of one session
	KindPublic  Kind = 5 // the center's counters
)

func (k Kind) String() string {
	names := [...]string{"none", "process", "control", "data", "link", "public"}
	if int(k) < len(names) {
		return names[k]
	}
	return fmt.Sprintf("Kind(%d)", uint32(k))
}

// State is how far a segment's owner is.
type State uint32

// The states, in order.
const (
	StateLaidOut    State = 1
	StateAttached   State = 2
	StateRegistered State = 3
	StateDetached   State = 4
	StateClosed     State = 5
)

func (s State) String() string {
	names := [...]string{"none", "laid out", "attached", "registered", "detached", "closed"}
	if int(s) < len(names) {
		return names[s]
	}
	return fmt.Sprintf("State(%d)", uint32(s))
}

const (
	segmentMagic = 0x6765736d6f6862 // "bhomseg\0"
	countersAt   = 128
	routeGenAt   = 2048
	// FirstBlock is where the blocks of a data segment, and the halves of segment 0 and control segments, begin.
	FirstBlock = 4096

	maxPlaces = 1 << 31
	placeUnit = 16
)

// Counters is how many counters a segment has.
const Counters = 16

// CounterBeats is the counter of a process's segment 0 that its heart moves (docs/abi.md section 7).
const CounterBeats = 13

// segmentHeader is the first line of a segment (docs/abi.md section 3).
type segmentHeader struct {
	_          structs.HostLayout
	Magic      uint64
	Kind       uint32
	Number     uint32
	Size       uint64
	Base       uint32
	Generation uint32
	Session    atomic.Uint64 // pairs with Session's load
	State      atomic.Uint32 // pairs with State's load
	PID        uint32
	Version    atomic.Uint32 // stored last; pairs with the load in check
	_          [76]byte
}

// What intake refuses, for errors.Is.
var (
	ErrNotMemfd        = errors.New("not a memfd")
	ErrNotSealed       = errors.New("the memfd isn't sealed")
	ErrSegmentSize     = errors.New("segment size")
	ErrBadSegment      = errors.New("bad segment header")
	ErrIncompatibleABI = errors.New("incompatible ABI")
)

// ABIError says which versions don't fit; it is an ErrIncompatibleABI.
type ABIError struct{ Ours, Theirs uint32 }

func (e *ABIError) Error() string {
	return fmt.Sprintf("incompatible ABI: ours is %d.%d, theirs %d.%d; use the same release on both sides",
		e.Ours>>16, e.Ours&0xFFFF, e.Theirs>>16, e.Theirs&0xFFFF)
}

// Is makes errors.Is(err, ErrIncompatibleABI) true.
func (e *ABIError) Is(target error) bool { return target == ErrIncompatibleABI }

// CheckABI compares another side's version with ours: the major must be the same.
func CheckABI(theirs uint32) error {
	if theirs>>16 != wire.ABIVersion>>16 {
		return &ABIError{Ours: wire.ABIVersion, Theirs: theirs}
	}
	return nil
}

// SegmentSpec says what segment to make. Size is rounded up to the page size.
type SegmentSpec struct {
	Kind             Kind
	Number           uint32
	Size             uint64
	Base, Generation uint32 // data segments
	Session          uint64
}

func (s SegmentSpec) validate() error {
	switch {
	case s.Kind < KindProcess || s.Kind > KindPublic:
		return fmt.Errorf("%w: kind %v", ErrBadSegment, s.Kind)
	case s.Size < 2*FirstBlock || s.Size > maxPlaces*placeUnit:
		return fmt.Errorf("%w: %d bytes, must be %d to %d", ErrSegmentSize, s.Size, 2*FirstBlock, uint64(maxPlaces*placeUnit))
	case s.Base%256 != 0 || uint64(s.Base)+s.Size/placeUnit > maxPlaces:
		return fmt.Errorf("%w: base %#x with %d bytes: bases are multiples of 256, and all lies below place %#x", ErrBadSegment, s.Base, s.Size, uint64(maxPlaces))
	case s.Generation > 8191:
		return fmt.Errorf("%w: generation %d, at most 8191", ErrBadSegment, s.Generation)
	}
	return nil
}

// Segment is one mapped segment: our own, writable, or another's, read-only (a store through a view of that one is a
// fault that kills the process). Its views are valid until Close. Methods that load are safe for concurrent use; Close
// is not concurrent with the use of the segment or its views, but for CounterUntilClose.
type Segment struct {
	spec     SegmentSpec
	writable bool
	heap     bool
	pid      uint32
	header   *segmentHeader

	mu  sync.Mutex
	mem []byte // as mapped, for Munmap; nil once closed
	fd  *FD
}

// roundUp is the first multiple of to that is n or more; n is so small that it doesn't overflow.
func roundUp(n, to uint64) uint64 { return (n + to - 1) / to * to }

func pageSize() uint64 { return uint64(os.Getpagesize()) }

// CreateSegment makes a memfd, maps it writable, and seals it: from then on nobody gets another writable mapping. The
// header is filled in, but others refuse it until Publish. name appears in /proc/<pid>/maps. Error: MappingsError where hardly
// a mapping is left.
func CreateSegment(name string, spec SegmentSpec) (*Segment, error) {
	spec.Size = roundUp(spec.Size, pageSize())
	if err := spec.validate(); err != nil {
		return nil, fmt.Errorf("create segment %q: %w", name, err)
	}
	fd, err := createMemfd(name)
	if err != nil {
		return nil, fmt.Errorf("create segment %q: %w", name, err)
	}
	mem, err := sealAndMap(fd.Int(), spec.Size)
	if err != nil {
		_ = fd.Close() // the error that matters is err
		return nil, fmt.Errorf("create segment %q of %d bytes: %w", name, spec.Size, err)
	}
	s := &Segment{spec: spec, writable: true, mem: mem, fd: fd, pid: uint32(os.Getpid()), header: view[segmentHeader](mem, 0)}
	s.fill()
	return s, nil
}

// HeapSegment is a segment over ordinary memory, for tests under the race detector, which doesn't see mapped memory.
func HeapSegment(spec SegmentSpec) (*Segment, error) {
	spec.Size = roundUp(spec.Size, pageSize())
	if err := spec.validate(); err != nil {
		return nil, err
	}
	mem := wordBytes(make([]uint64, spec.Size/8))
	s := &Segment{spec: spec, writable: true, heap: true, mem: mem, pid: uint32(os.Getpid()), header: view[segmentHeader](mem, 0)}
	s.fill()
	return s, nil
}

func (s *Segment) fill() {
	h := s.header
	h.Magic, h.Kind, h.Number, h.Size = segmentMagic, uint32(s.spec.Kind), s.spec.Number, s.spec.Size
	h.Base, h.Generation, h.PID = s.spec.Base, s.spec.Generation, s.pid
	h.Session.Store(s.spec.Session)
}

func createMemfd(name string) (*FD, error) {
	// MFD_NOEXEC_SEAL is known from Linux 6.3 on; older kernels say EINVAL.
	n, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) {
		n, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	return NewFD(n), nil
}

// segmentSeals are the seals a segment must have. F_SEAL_FUTURE_WRITE leaves the owner's mapping as it is and refuses
// every later one.
const segmentSeals = unix.F_SEAL_FUTURE_WRITE | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL

func sealAndMap(fd int, size uint64) ([]byte, error) {
	if size > math.MaxInt {
		return nil, ErrSegmentSize
	}
	if err := unix.Ftruncate(fd, int64(size)); err != nil {
		return nil, fmt.Errorf("set the size: %w", err)
	}
	mem, err := mapShared(fd, size, unix.PROT_READ|unix.PROT_WRITE)
	if err != nil {
		return nil, fmt.Errorf("map: %w", err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, segmentSeals); err != nil {
		_ = unix.Munmap(mem) // the error that matters is err
		return nil, fmt.Errorf("seal (F_SEAL_FUTURE_WRITE needs Linux 5.1): %w", err)
	}
	return mem, nil
}

// own panics where the owner's methods are called on another's segment: a clear end instead of a fault.
func (s *Segment) own() *segmentHeader {
	if !s.writable {
		panic("shmio: a store to another process's segment")
	}
	return s.header
}

// Publish makes the segment acceptable to others: the state, then the version last. The owner's, like all that stores.
func (s *Segment) Publish(st State) {
	h := s.own()
	h.State.Store(uint32(st))
	h.Version.Store(wire.ABIVersion) // pairs with the load in check
}

// SetState says how far the owner is.
func (s *Segment) SetState(st State) { s.own().State.Store(uint32(st)) }

// SetSession stores the owner's session.
func (s *Segment) SetSession(id uint64) { s.own().Session.Store(id) }

// SetBase places a data segment where the center wants it, before it is added to a Space and before anybody but the
// center maps it. The center, who chose them, calls it on its read-only view, where only the view's copy changes.
func (s *Segment) SetBase(base, generation uint32) {
	s.spec.Base, s.spec.Generation = base, generation
	if s.writable {
		s.header.Base, s.header.Generation = base, generation
	}
}

// SetForeignBase tells where a segment of another's lies that its owner is only being told now. Only the mapping is told;
// the header is its owner's.
func (s *Segment) SetForeignBase(base, generation uint32) {
	s.spec.Base, s.spec.Generation = base, generation
}

// Kind is what the segment is for.
func (s *Segment) Kind() Kind { return s.spec.Kind }

// Number is the segment's number in its owner.
func (s *Segment) Number() uint32 { return s.spec.Number }

// Size is the whole segment's, in bytes.
func (s *Segment) Size() uint64 { return s.spec.Size }

// Base is the first place of a data segment.
func (s *Segment) Base() uint32 { return s.spec.Base }

// Generation tells segments apart that had the same base one after the other.
func (s *Segment) Generation() uint32 { return s.spec.Generation }

// Session is the owner's word, loaded now.
func (s *Segment) Session() uint64 { return s.header.Session.Load() }

// State is the owner's word, loaded now.
func (s *Segment) State() State { return State(s.header.State.Load()) }

// PID is the owner's word.
func (s *Segment) PID() uint32 { return s.pid }

// Writable reports whether this is our own segment.
func (s *Segment) Writable() bool { return s.writable }

// FD is the segment's descriptor, still s's; nil if it isn't kept.
func (s *Segment) FD() *FD { return s.fd }

// Touched is how many bytes of it take memory: pages that were never written, nor read, take none.
func (s *Segment) Touched() (bytes uint64) {
	var st unix.Stat_t
	if s.fd == nil || s.fd.with(func(n int) error { return unix.Fstat(n, &st) }) != nil {
		return 0
	}
	return min(uint64(st.Blocks)*512, s.spec.Size)
}

// Unload lets this process's pages of another's segment go: they take none of its memory until they are looked at again, by whom it
// may be, at any time. For what was looked at once and isn't for long.
func (s *Segment) Unload() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mem != nil && !s.heap && !s.writable {
		_ = unix.Madvise(s.mem, unix.MADV_DONTNEED) // else they stay
	}
}

// Memory is n bytes at offset off, which must lie within the segment and be 8-byte aligned.
func (s *Segment) Memory(off, n uint64) ([]byte, error) {
	if off%8 != 0 || off > s.spec.Size || n > s.spec.Size-off {
		return nil, fmt.Errorf("%w: %d bytes at offset %d of a %v segment of %d", ErrBadSegment, n, off, s.spec.Kind, s.spec.Size)
	}
	return s.mem[off : off+n : off+n], nil
}

// Place is the place of the byte at off, a multiple of 16 within the segment, in the owner's space.
func (s *Segment) Place(off uint64) uint32 { return s.spec.Base + uint32(off/placeUnit) }

// At is n bytes from a place, which must lie within the segment.
func (s *Segment) At(place uint32, n uint64) ([]byte, error) {
	if place < s.spec.Base {
		return nil, fmt.Errorf("%w: place %#x lies before the segment's, %#x", ErrBadSegment, place, s.spec.Base)
	}
	return s.Memory(uint64(place-s.spec.Base)*placeUnit, n)
}

// Counter is one of the segment's counters, 0 to 15; only the owner stores.
func (s *Segment) Counter(i int) *atomic.Uint64 {
	return view[atomic.Uint64](s.mem, countersAt+8*uint64(i))
}

// CounterUntilClose loads counter i for one whom the end of the segment may overtake: false, it is closed.
func (s *Segment) CounterUntilClose(i int) (n uint64, open bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mem == nil {
		return 0, false
	}
	return s.Counter(i).Load(), true // pairs with the owner's Add
}

// Counters loads all counters.
func (s *Segment) Counters() (c [Counters]uint64) {
	for i := range c {
		c[i] = s.Counter(i).Load()
	}
	return c
}

// RouteGeneration is the word of a link segment that counts what its node must adopt.
func (s *Segment) RouteGeneration() *atomic.Uint64 { return view[atomic.Uint64](s.mem, routeGenAt) }

// Close unmaps the segment and closes its descriptor. No view may be used after.
func (s *Segment) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mem == nil {
		return nil
	}
	mem := s.mem
	s.mem = nil
	var errs []error
	if s.fd != nil {
		errs = append(errs, s.fd.Close())
	}
	if !s.heap {
		if err := unix.Munmap(mem); err != nil {
			errs = append(errs, fmt.Errorf("unmap a %v segment: %w", s.spec.Kind, err))
		}
	}
	return errors.Join(errs...)
}
