package shmio

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// MaxDescriptors is how many descriptors one socket message carries at most.
const MaxDescriptors = 8

// ErrBadMessage refuses a socket message: cut short, or with too many descriptors.
var ErrBadMessage = errors.New("bad socket message")

// Cred is who is at the other end of a socket, by the kernel's word at the time of connecting.
type Cred struct {
	PID      int32
	UID, GID uint32
}

// Conn is one SOCK_SEQPACKET connection, on Go's netpoller. One goroutine receives; one at a time sends.
type Conn struct {
	c    *net.UnixConn
	cred Cred
	oob  []byte
	over atomic.Bool
}

// Dial connects to a listener.
func Dial(ctx context.Context, path string) (*Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unixpacket", path)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", path, err)
	}
	return newConn(c.(*net.UnixConn))
}

func newConn(c *net.UnixConn) (*Conn, error) {
	conn := &Conn{c: c, oob: make([]byte, unix.CmsgSpace(MaxDescriptors*4))}
	err := conn.control(func(fd int) error {
		cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err == nil {
			conn.cred = Cred{PID: cred.Pid, UID: cred.Uid, GID: cred.Gid}
		}
		return err
	})
	if err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("ask who the peer is: %w", err)
	}
	return conn, nil
}

func (c *Conn) control(f func(fd int) error) error {
	raw, err := c.c.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	if err := raw.Control(func(fd uintptr) { ferr = f(int(fd)) }); err != nil {
		return err
	}
	return ferr
}

// Peer is who connected.
func (c *Conn) Peer() Cred { return c.cred }

// PeerPIDFD is a descriptor of the peer's process: from the socket where the kernel has that (Linux 6.5), else by its pid.
func (c *Conn) PeerPIDFD() (*FD, error) {
	n := -1
	err := c.control(func(fd int) (err error) {
		n, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
		return err
	})
	if err == nil {
		unix.CloseOnExec(n)
		return NewFD(n), nil
	}
	if !errors.Is(err, unix.ENOPROTOOPT) && !errors.Is(err, unix.EINVAL) {
		return nil, fmt.Errorf("pidfd of the peer (process %d): %w", c.cred.PID, err)
	}
	return PidfdOpen(int(c.cred.PID))
}

// Send sends one message; the descriptors stay the caller's. It waits for room in the socket. Too many descriptors in
// flight (ETOOMANYREFS) is retried.
func (c *Conn) Send(msg []byte, fds ...*FD) error {
	var oob []byte
	if len(fds) > 0 {
		ns := make([]int, len(fds))
		for i, f := range fds {
			ns[i] = f.Int()
		}
		oob = unix.UnixRights(ns...)
	}
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		_, _, err := c.c.WriteMsgUnix(msg, oob, nil)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, unix.ETOOMANYREFS) || c.over.Load():
			return fmt.Errorf("send %d bytes with %d descriptors: %w", len(msg), len(fds), err)
		}
		<-time.After(wait)
	}
}

// SetSendDeadline bounds the sends from now on.
func (c *Conn) SetSendDeadline(t time.Time) error { return c.c.SetWriteDeadline(t) }

// SetReceiveDeadline bounds the receives from now on.
func (c *Conn) SetReceiveDeadline(t time.Time) error { return c.c.SetReadDeadline(t) }

// Receive takes one message; its descriptors are the caller's. io.EOF: the peer has hung up. A message that was cut, or
// has more than MaxDescriptors, is an ErrBadMessage, and all its descriptors are closed.
func (c *Conn) Receive(buf []byte) (n int, fds []*FD, err error) {
	n, oobn, flags, _, err := c.c.ReadMsgUnix(buf, c.oob)
	if oobn > 0 {
		var perr error
		if fds, perr = parseRights(c.oob[:oobn]); perr != nil && err == nil {
			err = perr
		}
	}
	switch {
	case err != nil:
	case flags&unix.MSG_TRUNC != 0:
		err = fmt.Errorf("%w: longer than %d bytes", ErrBadMessage, len(buf))
	case flags&unix.MSG_CTRUNC != 0:
		err = fmt.Errorf("%w: more than %d descriptors, or no room for them", ErrBadMessage, MaxDescriptors)
	case n == 0:
		err = io.EOF
	}
	if err != nil {
		closeAll(fds)
		if errors.Is(err, io.EOF) {
			return 0, nil, io.EOF
		}
		return 0, nil, fmt.Errorf("receive: %w", err)
	}
	return n, fds, nil
}

// parseRights takes every descriptor out of control messages, also where something in them is wrong.
func parseRights(oob []byte) (fds []*FD, err error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("%w: control message: %w", ErrBadMessage, err)
	}
	for _, m := range msgs {
		ns, perr := unix.ParseUnixRights(&m)
		if perr != nil {
			err = fmt.Errorf("%w: control message of type %d", ErrBadMessage, m.Header.Type)
			continue
		}
		for _, n := range ns {
			fds = append(fds, NewFD(n))
		}
	}
	return fds, err
}

// Close hangs up. Pending calls return.
func (c *Conn) Close() error {
	c.over.Store(true)
	if err := c.c.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("hang up: %w", err)
	}
	return nil
}

// Listener is a center's socket, with the lock that makes it the only one.
type Listener struct {
	l    *net.UnixListener
	lock *os.File
	path string
}

// Path is where it listens.
func (l *Listener) Path() string { return l.path }

// Accept waits for a connection; net.ErrClosed after Close.
func (l *Listener) Accept() (*Conn, error) {
	c, err := l.l.AcceptUnix()
	if err != nil {
		return nil, fmt.Errorf("accept: %w", err)
	}
	return newConn(c)
}

// Close removes the socket and lets go of the lock.
func (l *Listener) Close() error {
	return errors.Join(l.l.Close(), l.lock.Close())
}
