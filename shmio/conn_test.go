package shmio

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// connPair is both ends of a connection.
func connPair(t *testing.T) (a, b *Conn) {
	t.Helper()
	l, err := Listen(filepath.Join(shortDir(t), "s"), 0o600)
	noErr(t, err)
	defer l.Close()
	a, err = Dial(context.Background(), l.Path())
	noErr(t, err)
	b, err = l.Accept()
	noErr(t, err)
	t.Cleanup(func() { noErr(t, errors.Join(a.Close(), b.Close())) })
	return a, b
}

func TestConnCarriesMessagesAndDescriptors(t *testing.T) {
	checkLeaks(t)
	a, b := connPair(t)
	if p := a.Peer(); p.PID != int32(os.Getpid()) || p.UID != uint32(os.Getuid()) || !reflect.DeepEqual(p, b.Peer()) {
		t.Errorf("the peer is %+v", p)
	}
	var fds []*FD
	for range MaxDescriptors {
		fds = append(fds, newEventfd(t))
	}
	defer closeAll(fds)
	var ino unix.Stat_t
	noErr(t, unix.Fstat(fds[5].Int(), &ino))
	big := bytes.Repeat([]byte{7}, 64<<10)
	noErr(t, a.Send([]byte("plain")))
	noErr(t, a.Send(big, fds...))
	noErr(t, a.Send([]byte("last"), fds[0]))
	buf := make([]byte, 64<<10)
	for _, want := range []struct {
		msg []byte
		fds int
	}{{[]byte("plain"), 0}, {big, 8}, {[]byte("last"), 1}} {
		n, got, err := b.Receive(buf)
		noErr(t, err)
		if !bytes.Equal(buf[:n], want.msg) || len(got) != want.fds {
			t.Errorf("%d bytes, %d descriptors; want %d, %d", n, len(got), len(want.msg), want.fds)
		}
		for _, f := range got {
			if flags, err := unix.FcntlInt(uintptr(f.Int()), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
				t.Errorf("descriptor %d has flags %#x (%v)", f.Int(), flags, err)
			}
		}
		closeAll(got)
	}
	noErr(t, a.Close())
	noErr(t, a.Close())
	for range 2 {
		if _, _, err := b.Receive(buf); err != io.EOF {
			t.Errorf("after hang-up: %v", err)
		}
	}
	wantErr(t, b.Send([]byte("x")), unix.EPIPE)
}

func TestConnReceiveMessage(t *testing.T) {
	checkLeaks(t)
	a, b := connPair(t)
	fd := newEventfd(t)
	defer fd.Close()
	type got struct {
		msg []byte
		fds []*FD
		err error
	}
	first := make(chan got)
	go func() {
		msg, fds, err := b.ReceiveMessage(1000)
		first <- got{msg, fds, err}
	}()
	noErr(t, a.Send([]byte("waited for"), fd))
	g := <-first
	noErr(t, g.err)
	if string(g.msg) != "waited for" || cap(g.msg) > 64 || len(g.fds) != 1 {
		t.Errorf("%q in %d bytes, %d descriptors", g.msg, cap(g.msg), len(g.fds))
	}
	closeAll(g.fds)
	noErr(t, a.Send(make([]byte, 1000)))
	noErr(t, a.Send(make([]byte, 1001), fd))
	noErr(t, a.Send([]byte("after it")))
	if msg, _, err := b.ReceiveMessage(1000); err != nil || len(msg) != 1000 {
		t.Errorf("%d bytes, %v", len(msg), err)
	}
	_, fds, err := b.ReceiveMessage(1000)
	wantErr(t, err, ErrBadMessage, "longer than 1000 bytes")
	closeAll(fds)
	if msg, _, err := b.ReceiveMessage(1000); err != nil || string(msg) != "after it" {
		t.Errorf("%q, %v", msg, err)
	}
	noErr(t, a.Close())
	if _, _, err := b.ReceiveMessage(1000); err != io.EOF {
		t.Errorf("after hang-up: %v", err)
	}
	noErr(t, b.Close())
	_, _, err = b.ReceiveMessage(1000)
	wantErr(t, err, net.ErrClosed)
}

func TestConnRefusesToSend(t *testing.T) {
	checkLeaks(t)
	a, b := connPair(t)
	wantErr(t, a.Send(nil), ErrBadMessage)
	f := newEventfd(t)
	fds := make([]*FD, 9)
	for i := range fds {
		fds[i] = f
	}
	wantErr(t, a.Send([]byte("x"), fds...), ErrBadMessage)
	noErr(t, f.Close())
	wantErr(t, a.Send([]byte("x"), f), unix.EBADF)
	wantErr(t, a.Send(make([]byte, 8<<20)), unix.EMSGSIZE)
	noErr(t, a.Send([]byte("fine")))
	buf := make([]byte, 16)
	n, _, err := b.Receive(buf)
	noErr(t, err)
	if string(buf[:n]) != "fine" {
		t.Errorf("received %q", buf[:n])
	}
}

