package shmio

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// mappingsReserve is how many mappings segments leave of those that the process may have: a program in Go that finds no
// room for its own memory ends, and so may the libraries of others.
const mappingsReserve = 64

// roomLasts is how long the reserve, once seen, is believed in: to look takes 40 µs, and an attach maps a dozen segments in
// less than a millisecond.
const roomLasts = 5 * time.Millisecond

// roomSeen is when the reserve was last seen, by CoarseNow. As the limit is the process's, so is this. Each store and load
// pairs with the others here; one too many only looks again.
var roomSeen atomic.Uint64

// MappingsError says that this process has as many mappings as it may have, or nearly; it is an ENOMEM.
type MappingsError struct{ InUse, Max uint64 }

func (e *MappingsError) Error() string {
	return fmt.Sprintf("limit \"mappings\": this process has %d of %d mappings, and segments leave %d (sysctl vm.max_map_count)", e.InUse, e.Max, mappingsReserve)
}

// Is makes errors.Is(err, unix.ENOMEM) true.
func (e *MappingsError) Is(target error) bool { return target == unix.ENOMEM }

// mapShared maps a whole descriptor for a segment, unless hardly a mapping would be left. Errors: MappingsError, and what
// mmap says.
func mapShared(fd int, size uint64, prot int) ([]byte, error) {
	var err error
	if now := CoarseNow(); now-roomSeen.Load() > uint64(roomLasts) {
		if err = mappingsLeft(); err == nil {
			roomSeen.Store(now)
		}
	}
	var mem []byte
	if err == nil {
		mem, err = unix.Mmap(fd, 0, int(size), prot, unix.MAP_SHARED)
	}
	if !errors.Is(err, unix.ENOMEM) {
		return mem, err
	}
	if used, most := countMappings(), MaxMappings(); used+mappingsReserve >= most {
		return nil, &MappingsError{used, most}
	}
	return nil, err // ulimit -v, most likely
}

// mappingsLeft tries whether the reserve is there: pages of alternating protection are a mapping each. To count what there
// is takes far longer where it matters.
func mappingsLeft() error {
	page := int(pageSize())
	mem, err := unix.Mmap(-1, 0, mappingsReserve*page, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		return err
	}
	for i := page; err == nil && i+page < len(mem); i += 2 * page {
		err = unix.Mprotect(mem[i:i+page], unix.PROT_READ)
	}
	return errors.Join(err, unix.Munmap(mem))
}

// MaxMappings is how many mappings a process may have.
func MaxMappings() uint64 {
	const usual = 65530
	b, err := os.ReadFile("/proc/sys/vm/max_map_count")
	if err != nil {
		return usual
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 63)
	if err != nil {
		return usual
	}
	return n
}

// countMappings counts the lines of /proc/self/maps; all there may be if it can't be read.
func countMappings() (n uint64) {
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return MaxMappings()
	}
	defer f.Close()
	buf := make([]byte, 32<<10)
	for {
		k, err := f.Read(buf)
		n += uint64(bytes.Count(buf[:k], []byte{'\n'}))
		if err != nil {
			return n
		}
	}
}
