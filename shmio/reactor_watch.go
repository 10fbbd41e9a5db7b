package shmio

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// Watch is one descriptor that a Reactor watches, until Close.
type Watch struct {
	r      *Reactor
	id     uint64
	fd     *FD
	onBell func(uint32) // one of the two
	onDead func()
}

// hints is what the reactor's goroutine reads bells into.
type hints struct {
	buf  [bellChunk]byte
	seen [8]uint32
}

// WatchBell calls on with what the bell says, each time it rings: each distinct hint once, or AllRoutes when the bell may
// have been full, or there were many hints, or they were none. When nobody can ring any more, or the ringer sends something
// besides, it goes quiet. It takes over read.
func (r *Reactor) WatchBell(read *FD, on func(hint uint32)) (*Watch, error) {
	return r.watch(&Watch{r: r, fd: read, onBell: on}, unix.EPOLLIN)
}

// WatchPID calls on once, when the process has died. It takes over pidfd, and only ever polls it.
func (r *Reactor) WatchPID(pidfd *FD, on func()) (*Watch, error) {
	return r.watch(&Watch{r: r, fd: pidfd, onDead: on}, unix.EPOLLIN|unix.EPOLLONESHOT)
}

func (r *Reactor) watch(w *Watch, events uint32) (*Watch, error) {
	err := w.fd.with(func(n int) error {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.closed {
			return fmt.Errorf("the reactor is closed: %w", os.ErrClosed)
		}
		r.next++
		w.id = r.next
		ev := unix.EpollEvent{Events: events, Fd: int32(w.id), Pad: int32(w.id >> 32)}
		if err := unix.EpollCtl(r.epfd, unix.EPOLL_CTL_ADD, n, &ev); err != nil {
			return fmt.Errorf("%s: %w", describe(n), err)
		}
		r.watches[w.id] = w
		return nil
	})
	if err != nil {
		_ = w.fd.Close() // the error that matters is err
		return nil, fmt.Errorf("watch: %w", err)
	}
	return w, nil
}

// Close ends the watching and closes the descriptor. A callback that has begun may still run. Idempotent.
func (w *Watch) Close() error {
	w.r.mu.Lock()
	delete(w.r.watches, w.id)
	w.r.mu.Unlock()
	w.unregister()
	return w.fd.Close()
}

// unregister takes the descriptor out of the epoll set: closing it wouldn't, as long as the one who sent it has a copy.
func (w *Watch) unregister() {
	_ = w.fd.with(func(n int) error { // it isn't registered any more, or it is closed: both are as wanted
		w.r.mu.Lock()
		defer w.r.mu.Unlock()
		if w.r.closed {
			return nil
		}
		return unix.EpollCtl(w.r.epfd, unix.EPOLL_CTL_DEL, n, nil)
	})
}

// register puts it back. That fails without memory only, and when r or w is closed.
func (w *Watch) register() {
	_ = w.fd.with(func(n int) error {
		w.r.mu.Lock()
		defer w.r.mu.Unlock()
		if w.r.closed {
			return nil
		}
		return unix.EpollCtl(w.r.epfd, unix.EPOLL_CTL_ADD, n, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(w.id), Pad: int32(w.id >> 32)})
	})
}

// rung says what a bell rang. It takes so much of it, no more: one that a hostile ringer keeps full mustn't keep the others
// waiting; what is left is the next event.
func (w *Watch) rung(h *hints) {
	n := 0
	err := w.fd.with(func(fd int) (err error) {
		n, err = hear(fd, h.buf[:], !w.fd.late)
		return err
	})
	switch {
	case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR):
		return // there is another event to come
	case err != nil || n <= 0:
		w.unregister() // nobody can ring it any more, or nobody should: it would be reported for ever
		return
	}
	w.tell(h.buf[:n], h.seen[:0])
}

// tell calls onBell with what was heard. seen is room for as many hints as are told one by one.
func (w *Watch) tell(heard []byte, seen []uint32) {
	if len(heard) >= bellRoom || len(heard)%4 != 0 {
		w.onBell(AllRoutes)
		return
	}
	for ; len(heard) > 0; heard = heard[4:] {
		hint := binary.NativeEndian.Uint32(heard)
		if slices.Contains(seen, hint) {
			continue
		}
		if hint == AllRoutes || len(seen) == cap(seen) { // many at once: looking everywhere is cheaper
			w.onBell(AllRoutes)
			return
		}
		seen = append(seen, hint)
	}
	for _, hint := range seen {
		w.onBell(hint)
	}
}
