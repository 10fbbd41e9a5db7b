package shmio

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// MaxDescriptors is how many descriptors one socket message carries at most.
const MaxDescriptors = 8

// ErrBadMessage refuses a socket message: empty, cut short, or with too many descriptors.
var ErrBadMessage = errors.New("bad socket message")

const (
	retryFirst = time.Millisecond
	retryMost  = 100 * time.Millisecond
)

// Cred is who is at the other end of a socket, by the kernel's word at the time of connecting (of listening, for the
// process that listens). PID is 0 for a process that our pid namespace doesn't see.
type Cred struct {
	PID      int32
	UID, GID uint32
	Groups   []uint32 // supplementary
}

// Conn is one SOCK_SEQPACKET connection, on Go's netpoller. One goroutine receives; one at a time sends; Close and the
// deadlines may come from any.
type Conn struct {
	c      *net.UnixConn
	cred   Cred
	oob    []byte                    // Receive's
	sendBy atomic.Pointer[time.Time] // deadline of sends, with its monotonic part; nil: none. Stored by SetSendDeadline, loaded by Send

	once   sync.Once
	closed chan struct{}
}

// Dial connects to a listener. It waits, as long as ctx lasts, while the listener accepts nobody. Errors:
// os.ErrNotExist, unix.ECONNREFUSED (nobody listens), os.ErrPermission.
func Dial(ctx context.Context, path string) (*Conn, error) {
	if err := checkSocketPath(path); err != nil {
		return nil, fmt.Errorf("connect to %q: %w", path, err)
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("connect to %s: %w", path, err)
	}
	for wait := retryFirst; ; wait = min(2*wait, retryMost) {
		c, err := net.Dial("unixpacket", path) // never waits: Linux refuses at once, see unix(7), EAGAIN
		if err == nil {
			return newConn(c.(*net.UnixConn))
		}
		if !errors.Is(err, unix.EAGAIN) { // the backlog is full, and nothing will tell when it isn't
			return nil, fmt.Errorf("connect to %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("connect to %s: the center accepts nobody: %w", path, ctx.Err())
		case <-time.After(wait):
		}
	}
}

func newConn(c *net.UnixConn) (*Conn, error) {
	conn := &Conn{c: c, oob: make([]byte, unix.CmsgSpace(MaxDescriptors*4)), closed: make(chan struct{})}
	err := conn.control(func(fd int) error {
		cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil {
			return err
		}
		groups, err := peerGroups(fd)
		conn.cred = Cred{PID: cred.Pid, UID: cred.Uid, GID: cred.Gid, Groups: groups}
		return err
	})
	if err != nil {
		_ = c.Close() // the error that matters is err
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

// Peer is who connected, or listened.
func (c *Conn) Peer() Cred { return c.cred }

// PeerPIDFD is a descriptor of the peer's process, to be watched: from the socket where the kernel has that (Linux 6.5),
// else by its pid, provided that the peer hasn't hung up since. An error may mean that the process is gone (unix.ESRCH).
func (c *Conn) PeerPIDFD() (*FD, error) {
	n := -1
	err := c.control(func(fd int) (err error) {
		n, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
		return err
	})
	if err == nil {
		return NewFD(n), nil // the kernel opens pidfds close-on-exec
	}
	if !errors.Is(err, unix.ENOPROTOOPT) {
		return nil, fmt.Errorf("pidfd of the peer (process %d): %w", c.cred.PID, err)
	}
	return c.pidfdByPID()
}

func (c *Conn) pidfdByPID() (*FD, error) {
	pidfd, err := PidfdOpen(int(c.cred.PID))
	if err != nil {
		return nil, err
	}
	if c.hungUp() { // the pid could be somebody else's by now
		_ = pidfd.Close() // the error that matters is the following
		return nil, fmt.Errorf("pidfd of the peer (process %d): it has hung up: %w", c.cred.PID, unix.ESRCH)
	}
	return pidfd, nil
}

// hungUp reports whether the other end is closed.
func (c *Conn) hungUp() bool {
	gone := true
	_ = c.control(func(fd int) error { // it only fails when our own end is closed
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(p, 0)
		gone = err == nil && n > 0
		return nil
	})
	return gone
}

// Send sends one message, not empty; the descriptors, MaxDescriptors at most, stay the caller's. It waits for room in
// the socket, and while our uid has too many descriptors in flight (ETOOMANYREFS), until the deadline or Close. Errors:
// os.ErrDeadlineExceeded, net.ErrClosed, unix.EPIPE (the peer has hung up).
func (c *Conn) Send(msg []byte, fds ...*FD) error {
	if len(msg) == 0 || len(fds) > MaxDescriptors {
		return fmt.Errorf("send %d bytes with %d descriptors: %w", len(msg), len(fds), ErrBadMessage)
	}
	var oob []byte
	if len(fds) > 0 {
		ns := make([]int, len(fds))
		for i, f := range fds {
			ns[i] = f.Int()
		}
		oob = unix.UnixRights(ns...)
	}
	err := c.send(msg, oob)
	runtime.KeepAlive(fds)
	if err != nil {
		return fmt.Errorf("send %d bytes with %d descriptors: %w", len(msg), len(fds), err)
	}
	return nil
}

func (c *Conn) send(msg, oob []byte) error {
	for wait := retryFirst; ; wait = min(2*wait, retryMost) {
		_, _, err := c.c.WriteMsgUnix(msg, oob, nil)
		if !errors.Is(err, unix.ETOOMANYREFS) {
			return err
		}
		if by := c.sendBy.Load(); by != nil && time.Until(*by) < wait {
			return fmt.Errorf("%w: %w", os.ErrDeadlineExceeded, err)
		}
		select {
		case <-c.closed:
			return net.ErrClosed
		case <-time.After(wait):
		}
	}
}

// SetSendDeadline bounds the sends, from now on; zero: no bound.
func (c *Conn) SetSendDeadline(t time.Time) error {
	by := &t
	if t.IsZero() {
		by = nil
	}
	c.sendBy.Store(by)
	return c.c.SetWriteDeadline(t)
}

// SetReceiveDeadline bounds the receives, from now on; zero: no bound.
func (c *Conn) SetReceiveDeadline(t time.Time) error { return c.c.SetReadDeadline(t) }

// Receive takes one message; its descriptors are the caller's. io.EOF: the peer has hung up, and all that it sent has
// been received. A message that is empty, cut, or has more than MaxDescriptors is an ErrBadMessage: its descriptors are
// closed, which can take long, and the connection can still be used.
func (c *Conn) Receive(buf []byte) (n int, fds []*FD, err error) {
	n, oobn, flags, err := c.receive(buf)
	if oobn > 0 {
		var perr error
		if fds, perr = parseRights(c.oob[:oobn]); perr != nil && err == nil {
			err = perr
		}
	}
	switch {
	case errors.Is(err, io.EOF) && (oobn > 0 || !c.hungUp()):
		// The kernel answers 0 to both; Go takes that for the end.
		err = fmt.Errorf("%w: it is empty", ErrBadMessage)
	case err != nil:
	case flags&unix.MSG_TRUNC != 0:
		err = fmt.Errorf("%w: longer than %d bytes", ErrBadMessage, len(buf))
	case flags&unix.MSG_CTRUNC != 0:
		err = fmt.Errorf("%w: more than %d descriptors, or no room for them in our table", ErrBadMessage, MaxDescriptors)
	}
	if err == nil {
		return n, fds, nil
	}
	closeAll(fds)
	if errors.Is(err, io.EOF) {
		return 0, nil, io.EOF
	}
	return 0, nil, fmt.Errorf("receive: %w", err)
}

// ReceiveMessage is Receive into memory of its own, just as much as the message takes: a connection that is idle has none.
// limit is the longest message there may be, in bytes.
func (c *Conn) ReceiveMessage(limit int) (msg []byte, fds []*FD, err error) {
	size := limit
	raw, err := c.c.SyscallConn()
	if err == nil {
		// What else is wrong is the receiving's to tell; there is one receiver, so what is seen is what it gets.
		err = raw.Read(func(fd uintptr) bool {
			n, _, err := unix.Recvfrom(int(fd), nil, unix.MSG_PEEK|unix.MSG_TRUNC|unix.MSG_DONTWAIT)
			if errors.Is(err, unix.ECONNRESET) { // see receive
				n, _, err = unix.Recvfrom(int(fd), nil, unix.MSG_PEEK|unix.MSG_TRUNC|unix.MSG_DONTWAIT)
			}
			if err == nil {
				size = min(max(n, 1), limit)
			}
			return !errors.Is(err, unix.EAGAIN)
		})
	}
	if err != nil { // closed, or out of time
		return nil, nil, fmt.Errorf("receive: %w", err)
	}
	buf := make([]byte, size)
	n, fds, err := c.Receive(buf)
	return buf[:n], fds, err
}

// receive reads on after ECONNRESET: the peer has closed its end without reading all, which the kernel tells once, and
// before it hands out what that peer sent.
func (c *Conn) receive(buf []byte) (n, oobn, flags int, err error) {
	for range 2 {
		n, oobn, flags, _, err = c.c.ReadMsgUnix(buf, c.oob) // it asks for MSG_CMSG_CLOEXEC
		if !errors.Is(err, unix.ECONNRESET) {
			return n, oobn, flags, err
		}
	}
	return 0, 0, 0, io.EOF
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

// Close hangs up. Pending calls return. Idempotent.
func (c *Conn) Close() error {
	c.once.Do(func() { close(c.closed) })
	if err := c.c.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("hang up: %w", err)
	}
	return nil
}
