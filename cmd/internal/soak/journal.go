package soak

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// journal is what a process notes of its own doings in a mapped file: unlike what it says, it survives a SIGKILL to the
// last word. The director reads it, also after the process's death; providers count in it the requests they handle.
//
//	0      u64  1: the process ends by itself, without a word
//	8      u64  slots in use
//	64     slots of 64 bytes, each with one writer: kind, then six counters
//	64 KiB      32 bits for each request of the process, by its number modulo handledSlots: how often it was handled, and
//	            above 8 bits the member that did so last
type journal struct {
	path string
	mem  []byte
}

const (
	slotBytes    = 64
	maxSlots     = 64<<10/slotBytes - 1
	handledAt    = 64 << 10
	handledSlots = 1 << 18
	journalBytes = handledAt + 4*handledSlots
)

// The kinds of slots, in the low byte of their first word; above it is the position in the process's configuration.
const (
	slotPub = 1 + iota
	slotSub
	slotAsk
)

// The counters of a slot. What each counts depends on its kind.
const (
	cBegun   = 1 + iota // publisher: the position after the last that it began to send; subscriber: received; client: asked
	cSent               // publisher: after the last that was sent; client: answered with a reply
	cFailed             // client: answered with an error that is as it should be
	cBytes              // of payload
	cRefused            // publisher: sends for which there was no memory, or a subscriber had no room in time
)

// slot is one publisher's, subscriber's or client's part of a journal.
type slot []byte

var errJournalFull = errors.New("the journal has no slot left")

func journalPath(dir string, member uint32) string {
	return filepath.Join(dir, "journal-"+strconv.FormatUint(uint64(member), 10))
}

// openJournal maps the journal of a member; create makes it, and nobody sees it before it is whole.
func openJournal(dir string, member uint32, create bool) (_ *journal, err error) {
	path := journalPath(dir, member)
	if create {
		temporary := path + ".new"
		err := os.WriteFile(temporary, nil, 0o600)
		if err == nil {
			err = os.Truncate(temporary, journalBytes)
		}
		if err == nil {
			err = os.Rename(temporary, path)
		}
		if err != nil {
			return nil, fmt.Errorf("journal: %w", err)
		}
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	defer f.Close()
	mem, err := syscall.Mmap(int(f.Fd()), 0, journalBytes, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", path, err)
	}
	return &journal{path: path, mem: mem}, nil
}

func (j *journal) close() { _ = syscall.Munmap(j.mem) }

func (j *journal) word(at int) uint64       { return binary.LittleEndian.Uint64(j.mem[at:]) }
func (j *journal) setWord(at int, v uint64) { binary.LittleEndian.PutUint64(j.mem[at:], v) }

// exiting says that the process is about to end by itself.
func (j *journal) exiting() bool { return j.word(0) != 0 }

// leave notes that the process ends by itself.
func (j *journal) leave() { j.setWord(0, 1) }

func (j *journal) slots() int { return int(min(j.word(8), maxSlots)) }

// slot is the one with that number, from 0.
func (j *journal) slot(i int) slot {
	at := slotBytes * (1 + i)
	return slot(j.mem[at : at+slotBytes])
}

// add takes the next slot. The caller sees to it that one does at a time.
func (j *journal) add(kind, spec int) (int, slot, error) {
	i := j.slots()
	if i == maxSlots {
		return 0, nil, errJournalFull
	}
	s := j.slot(i)
	s.set(0, uint64(kind)|uint64(spec)<<8)
	j.setWord(8, uint64(i+1))
	return i, s, nil
}

func (s slot) get(c int) uint64    { return binary.LittleEndian.Uint64(s[8*c:]) }
func (s slot) set(c int, v uint64) { binary.LittleEndian.PutUint64(s[8*c:], v) }
func (s slot) add(c int, v uint64) { s.set(c, s.get(c)+v) }
func (s slot) kind() int           { return int(s.get(0) & 0xff) }
func (s slot) spec() int           { return int(s.get(0) >> 8) }

// handled is how often a request was handled, and by whom last.
func (j *journal) handled(request uint64) (times uint8, by uint32) {
	v := binary.LittleEndian.Uint32(j.mem[handledAt+4*(request%handledSlots):])
	return uint8(v), v >> 8
}

func (j *journal) setHandled(request uint64, times uint8, by uint32) {
	binary.LittleEndian.PutUint32(j.mem[handledAt+4*(request%handledSlots):], uint32(times)|by<<8)
}
