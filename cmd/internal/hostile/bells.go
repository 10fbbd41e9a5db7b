package hostile

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio"
)

func bellAttacks() []Attack {
	return []Attack{
		{"bell-reader", "rings a subscriber's bell without end, and comes again when cut off", true, ringReader},
		{"bell-writer", "subscribes, and rings the publisher's bell for room without end", true, ringWriter},
		{"bell-center", "rings the center's bell without end", true, ringCenter},
		{"bell-spoiled", "gives bells that are full, closed, read by itself, blocking, or no bells", true, spoilBells},
	}
}

// ringFor rings a bell until ctx ends, or the route does and for a while after: who isn't heard any more may not cost
// anything either.
func (a *attacker) ringFor(ctx context.Context, bell *shmio.Bell, over func() bool) {
	for more := 10_000; ctx.Err() == nil && more > 0; {
		for range 64 {
			bell.Ring(a.rand.Uint32() & 7)
		}
		a.count += 64
		if over() {
			more -= 64
		}
	}
}

func ringReader(ctx context.Context, a *attacker) error {
	return a.again(ctx, func(ctx context.Context, r *rawNode) error {
		for ctx.Err() == nil && !r.isOver() {
			ro, err := r.publishes(ctx, evilTopic)
			if err != nil {
				return err
			}
			a.ready()
			a.ringFor(ctx, ro.bell, func() bool { return r.gone(ro) })
			if err := r.unpublishes(ctx, evilTopic); err != nil {
				return err
			}
		}
		return nil
	})
}

func ringWriter(ctx context.Context, a *attacker) error {
	return a.again(ctx, func(ctx context.Context, r *rawNode) error {
		ro, err := r.subscribes(ctx, 1, goodTopic)
		if err != nil {
			return err
		}
		a.ready()
		a.ringFor(ctx, ro.bell, func() bool { return r.gone(ro) })
		return r.unsubscribes(ctx, 1)
	})
}

func ringCenter(ctx context.Context, a *attacker) error {
	return a.again(ctx, func(ctx context.Context, r *rawNode) error {
		a.ready()
		a.ringFor(ctx, r.center, r.isOver)
		return nil
	})
}

// spoilBells says Hello, or answers a RouteOpen, with a bell that is none or a bad one.
func spoilBells(ctx context.Context, a *attacker) error {
	dir, err := os.MkdirTemp("", "hostile-bells-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o666); err != nil {
		return err
	}
	service := filepath.Join(dir, "service")
	listening, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(listening)
	if err := errors.Join(unix.Bind(listening, &unix.SockaddrUnix{Name: service}), unix.Listen(listening, 8)); err != nil {
		return err
	}
	pair := func(kind int, f func(mine, theirs int)) func() ([]int, error) {
		return func() ([]int, error) {
			p, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0) // blocking
			if err != nil {
				return nil, err
			}
			f(p[0], p[1])
			return []int{p[1], p[0]}, nil // the first is passed
		}
	}
	one := func(n int, err error) ([]int, error) { return []int{n}, err }
	bells := []func() ([]int, error){
		pair(unix.SOCK_STREAM, func(_, _ int) {}),
		pair(unix.SOCK_STREAM, func(_, theirs int) { // full
			for b := make([]byte, 4096); unix.Sendto(theirs, b, unix.MSG_DONTWAIT, nil) == nil; {
			}
		}),
		pair(unix.SOCK_STREAM, func(mine, _ int) { // drained by us all the time
			go func() {
				b := make([]byte, 4096)
				for {
					if n, err := unix.Read(mine, b); n <= 0 || err != nil {
						return
					}
				}
			}()
		}),
		pair(unix.SOCK_STREAM, func(mine, _ int) { // full of descriptors for the ringer
			for unix.Sendmsg(mine, []byte("x"), unix.UnixRights(mine), nil, unix.MSG_DONTWAIT) == nil {
			}
		}),
		pair(unix.SOCK_STREAM, func(mine, _ int) { _ = unix.Shutdown(mine, unix.SHUT_RDWR) }), // nobody will ever read it
		pair(unix.SOCK_DGRAM, func(_, _ int) {}),
		pair(unix.SOCK_SEQPACKET, func(_, _ int) {}),
		func() ([]int, error) { return one(unix.Dup(listening)) },
		func() ([]int, error) { // somebody's service
			n, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
			if err != nil {
				return nil, err
			}
			err = unix.Connect(n, &unix.SockaddrUnix{Name: service})
			if err == unix.EAGAIN { // its queue is full: then one that isn't connected
				err = nil
			}
			return []int{n}, err
		},
		func() ([]int, error) {
			var p [2]int
			err := unix.Pipe2(p[:], unix.O_CLOEXEC)
			return []int{p[1], p[0]}, err
		},
		func() ([]int, error) { return one(unix.Open(fifo, unix.O_RDWR|unix.O_CLOEXEC, 0)) }, // one with a name
		func() ([]int, error) { return one(unix.Eventfd(0, unix.EFD_CLOEXEC)) },
		func() ([]int, error) { return one(unix.Open("/dev/zero", unix.O_RDWR|unix.O_CLOEXEC, 0)) },
		func() ([]int, error) { return one(unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)) },
		func() ([]int, error) { return one(unix.MemfdCreate("no-bell", unix.MFD_CLOEXEC)) },
		func() ([]int, error) {
			return one(unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0))
		},
	}
	for i := 0; ctx.Err() == nil; i++ {
		ns, err := bells[i%len(bells)]()
		if err != nil {
			return err
		}
		var fds []*shmio.FD
		for _, n := range ns {
			fds = append(fds, shmio.NewFD(n))
		}
		err = a.tryBell(ctx, fds[0], i/len(bells)%2 == 1)
		closeFDs(fds)
		if err != nil {
			pause(ctx, time.Millisecond)
		}
		a.count++
		a.ready()
	}
	return nil
}

// tryBell makes the center, or a publisher, ring that bell.
func (a *attacker) tryBell(ctx context.Context, bell *shmio.FD, ofRoute bool) error {
	r, h, err := dialRaw(ctx, a.Socket)
	if err != nil {
		return err
	}
	defer r.close()
	if !ofRoute {
		if err := r.send(bhomev1.MsgType_MSG_TYPE_HELLO, h, r.seg0.FD(), r.data.FD(), bell); err != nil {
			return err
		}
		if err := r.welcome(); err != nil {
			return err
		}
		return r.register(ctx, false) // its answers ring the bell
	}
	r.bell = bell
	if err := r.hello(h); err != nil {
		return err
	}
	if err := r.register(ctx, false); err != nil {
		return err
	}
	if _, err := r.subscribes(ctx, 1, goodTopic); err != nil {
		return err
	}
	pause(ctx, 5*time.Millisecond) // the publisher rings: we never look
	return nil
}
