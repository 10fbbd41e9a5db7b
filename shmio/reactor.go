package shmio

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// AllRoutes, as a bell's hint, says that any route may have something.
const AllRoutes = ^uint32(0)

const (
	backstopFirst = 100 * time.Millisecond
	backstopMost  = 2 * time.Second
)

// Reactor watches the bells and the deaths of others for one process: one goroutine, parked in Go's netpoller on an epoll
// descriptor of its own, so that no OS thread is held and a wake-up costs the same however many are watched. It is also
// the process's backstop timer. Callbacks run on its goroutine: they must not block, and must not close the reactor.
type Reactor struct {
	file *os.File // the epoll descriptor
	raw  syscall.RawConn
	done chan struct{}

	mu        sync.Mutex
	epfd      int
	watches   map[uint64]*Watch
	next      uint64
	backstops map[uint64]func()
	closed    bool
}

// Watch is one thing watched, until Close.
type Watch struct {
	r  *Reactor
	id uint64

	mu     sync.Mutex // the descriptor's use against its closing
	fd     *FD
	onBell func(uint32)
	onDead func()
}

// NewReactor starts a reactor.
func NewReactor() (*Reactor, error) {
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make a reactor: epoll: %w", err)
	}
	if err := unix.SetNonblock(epfd, true); err != nil { // os.NewFile then gives it to the netpoller
		_ = unix.Close(epfd)
		return nil, fmt.Errorf("make a reactor: %w", err)
	}
	r := &Reactor{epfd: epfd, file: os.NewFile(uintptr(epfd), "bhome-reactor"), done: make(chan struct{}),
		watches: map[uint64]*Watch{}, backstops: map[uint64]func(){}}
	if r.raw, err = r.file.SyscallConn(); err == nil {
		err = r.file.SetReadDeadline(time.Now().Add(backstopFirst))
	}
	if err != nil {
		_ = r.file.Close()
		return nil, fmt.Errorf("make a reactor: %w", err)
	}
	go r.run()
	return r, nil
}

// WatchBell calls on with what the bell says, each time it rings. It takes over read.
func (r *Reactor) WatchBell(read *FD, on func(hint uint32)) (*Watch, error) {
	// Edge-triggered: each ring is one event, and a hang-up of the ringer is one too, not one for ever.
	return r.watch(&Watch{r: r, fd: read, onBell: on}, unix.EPOLLIN|unix.EPOLLET)
}

// WatchPID calls on once, when the process has died. It takes over pidfd, and only ever polls it.
func (r *Reactor) WatchPID(pidfd *FD, on func()) (*Watch, error) {
	return r.watch(&Watch{r: r, fd: pidfd, onDead: on}, unix.EPOLLIN|unix.EPOLLONESHOT)
}

func (r *Reactor) watch(w *Watch, events uint32) (*Watch, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		_ = w.fd.Close()
		return nil, fmt.Errorf("watch: the reactor is closed: %w", os.ErrClosed)
	}
	r.next++
	w.id = r.next
	ev := unix.EpollEvent{Events: events, Fd: int32(w.id), Pad: int32(w.id >> 32)}
	if err := unix.EpollCtl(r.epfd, unix.EPOLL_CTL_ADD, w.fd.Int(), &ev); err != nil {
		what := describe(w.fd.Int())
		_ = w.fd.Close() // the error that matters is err
		return nil, fmt.Errorf("watch %s: %w", what, err)
	}
	r.watches[w.id] = w
	return w, nil
}

// Close ends the watching and closes the descriptor. A callback that has begun may still run.
func (w *Watch) Close() error {
	w.r.mu.Lock()
	delete(w.r.watches, w.id)
	w.r.mu.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	// The descriptor was perhaps passed around: closing ours doesn't end its registration as long as copies are open.
	w.r.mu.Lock()
	if n := w.fd.Int(); n >= 0 && !w.r.closed {
		_ = unix.EpollCtl(w.r.epfd, unix.EPOLL_CTL_DEL, n, nil) // it is registered: it can't fail in a way that matters
	}
	w.r.mu.Unlock()
	return w.fd.Close()
}

// OnBackstop calls f 100 ms after something happened, then ever more rarely, down to every 2 s: whatever wake-up was
// lost or stolen is late, and no worse.
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

func (r *Reactor) run() {
	defer close(r.done)
	var events [64]unix.EpollEvent
	buf := make([]byte, bellPipeSize)
	wait, active := backstopFirst, false
	for {
		n := 0
		err := r.raw.Read(func(fd uintptr) bool {
			var err error
			n, err = unix.EpollWait(int(fd), events[:], 0)
			return n > 0 || err != nil && !errors.Is(err, unix.EINTR)
		})
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			r.mu.Lock()
			closed := r.closed
			calls := make([]func(), 0, len(r.backstops))
			for _, f := range r.backstops {
				calls = append(calls, f)
			}
			r.mu.Unlock()
			if closed {
				return
			}
			if wait = min(2*wait, backstopMost); active {
				wait, active = backstopFirst, false
			}
			if err := r.file.SetReadDeadline(time.Now().Add(wait)); err != nil {
				return // closed
			}
			for _, f := range calls {
				f()
			}
		case err != nil:
			return // closed
		}
		for i := range n {
			active = true
			r.dispatch(uint64(uint32(events[i].Fd))|uint64(uint32(events[i].Pad))<<32, buf)
		}
	}
}

func (r *Reactor) dispatch(id uint64, buf []byte) {
	r.mu.Lock()
	w := r.watches[id]
	r.mu.Unlock()
	if w == nil {
		return
	}
	if w.onDead != nil {
		w.onDead()
		return
	}
	w.mu.Lock()
	n, err := -1, error(nil)
	if fd := w.fd.Int(); fd >= 0 {
		n, err = unix.Read(fd, buf)
	}
	w.mu.Unlock()
	if err != nil || n <= 0 {
		return // nothing there, or the ringer is gone
	}
	if n == len(buf) || n%4 != 0 {
		w.onBell(AllRoutes)
		if n == len(buf) {
			w.drain(buf) // the edge is used up: what is left must be taken now
		}
		return
	}
	hints := make([]uint32, 0, 8)
	for at := 0; at < n; at += 4 {
		if h := binary.NativeEndian.Uint32(buf[at:]); !slices.Contains(hints, h) {
			if len(hints) == cap(hints) { // many at once: looking everywhere is cheaper
				w.onBell(AllRoutes)
				return
			}
			hints = append(hints, h)
		}
	}
	for _, h := range hints {
		w.onBell(h)
	}
}

// drain empties the pipe, a bounded number of times: one who rings without end is heard at the next backstop.
func (w *Watch) drain(buf []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for range 16 {
		fd := w.fd.Int()
		if fd < 0 {
			return
		}
		if n, err := unix.Read(fd, buf); err != nil || n < len(buf) {
			return
		}
	}
}

// Close ends the goroutine and waits for it; what is watched is closed too.
func (r *Reactor) Close() error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		<-r.done
		return nil
	}
	r.closed = true
	watches := make([]*Watch, 0, len(r.watches))
	for _, w := range r.watches {
		watches = append(watches, w)
	}
	r.mu.Unlock()
	err := r.file.SetReadDeadline(time.Unix(1, 0)) // wakes the goroutine
	<-r.done
	for _, w := range watches {
		err = errors.Join(err, w.Close())
	}
	if err := errors.Join(err, r.file.Close()); err != nil {
		return fmt.Errorf("close the reactor: %w", err)
	}
	return nil
}