// What a hostile peer sends is an error, leaves no descriptor behind, and the connection goes on.
func TestConnHostilePeer(t *testing.T) {
	checkLeaks(t)
	a, b := connPair(t)
	f := newEventfd(t)
	defer f.Close()
	many := func(n int) []byte {
		fds := make([]int, n)
		for i := range fds {
			fds[i] = f.Int()
		}
		return unix.UnixRights(fds...)
	}
	raw := func(msg, oob []byte) {
		t.Helper()
		_, _, err := a.c.WriteMsgUnix(msg, oob, nil)
		noErr(t, err)
	}
	buf := make([]byte, 64)
	before := len(openFDs(t))
	for name, c := range map[string]struct {
		send func()
		says string
	}{
		"200 descriptors":   {func() { raw([]byte("x"), many(200)) }, "more than 8 descriptors"},
		"9 descriptors":     {func() { raw([]byte("x"), many(9)) }, "more than 8 descriptors"},
		"two lists":         {func() { raw([]byte("x"), append(many(5), many(5)...)) }, "more than 8 descriptors"},
		"too long":          {func() { raw(make([]byte, 65), nil) }, "longer than 64 bytes"},
		"too long with fds": {func() { raw(make([]byte, 1000), many(3)) }, "longer than 64 bytes"},
		"empty": {func() {
			noErr(t, a.control(func(fd int) error { return unix.Sendto(fd, nil, 0, nil) }))
		}, "it is empty"},
	} {
		c.send()
		noErr(t, a.Send([]byte("next")))
		n, fds, err := b.Receive(buf)
		if err == nil || n != 0 || fds != nil {
			t.Fatalf("%s: %d bytes, %d descriptors, %v", name, n, len(fds), err)
		}
		wantErr(t, err, ErrBadMessage, c.says)
		if n, _, err := b.Receive(buf); err != nil || string(buf[:n]) != "next" {
			t.Fatalf("after %s: %q, %v", name, buf[:n], err)
		}
	}
	if after := len(openFDs(t)); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
	// An empty message at the very end is a hang-up.
	noErr(t, a.control(func(fd int) error { return unix.Sendto(fd, nil, 0, nil) }))
	noErr(t, a.Close())
	if _, _, err := b.Receive(buf); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

// A descriptor table without room cuts the message short.
func TestConnNoRoomForDescriptors(t *testing.T) {
	checkLeaks(t)
	a, b := connPair(t)
	f := newEventfd(t)
	defer f.Close()
	noErr(t, a.Send([]byte("x"), f, f, f))
	var old unix.Rlimit
	noErr(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &old))
	full := old
	full.Cur = 3 // lower than what is open: nothing more fits
	noErr(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &full))
	_, _, err := b.Receive(make([]byte, 8))
	noErr(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &old))
	wantErr(t, err, ErrBadMessage, "no room")
}

// The peer closes its end with something unread: what it sent before is still received.
func TestConnLastWordsAfterReset(t *testing.T) {
	checkLeaks(t)
	a, b := connPair(t)
	noErr(t, a.Send([]byte("never read")))
	noErr(t, b.Send([]byte("last words")))
	noErr(t, b.Close())
	buf := make([]byte, 64)
	n, _, err := a.Receive(buf)
	if err != nil || string(buf[:n]) != "last words" {
		t.Fatalf("%q, %v", buf[:n], err)
	}
	if _, _, err := a.Receive(buf); err != io.EOF {
		t.Fatal(err)
	}
}

func TestConnDeadlinesAndClose(t *testing.T) {
	checkLeaks(t)
	a, b := connPair(t)
	noErr(t, a.SetSendDeadline(time.Now().Add(20*time.Millisecond)))
	var err error
	sent := 0
	for ; err == nil; sent++ {
		err = a.Send(make([]byte, 32<<10))
	}
	wantErr(t, err, os.ErrDeadlineExceeded)
	noErr(t, a.SetSendDeadline(time.Time{}))
	done := make(chan error)
	go func() { done <- a.Send([]byte("waits")) }()
	buf := make([]byte, 64<<10)
	for range sent { // what fitted, and then what waited
		_, _, err := b.Receive(buf)
		noErr(t, err)
	}
	noErr(t, await(t, done, "the send that had no room"))
	noErr(t, b.SetReceiveDeadline(time.Now().Add(time.Millisecond)))
	_, _, err = b.Receive(buf)
	wantErr(t, err, os.ErrDeadlineExceeded)
	noErr(t, b.SetReceiveDeadline(time.Time{}))
	go func() {
		_, _, err := b.Receive(buf)
		done <- err
	}()
	noErr(t, b.Close())
	wantErr(t, await(t, done, "the receive that is closed"), net.ErrClosed)
}

