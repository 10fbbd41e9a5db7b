package shmio

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Want says which segment is acceptable.
type Want struct {
	Kinds            []Kind
	MinSize, MaxSize uint64 // bytes; MaxSize 0: what places can name, 32 GiB
	CloseFD          bool   // don't keep the descriptor once it is mapped
}

const (
	tmpfsMagic     = 0x01021994
	hugetlbfsMagic = 0x958458f6
)

// OpenSegment maps, read-only, a segment that another process passed. The descriptor and all that it holds are hostile:
// seals first (they make the size final, and nothing but a memfd has them), then the file system, the size, the header.
// It takes over fd, and closes it on error. A part that was never written costs its reader memory once it is read: that
// is what MaxSize bounds. Errors: ErrNotMemfd, ErrNotSealed, ErrSegmentSize, ErrBadSegment,
// ErrIncompatibleABI; a MappingsError is our own trouble.
func OpenSegment(fd *FD, w Want) (*Segment, error) {
	s, err := openSegment(fd.Int(), w)
	runtime.KeepAlive(fd)
	if err != nil || w.CloseFD {
		_ = fd.Close() // either the error that matters is err, or it is mapped and the descriptor doesn't matter any more
	}
	if err != nil {
		return nil, fmt.Errorf("accept a segment: %w", err)
	}
	if !w.CloseFD {
		s.fd = fd
	}
	return s, nil
}

func openSegment(fd int, w Want) (*Segment, error) {
	size, err := sealedSize(fd)
	if err != nil {
		return nil, err
	}
	least, most := max(w.MinSize, 2*FirstBlock), uint64(maxPlaces*placeUnit)
	if w.MaxSize > 0 {
		most = min(most, w.MaxSize)
	}
	switch {
	case size < least || size > most:
		return nil, fmt.Errorf("%w: %d bytes, where %d to %d are acceptable", ErrSegmentSize, size, least, most)
	case size%pageSize() != 0:
		return nil, fmt.Errorf("%w: %d bytes are no multiple of the page size, %d", ErrSegmentSize, size, pageSize())
	}
	mem, err := mapShared(fd, size, unix.PROT_READ)
	if err != nil {
		return nil, fmt.Errorf("map a segment of %d bytes read-only: %w", size, err)
	}
	s := &Segment{mem: mem, header: view[segmentHeader](mem, 0)}
	if err := s.check(size, w); err != nil {
		_ = unix.Munmap(mem) // the error that matters is err
		return nil, err
	}
	if s.spec.Kind == KindData {
		s.Unload() // the header isn't looked at again
	}
	return s, nil
}

// sealedSize is the size, final, of a memfd that has all seals and lies on tmpfs; anything else is an error.
func sealedSize(fd int) (uint64, error) {
	seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err != nil {
		return 0, fmt.Errorf("%w: it is %s", ErrNotMemfd, describe(fd))
	}
	if seals&segmentSeals != segmentSeals {
		return 0, fmt.Errorf("%w: it has seals %#x and lacks %s", ErrNotSealed, seals, sealNames(segmentSeals&^seals))
	}
	// It is a memfd, so no server of a file system can make the following wait.
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return 0, fmt.Errorf("%w: its file system can't be told: %w", ErrNotMemfd, err)
	}
	switch magic := uint64(fs.Type) & 0xFFFFFFFF; magic {
	case tmpfsMagic:
	case hugetlbfsMagic:
		return 0, fmt.Errorf("%w on tmpfs: it lies on hugetlbfs", ErrNotMemfd)
	default:
		return 0, fmt.Errorf("%w on tmpfs: it lies on file system %#x", ErrNotMemfd, magic)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, fmt.Errorf("%w: its size can't be told: %w", ErrNotMemfd, err)
	}
	return uint64(st.Size), nil
}

// check loads the fixed fields of a foreign header once, and judges the copies.
func (s *Segment) check(size uint64, w Want) error {
	h := s.header
	version := h.Version.Load() // pairs with Publish: what was filled in before is visible
	magic, said := h.Magic, h.Size
	spec := SegmentSpec{Kind: Kind(h.Kind), Number: h.Number, Size: size, Base: h.Base, Generation: h.Generation}
	switch {
	case magic != segmentMagic:
		return fmt.Errorf("%w: magic %#x is not %#x", ErrBadSegment, magic, uint64(segmentMagic))
	case version == 0:
		return fmt.Errorf("%w: its owner hasn't published it", ErrBadSegment)
	}
	if err := CheckABI(version); err != nil { // before all that another version may have elsewhere
		return err
	}
	switch {
	case said != size:
		return fmt.Errorf("%w: the header says %d bytes, the memfd has %d", ErrSegmentSize, said, size)
	case !slices.Contains(w.Kinds, spec.Kind):
		return fmt.Errorf("%w: it is a %v segment, acceptable is %v", ErrBadSegment, spec.Kind, w.Kinds)
	case spec.Kind != KindData && (spec.Base != 0 || spec.Generation != 0):
		return fmt.Errorf("%w: a %v segment with base %#x, generation %d", ErrBadSegment, spec.Kind, spec.Base, spec.Generation)
	}
	if err := spec.validate(); err != nil {
		return err
	}
	s.spec, s.pid = spec, h.PID
	return nil
}

func sealNames(seals int) string {
	var names []string
	for _, s := range []struct {
		bit  int
		name string
	}{{unix.F_SEAL_FUTURE_WRITE, "FUTURE_WRITE"}, {unix.F_SEAL_SHRINK, "SHRINK"}, {unix.F_SEAL_GROW, "GROW"}, {unix.F_SEAL_SEAL, "SEAL"}} {
		if seals&s.bit != 0 {
			names = append(names, s.name)
		}
	}
	return strings.Join(names, ", ")
}

// describe says what a descriptor is. It asks no server of a file system: that one could be hostile, and not answer.
func describe(fd int) string {
	var st unix.Statx_t
	err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, &st)
	if errors.Is(err, unix.EBADF) {
		return "no open descriptor"
	}
	if target := fdTarget(fd); strings.HasPrefix(target, "anon_inode:") || strings.HasPrefix(target, "pidfd:") {
		return "an anonymous descriptor (" + target + ")"
	}
	if err != nil {
		return "something unknown"
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFIFO:
		return "a pipe"
	case unix.S_IFDIR:
		return "a directory"
	case unix.S_IFSOCK:
		return "a socket"
	case unix.S_IFCHR, unix.S_IFBLK:
		return "a device"
	case unix.S_IFREG:
		return "an ordinary file"
	}
	return "something unknown"
}
