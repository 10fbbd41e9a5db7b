package shmio

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// Want says which segment is acceptable.
type Want struct {
	Kinds            []Kind
	MinSize, MaxSize uint64 // bytes; MaxSize 0: no limit
	CloseFD          bool   // don't keep the descriptor once it is mapped
}

const (
	tmpfsMagic     = 0x01021994
	hugetlbfsMagic = 0x958458f6
)

// OpenSegment maps, read-only, a segment that another process passed. The descriptor and all that it holds are hostile:
// seals first (they make the size final), then the file system, the size, the header. It takes over fd, and closes it on
// error. Errors: ErrNotMemfd, ErrNotSealed, ErrSegmentSize, ErrBadSegment, ErrIncompatibleABI.
func OpenSegment(fd *FD, w Want) (*Segment, error) {
	s, err := openSegment(fd, w)
	if err != nil {
		_ = fd.Close() // the error that matters is err
		return nil, fmt.Errorf("accept a segment: %w", err)
	}
	if w.CloseFD {
		_ = fd.Close() // it is mapped: the descriptor doesn't matter any more
		s.fd = nil
	}
	return s, nil
}

func openSegment(fd *FD, w Want) (*Segment, error) {
	n := fd.Int()
	seals, err := unix.FcntlInt(uintptr(n), unix.F_GET_SEALS, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: it is %s", ErrNotMemfd, describe(n))
	}
	if seals&segmentSeals != segmentSeals {
		return nil, fmt.Errorf("%w: it has seals %#x, and needs %#x (FUTURE_WRITE, SHRINK, GROW, SEAL)", ErrNotSealed, seals, segmentSeals)
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(n, &fs); err != nil {
		return nil, fmt.Errorf("%w: its file system can't be told: %w", ErrNotMemfd, err)
	}
	if uint64(fs.Type)&0xFFFFFFFF != tmpfsMagic {
		return nil, fmt.Errorf("%w: it lies on %s, not on tmpfs", ErrNotMemfd, fsName(uint64(fs.Type)&0xFFFFFFFF))
	}
	var st unix.Stat_t
	if err := unix.Fstat(n, &st); err != nil {
		return nil, fmt.Errorf("%w: its size can't be told: %w", ErrNotMemfd, err)
	}
	size := uint64(st.Size)
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, fmt.Errorf("%w: it is %s", ErrNotMemfd, describe(n))
	case size < max(w.MinSize, 2*FirstBlock) || size > maxPlaces*placeUnit || w.MaxSize > 0 && size > w.MaxSize:
		return nil, fmt.Errorf("%w: %d bytes, where %d to %d are acceptable", ErrSegmentSize, size, max(w.MinSize, 2*FirstBlock), w.MaxSize)
	case size%pageSize() != 0:
		return nil, fmt.Errorf("%w: %d bytes are no multiple of the page size %d", ErrSegmentSize, size, pageSize())
	}
	mem, err := unix.Mmap(n, 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map a segment of %d bytes read-only: %w", size, err)
	}
	s := &Segment{mem: mem, fd: fd, header: view[segmentHeader](mem, 0)}
	if err := s.check(size, w); err != nil {
		_ = unix.Munmap(mem) // the error that matters is err
		return nil, err
	}
	return s, nil
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
	case said != size:
		return fmt.Errorf("%w: the header says %d bytes, the memfd has %d", ErrBadSegment, said, size)
	case !slices.Contains(w.Kinds, spec.Kind):
		return fmt.Errorf("%w: it is a %v segment, wanted is one of %v", ErrBadSegment, spec.Kind, w.Kinds)
	}
	if err := CheckABI(version); err != nil {
		return err
	}
	if err := spec.validate(); err != nil {
		return err
	}
	s.spec, s.pid = spec, h.PID
	return nil
}

// describe says what a descriptor is instead of a memfd.
func describe(fd int) string {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		if errors.Is(err, unix.EBADF) {
			return "no descriptor"
		}
		return "unknown"
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
	return "an anonymous descriptor (an eventfd, epoll or the like)"
}

func fsName(magic uint64) string {
	if magic == hugetlbfsMagic {
		return "hugetlbfs"
	}
	return fmt.Sprintf("file system %#x", magic)
}
