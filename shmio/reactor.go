package shmio

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// AllRoutes, as a bell's hint, says that any route may have something.
const AllRoutes = ^uint32(0)

// backoff is how often the backstop comes: first after something happened, but for busy after the one before; then twice as long
// each time, most at last.
type backoff struct{ first, busy, most time.Duration }

// Reactor watches the bells and the deaths of others for one process: one goroutine, parked in Go's netpoller on an epoll
// descriptor of its own, so that no OS thread is held and a wake-up costs the same however many are watched. It is also
// the process's backstop timer. Callbacks run on its goroutine: they must not block, and must not close the reactor; they
// may add and close watches. All methods are safe for concurrent use.
type Reactor struct {
	file    *os.File // the epoll descriptor
	raw     syscall.RawConn
	backoff backoff
	done    chan struct{} // closed when the goroutine has ended
	hurry   atomic.Uint64 // until when, by CoarseNow; pairs with run's load

	mu        sync.Mutex
	epfd      int // file's; used under mu, and only while not closed
	watches   map[uint64]*Watch
	next      uint64 // the last id given; ids are never used twice
	backstops map[uint64]func()
	closed    bool
}

// NewReactor starts a reactor. busy is how often the backstop comes while things happen, 100 ms to 2 s: it costs a wake-up of the
// process each time, and is how late a lost wake-up is noticed then.
func NewReactor(busy time.Duration) (*Reactor, error) {
	const first, most = 100 * time.Millisecond, 2 * time.Second
	return newReactor(backoff{first: first, busy: min(max(busy, first), most), most: most})
}

// Hurry has the backstop come each 100 ms for so long: for when others come and go, and wait for what this process has to say.
func (r *Reactor) Hurry(d time.Duration) {
	r.hurry.Store(CoarseNow() + uint64(d))
	_ = r.file.SetReadDeadline(time.Now().Add(r.backoff.first)) // it fails once closed: there is nothing to hurry for
}

func newReactor(b backoff) (*Reactor, error) {
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make a reactor: epoll: %w", err)
	}
	if err := unix.SetNonblock(epfd, true); err != nil { // os.NewFile then gives it to the netpoller
		_ = unix.Close(epfd) // the error that matters is err
		return nil, fmt.Errorf("make a reactor: %w", err)
	}
	r := &Reactor{epfd: epfd, file: os.NewFile(uintptr(epfd), "bhome-reactor"), backoff: b, done: make(chan struct{}),
		watches: map[uint64]*Watch{}, backstops: map[uint64]func(){}}
	if r.raw, err = r.file.SyscallConn(); err == nil {
		err = r.file.SetReadDeadline(time.Now().Add(b.first)) // it also tells whether the netpoller has it
	}
	if err != nil {
		_ = r.file.Close() // the error that matters is err
		return nil, fmt.Errorf("make a reactor: %w", err)
	}
	go r.run()
	return r, nil
}

// OnBackstop calls f 100 ms after something happened, as often as NewReactor was told while more happens, and then ever more
// rarely, down to every 2 s: whatever wake-up was lost or stolen is late, and no worse. One call may still follow cancel.
func (r *Reactor) OnBackstop(f func()) (cancel func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.next++
	id := r.next
	r.backstops[id] = f
	return func() {
		r.mu.Lock()
		delete(r.backstops, id)
		r.mu.Unlock()
	}
}

// run is the goroutine, from NewReactor to Close.
func (r *Reactor) run() {
	defer close(r.done)
	var events [64]unix.EpollEvent
	n := 0
	poll := func(fd uintptr) bool { // false: park until the netpoller says that there is something
		var err error
		for err = unix.EINTR; err == unix.EINTR; {
			n, err = quickEvents(int(fd), events[:])
		}
		n = max(n, 0) // it can't fail otherwise: the descriptor is an epoll one, and open
		return n > 0
	}
	var h hints
	last, wait, active := time.Now(), r.backoff.first, false // the last backstop, and how long after it the next one is
	due := last.Add(wait)
	for {
		n = 0
		err := r.raw.Read(poll)
		late := errors.Is(err, os.ErrDeadlineExceeded)
		if err != nil && !late {
			return // closed
		}
		for i := range n {
			r.dispatch(uint64(uint32(events[i].Fd))|uint64(uint32(events[i].Pad))<<32, &h)
		}
		switch {
		case late:
			r.backstop()
			last = time.Now()
			switch {
			case CoarseNow() < r.hurry.Load():
				wait = r.backoff.first
			case active:
				wait = r.backoff.busy
			default:
				wait = min(2*wait, r.backoff.most)
			}
			due, active = last.Add(wait), false
		case n > 0:
			if active = true; wait <= r.backoff.busy {
				continue // the next is close enough: each wakes the process, which in a crowd is most of its work
			}
			near := time.Now().Add(r.backoff.first)
			if soonest := last.Add(r.backoff.busy); near.Before(soonest) {
				near = soonest
			}
			if !near.Before(due) {
				continue
			}
			due, wait = near, r.backoff.busy
		default:
			continue
		}
		if err := r.file.SetReadDeadline(due); err != nil {
			return // closed
		}
	}
}

func (r *Reactor) backstop() {
	r.mu.Lock()
	calls := make([]func(), 0, len(r.backstops))
	for _, f := range r.backstops {
		calls = append(calls, f)
	}
	r.mu.Unlock()
	for _, f := range calls {
		f()
	}
}

// dispatch handles one event of the watch with that id, if there still is one.
func (r *Reactor) dispatch(id uint64, h *hints) {
	r.mu.Lock()
	w := r.watches[id]
	r.mu.Unlock()
	switch {
	case w == nil:
	case w.onDead != nil:
		w.onDead()
	default:
		w.rung(h)
	}
}

// Close ends the goroutine and waits for it; what is watched is closed too. Idempotent.
func (r *Reactor) Close() error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		<-r.done
		return nil
	}
	r.closed = true // before the descriptor's number can be somebody else's
	watches := make([]*Watch, 0, len(r.watches))
	for _, w := range r.watches {
		watches = append(watches, w)
	}
	r.mu.Unlock()
	err := r.file.Close() // it ends the goroutine's wait
	<-r.done
	for _, w := range watches {
		err = errors.Join(err, w.Close())
	}
	if err != nil {
		return fmt.Errorf("close the reactor: %w", err)
	}
	return nil
}
