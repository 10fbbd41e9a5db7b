package shmio

import (
	"errors"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// heard is what a bell says when it is watched only after ring has rung it.
func heard(t *testing.T, want int, ring func(b *Bell)) (hints []uint32) {
	t.Helper()
	r := mustReactor(t)
	read, write, err := NewBell()
	noErr(t, err)
	b, err := OpenBell(write)
	noErr(t, err)
	defer b.Close()
	ring(b)
	c := make(chan uint32, 64)
	w, err := r.WatchBell(read, func(h uint32) { c <- h })
	noErr(t, err)
	for range want {
		hints = append(hints, await(t, c, "the bell"))
	}
	b.Ring(99) // nothing else comes before this
	if h := await(t, c, "the last ring"); h != 99 {
		t.Errorf("unexpected hint %d", h)
	}
	noErr(t, w.Close())
	noErr(t, w.Close())
	return hints
}

func TestReactorHints(t *testing.T) {
	checkLeaks(t)
	ring := func(hints ...uint32) func(*Bell) {
		return func(b *Bell) {
			for _, h := range hints {
				b.Ring(h)
			}
		}
	}
	raw := func(bytes string) func(*Bell) {
		return func(b *Bell) {
			_, err := unix.Write(b.n, []byte(bytes))
			noErr(t, err)
		}
	}
	all := []uint32{AllRoutes}
	for name, c := range map[string]struct {
		ring func(*Bell)
		want []uint32
	}{
		"distinct": {ring(1, 2, 2, 1, 3, 0), []uint32{1, 2, 3, 0}},
		"eight":    {ring(1, 2, 3, 4, 5, 6, 7, 8, 8), []uint32{1, 2, 3, 4, 5, 6, 7, 8}},
		"many":     {ring(1, 2, 3, 4, 5, 6, 7, 8, 9), all},
		"all":      {ring(1, AllRoutes, 2), all},
		"odd":      {raw("abcde"), all},
		"short":    {raw("a"), all},
		"full": {func(b *Bell) {
			for range 1 << 15 {
				b.Ring(3)
			}
		}, all},
	} {
		t.Run(name, func(t *testing.T) {
			if got := heard(t, len(c.want), c.ring); !slices.Equal(got, c.want) {
				t.Errorf("heard %v, want %v", got, c.want)
			}
		})
	}
}

// A ringer enlarges the bell and fills it: all is heard, a little at a time, with others in between.
func TestReactorEnlargedBell(t *testing.T) {
	checkLeaks(t)
	r := mustReactor(t)
	var mu sync.Mutex
	var order []string
	note := func(s string) { mu.Lock(); order = append(order, s); mu.Unlock() }
	ready, big := make(chan struct{}), make(chan struct{}, 1<<10)
	block, other := make(chan struct{}), make(chan struct{}, 1)
	_, gate := bellTo(t, r, func(uint32) { close(ready); <-block })
	_, flood := bellTo(t, r, func(h uint32) { note("flood"); big <- struct{}{} })
	_, honest := bellTo(t, r, func(uint32) { note("honest"); other <- struct{}{} })
	gate.Ring(1)
	await(t, ready, "the gate") // the reactor is busy: what follows is there at once
	noErr(t, unix.SetsockoptInt(flood.n, unix.SOL_SOCKET, unix.SO_SNDBUF, 1<<20))
	n, err := unix.Write(flood.n, make([]byte, 64*bellChunk))
	noErr(t, err)
	honest.Ring(1)
	close(block)
	await(t, other, "the honest bell")
	for range n / bellChunk {
		await(t, big, "the flood")
	}
	mu.Lock()
	defer mu.Unlock()
	if at := slices.Index(order, "honest"); at > 2 {
		t.Errorf("the honest bell comes after %d rounds of the flood", at)
	}
}

func registered(r *Reactor, w *Watch) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	err := unix.EpollCtl(r.epfd, unix.EPOLL_CTL_MOD, w.fd.Int(), &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(w.id)})
	return err == nil
}

// Nobody can ring any more: the last words are heard, and then the descriptor isn't polled for ever.
func TestReactorBellHangsUp(t *testing.T) {
	checkLeaks(t)
	r := mustReactor(t)
	hints := make(chan uint32, 4)
	w, b := bellTo(t, r, func(h uint32) { hints <- h })
	if !registered(r, w) {
		t.Fatal("it isn't registered at first")
	}
	b.Ring(5)
	noErr(t, b.Close())
	if h := await(t, hints, "the last ring"); h != 5 {
		t.Errorf("hint %d", h)
	}
	for end := time.Now().Add(patience); registered(r, w); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it is still polled")
		}
	}
	_, other := bellTo(t, r, func(h uint32) { hints <- h })
	other.Ring(6)
	if h := await(t, hints, "another bell"); h != 6 {
		t.Errorf("hint %d", h)
	}
}