func TestPeerPIDFD(t *testing.T) {
	checkLeaks(t)
	r := mustReactor(t)
	l, err := Listen(filepath.Join(shortDir(t), "s"), 0o600)
	noErr(t, err)
	defer l.Close()
	c := startChild(t, 0, "segment", []string{l.Path()})
	conn, err := l.Accept()
	noErr(t, err)
	defer conn.Close()
	if conn.Peer().PID != int32(c.Process.Pid) {
		t.Errorf("peer %+v, child %d", conn.Peer(), c.Process.Pid)
	}
	dead := make(chan struct{}, 2)
	for _, get := range []func() (*FD, error){conn.PeerPIDFD, conn.pidfdByPID} {
		fd, err := get()
		noErr(t, err)
		_, err = r.WatchPID(fd, func() { dead <- struct{}{} })
		noErr(t, err)
	}
	c.kill()
	await(t, dead, "the peer's death")
	await(t, dead, "the peer's death, by pid")
	_, err = conn.pidfdByPID()
	wantErr(t, err, unix.ESRCH)
}

// childSegment connects to args[0], sends a segment, and counts in it as it is told.
func childSegment(args []string) error {
	conn, err := Dial(context.Background(), args[0])
	if err != nil {
		return err
	}
	s, err := CreateSegment("child", SegmentSpec{Kind: KindData, Number: 3, Size: testSize, Base: 1024, Generation: 2})
	if err != nil {
		return err
	}
	s.Publish(StateLaidOut)
	if err := conn.Send([]byte("segment"), s.FD()); err != nil {
		return err
	}
	buf := make([]byte, 64)
	for {
		_, _, err := conn.Receive(buf)
		if err == io.EOF {
			return conn.Close()
		}
		if err != nil {
			return err
		}
		s.Counter(0).Add(1)
		s.SetState(StateAttached)
		if err := conn.Send([]byte("counted")); err != nil {
			return err
		}
	}
}

// A segment of another process, another uid's too, is read here while it is written there, and outlives its owner.
func TestSegmentAcrossProcesses(t *testing.T) {
	for name, uid := range map[string]uint32{"our uid": 0, "another uid": nobody} {
		t.Run(name, func(t *testing.T) {
			checkLeaks(t)
			l, err := Listen(filepath.Join(shortDir(t), "s"), 0o666)
			noErr(t, err)
			defer l.Close()
			c := startChild(t, uid, "segment", []string{l.Path()})
			conn, err := l.Accept()
			noErr(t, err)
			defer conn.Close()
			want := uint32(os.Getuid())
			if uid != 0 {
				want = uid
			}
			if p := conn.Peer(); p.UID != want || p.PID != int32(c.Process.Pid) {
				t.Errorf("peer %+v", p)
			}
			buf := make([]byte, 64)
			_, fds, err := conn.Receive(buf)
			noErr(t, err)
			s, err := OpenSegment(fds[0], Want{Kinds: []Kind{KindData}, CloseFD: true})
			noErr(t, err)
			defer s.Close()
			if s.Base() != 1024 || s.Generation() != 2 || s.Number() != 3 || s.PID() != uint32(c.Process.Pid) || s.State() != StateLaidOut {
				t.Errorf("%+v", s)
			}
			for i := range uint64(3) {
				noErr(t, conn.Send([]byte("count")))
				_, _, err := conn.Receive(buf)
				noErr(t, err)
				if n := s.Counters()[0]; n != i+1 || s.State() != StateAttached {
					t.Errorf("counter is %d, state %v", n, s.State())
				}
			}
			c.kill()
			if n := s.Counters()[0]; n != 3 {
				t.Errorf("after its owner's death the counter is %d", n)
			}
			if _, _, err := conn.Receive(buf); err != io.EOF {
				t.Errorf("after its owner's death: %v", err)
			}
		})
	}
}

// childFlood sends descriptors to one who doesn't receive, until the kernel's limit for a uid stops it, and on when it does.
func childFlood(args []string) error {
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 40, Max: 40}); err != nil {
		return err
	}
	conn, err := Dial(context.Background(), args[0])
	if err != nil {
		return err
	}
	read, write, err := NewBell()
	if err != nil {
		return err
	}
	send := func() error { return conn.Send([]byte("flood"), read, write, read, write, read, write, read, write) }
	for err == nil { // the deadline is each message's: only the one that is stuck meets it
		if err := conn.SetSendDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
			return err
		}
		err = send()
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.Is(err, unix.ETOOMANYREFS) {
		return fmt.Errorf("the flood ends otherwise: %w", err)
	}
	if err := conn.SetSendDeadline(time.Time{}); err != nil {
		return err
	}
	fmt.Println("stuck")
	if err := send(); err != nil {
		return err
	}
	return conn.Send([]byte("through"))
}

func TestConnTooManyInFlight(t *testing.T) {
	checkLeaks(t)
	l, err := Listen(filepath.Join(shortDir(t), "s"), 0o666)
	noErr(t, err)
	defer l.Close()
	c := startChild(t, nobody, "flood", []string{l.Path()}) // root may exceed the limit
	conn, err := l.Accept()
	noErr(t, err)
	defer conn.Close()
	c.expect("stuck")
	buf := make([]byte, 64)
	for {
		n, fds, err := conn.Receive(buf)
		noErr(t, err)
		closeAll(fds)
		if string(buf[:n]) == "through" {
			break
		}
	}
	c.expect("done")
}
