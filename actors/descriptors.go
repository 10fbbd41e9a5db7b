package actors

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio"
)

// descriptorReserve is what newcomers leave of our descriptors, as a part of all: those who are here go on to need some.
const descriptorReserve = 4

// descriptorsLeft refuses a newcomer when few descriptors are left. limit is RLIMIT_NOFILE's.
func descriptorsLeft(limit uint64) *bhomev1.ErrorMsg {
	most := limit - limit/descriptorReserve
	if used := openDescriptors(limit); used >= most {
		e := tooMany("descriptors", fmt.Sprintf("bhomed, process %d", os.Getpid()), int(used), int(most))
		e.Message = "raise its limit of open files (ulimit -n, LimitNOFILE)"
		return e
	}
	return nil
}

// descriptorLimit is how many descriptors we may have.
func descriptorLimit() uint64 {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) != nil {
		return 1 << 20
	}
	return min(l.Cur, 1<<30)
}

// openDescriptors is how many there are. Linux 6.2 and later says so at once; before, they are counted where they can't be
// many, and else taken for none.
func openDescriptors(limit uint64) uint64 {
	const few = 8192
	st, err := os.Stat("/proc/self/fd")
	if err == nil && st.Size() > 0 {
		return uint64(st.Size())
	}
	if limit > few {
		return 0
	}
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil { // none is left to look
		return limit
	}
	return uint64(len(all))
}

// ownLimit is the refusal if what failed is our own lack of mappings, address space or descriptors, and no fault of the
// node's; else nil.
func ownLimit(err error) *bhomev1.ErrorMsg {
	e := &bhomev1.ErrorMsg{Code: bhomev1.ErrorCode_ERROR_CODE_NO_MEMORY, Whose: fmt.Sprintf("bhomed, process %d", os.Getpid())}
	var mappings *shmio.MappingsError
	switch {
	case errors.As(err, &mappings):
		e.Limit, e.InUse, e.Max = limitMappings, mappings.InUse, mappings.Max
	case errors.Is(err, unix.ENOMEM):
		e.Limit = "address space"
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
		e.Limit = "descriptors"
	default:
		return nil
	}
	e.Message = err.Error()
	return e
}