func TestReactorPID(t *testing.T) {
	checkLeaks(t)
	r := mustReactor(t)
	c := startChild(t, 0, "idle", nil)
	c.expect("done")
	pidfd, err := PidfdOpen(c.Process.Pid)
	noErr(t, err)
	copied, err := pidfd.Dup() // a copy elsewhere keeps a registration alive; Close must end it all the same
	noErr(t, err)
	defer copied.Close()
	second, err := pidfd.Dup()
	noErr(t, err)
	dead := make(chan struct{}, 4)
	w, err := r.WatchPID(pidfd, func() { dead <- struct{}{} })
	noErr(t, err)
	never, err := r.WatchPID(second, func() { t.Error("called after Close") })
	noErr(t, err)
	noErr(t, never.Close())
	select {
	case <-dead:
		t.Fatal("it is alive")
	default:
	}
	c.kill()
	await(t, dead, "the process's death")
	again, err := r.WatchPID(copied, func() { dead <- struct{}{} }) // dead before it is watched
	noErr(t, err)
	await(t, dead, "the news of an old death")
	noErr(t, errors.Join(w.Close(), again.Close()))
	if len(dead) != 0 {
		t.Error("told twice")
	}
	_, err = PidfdOpen(c.Process.Pid)
	wantErr(t, err, unix.ESRCH)
}

func TestReactorCallbacksMayWatchAndClose(t *testing.T) {
	checkLeaks(t)
	r := mustReactor(t)
	done, first := make(chan struct{}), make(chan *Watch, 1)
	var b2 *Bell
	var once sync.Once
	w, b := bellTo(t, r, func(uint32) {
		once.Do(func() {
			_ = (<-first).Close()
			_, b2 = bellTo(t, r, func(uint32) { close(done) })
			b2.Ring(1)
		})
	})
	first <- w
	b.Ring(1)
	await(t, done, "the second bell")
}

func TestReactorRefuses(t *testing.T) {
	checkLeaks(t)
	r := mustReactor(t)
	f, err := os.CreateTemp(t.TempDir(), "")
	noErr(t, err)
	defer f.Close()
	n, err := unix.Dup(int(f.Fd()))
	noErr(t, err)
	_, err = r.WatchPID(NewFD(n), func() {})
	wantErr(t, err, unix.EPERM, "an ordinary file")
	closed := newEventfd(t)
	noErr(t, closed.Close())
	_, err = r.WatchBell(closed, func(uint32) {})
	wantErr(t, err, os.ErrClosed)
	noErr(t, r.Close())
	noErr(t, r.Close())
	fd := newEventfd(t)
	_, err = r.WatchBell(fd, func(uint32) {})
	wantErr(t, err, os.ErrClosed)
	if fd.Int() != -1 {
		t.Error("the descriptor is kept")
	}
}

func TestReactorBackstopSlowsDown(t *testing.T) {
	checkLeaks(t)
	const first, most = 10 * time.Millisecond, 40 * time.Millisecond
	start := time.Now()
	r, err := newReactor(backoff{first: first, busy: first, most: most})
	noErr(t, err)
	defer r.Close()
	at := make(chan time.Time, 64)
	cancel := r.OnBackstop(func() { at <- time.Now() })
	last := start
	// A timer is never early, so the least times can be checked without hoping.
	for i, least := range []time.Duration{first, 2 * first, most, most} {
		now := await(t, at, "the backstop")
		if d := now.Sub(last); d < least-time.Millisecond {
			t.Errorf("call %d comes after %v, at least %v", i, d, least)
		}
		last = now
	}
	cancel()
	called := make(chan struct{}, 64)
	defer r.OnBackstop(func() { called <- struct{}{} })()
	await(t, called, "another backstop")
	for len(at) > 0 {
		<-at
	}
	await(t, called, "another backstop")
	await(t, called, "another backstop")
	if len(at) > 0 {
		t.Error("called after cancel")
	}
}

// Whatever the slowness, something that happens brings the backstop near again.
func TestReactorBackstopAfterActivity(t *testing.T) {
	checkLeaks(t)
	const hour = time.Hour
	r, err := newReactor(backoff{first: time.Millisecond, busy: time.Millisecond, most: hour})
	noErr(t, err)
	defer r.Close()
	calls := make(chan time.Time, 64)
	defer r.OnBackstop(func() { calls <- time.Now() })()
	for i := range 9 { // the next wait is half a second or more
		_ = i
		await(t, calls, "the backstop")
	}
	_, b := bellTo(t, r, func(uint32) {})
	rung := time.Now()
	b.Ring(1)
	near := 0
	for range 5 { // 1, 2, 4, 8, 16 ms after; unless it was reset, the first alone takes 512
		if await(t, calls, "the backstop").Sub(rung) < 400*time.Millisecond {
			near++
		}
	}
	if near < 2 {
		t.Errorf("%d calls soon after the ring", near)
	}
}

// What waits holds no OS thread.
func TestReactorsHoldNoThreads(t *testing.T) {
	checkLeaks(t)
	threads := func() int {
		d, err := os.ReadDir("/proc/self/task")
		noErr(t, err)
		return len(d)
	}
	before := threads()
	var rung atomic.Int32
	all := make(chan struct{})
	const n = 60
	for range n {
		_, b := bellTo(t, mustReactor(t), func(uint32) {
			if rung.Add(1) == n {
				close(all)
			}
		})
		b.Ring(1)
	}
	await(t, all, "all bells")
	if after := threads(); after > before+n/2 {
		t.Errorf("%d threads before, %d after", before, after)
	}
}

func TestReactorConcurrent(t *testing.T) {
	checkLeaks(t)
	r := mustReactor(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 100 {
				c := make(chan struct{}, 1024)
				w, b := bellTo(t, r, func(uint32) { c <- struct{}{} })
				b.Ring(1)
				select {
				case <-c:
				case <-time.After(patience):
					t.Error("a bell isn't heard")
				}
				_ = w.Close()
				_ = b.Close()
			}
		})
	}
	wg.Wait()
}
