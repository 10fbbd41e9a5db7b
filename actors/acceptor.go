package actors

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"google.golang.org/protobuf/proto"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio"
	"github.com/bhome-bus/bhome/wire"
)

// admission is a node that asks to be let in: its Hello and its descriptors, verified, and the kernel's word on who it is.
type admission struct {
	conn   *connection
	cred   shmio.Cred
	pidfd  *shmio.FD
	hello  *bhomev1.Hello
	seg0   *shmio.Segment
	data   *shmio.Segment // for the session
	data2  *shmio.Segment // for MsgRecords
	dataFD *shmio.FD
	seg0FD *shmio.FD
	bell   *shmio.Bell
	spare  []*shmio.FD   // what it gave besides
	taken  chan struct{} // closed by the center: what is in here is the session's from then on
}

func (a *admission) close() {
	for _, s := range []*shmio.Segment{a.seg0, a.data, a.data2} {
		closeSegment(s)
	}
	closeFDs([]*shmio.FD{a.pidfd, a.dataFD, a.seg0FD})
	closeFDs(a.spare)
	if a.bell != nil {
		_ = a.bell.Close()
	}
}

// knocked tells the center of a connection, so that it can bound them per uid before anything is read of it; letIn is
// its answer, and left says that the connection was not admitted after all.
type (
	knocked struct {
		cred  shmio.Cred
		letIn chan *bhomev1.ErrorMsg
	}
	left struct{ uid uint32 }
)

// turnedAway tells the center who isn't let in, for its log. claims is the name in the process's Hello, if one was read: its
// own word.
type turnedAway struct {
	cred   shmio.Cred
	claims string
	why    *bhomev1.ErrorMsg
}

// acceptor accepts connections until its listener closes. Each gets a goroutine of its own: what a node passes can block
// whoever receives or closes it.
type acceptor struct {
	l        *shmio.Listener
	root     *actor.RootContext
	center   *actor.PID
	log      *slog.Logger
	ctx      context.Context // ends when the center stops
	cancel   context.CancelFunc
	greeters sync.WaitGroup // run, and one for each connection that isn't admitted yet
	turning  chan struct{}  // a place for each that is being turned away
	mostFDs  uint64
}

const (
	turnAwayTimeout = time.Second
	turnAwayMost    = 64
	adriftPause     = 10 * time.Millisecond
)

func newAcceptor(l *shmio.Listener, root *actor.RootContext, center *actor.PID, log *slog.Logger) *acceptor {
	a := &acceptor{l: l, root: root, center: center, log: log, turning: make(chan struct{}, turnAwayMost), mostFDs: descriptorLimit()}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	a.greeters.Go(a.run)
	return a
}

// stop closes the listener and hangs up on whoever isn't admitted; nothing of it is left when it returns. The center
// answers nobody meanwhile.
func (a *acceptor) stop() {
	_ = a.l.Close() // ends run
	a.cancel()
	a.greeters.Wait()
}

func (a *acceptor) run() {
	wait := time.Millisecond
	for {
		c, err := a.l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors, most likely: it passes when somebody leaves
			a.log.Warn("can't accept a connection", "error", err)
			select {
			case <-time.After(wait):
			case <-a.ctx.Done():
			}
			wait = min(2*wait, time.Second)
			continue
		}
		wait = time.Millisecond
		a.greeters.Go(func() { a.greet(c) })
	}
}

// greet hears a node's Hello and hands it to the center.
func (a *acceptor) greet(c *shmio.Conn) {
	defer context.AfterFunc(a.ctx, func() { _ = c.Close() })() // whatever it waits for then fails
	cred := c.Peer()
	if why := descriptorsLeft(a.mostFDs); why != nil {
		a.turnAway(c, cred, why)
		return
	}
	k := &knocked{cred: cred, letIn: make(chan *bhomev1.ErrorMsg, 1)}
	a.root.Send(a.center, k)
	select {
	case refused := <-k.letIn:
		if refused != nil {
			a.turnAway(c, cred, refused)
			return
		}
	case <-a.ctx.Done():
		_ = c.Close() // nobody can let it in
		return
	}
	adm, err := a.admit(c)
	if err != nil {
		msg := errorMsg(bhomev1.ErrorCode_ERROR_CODE_INVALID_INPUT, "Hello: %v", err)
		if errors.Is(err, shmio.ErrIncompatibleABI) {
			msg.Code = bhomev1.ErrorCode_ERROR_CODE_INCOMPATIBLE_ABI
		}
		if ours := ownLimit(err); ours != nil {
			msg = ours
		}
		a.refuse(c, &turnedAway{cred, told(adm.hello.GetName()), msg})
		adm.close()                            // this can take as long as the node likes: it counts as here meanwhile
		a.root.Send(a.center, &left{cred.UID}) // now another may come
		return
	}
	adm.taken = make(chan struct{})
	a.root.Send(a.center, adm)
	select {
	case <-adm.taken:
		return
	case <-a.ctx.Done():
	}
	select {
	case <-adm.taken:
	default: // the center stopped before it came to us
		adm.conn.close()
		adm.close()
	}
}

// turnAway refuses a connection of which nothing has been read. Its Hello is taken and thrown away: were it left in the
// socket, the kernel would tell the node of a reset connection instead of the reason. What else it does isn't waited for,
// nor are more than a few.
func (a *acceptor) turnAway(c *shmio.Conn, cred shmio.Cred, why *bhomev1.ErrorMsg) {
	claims := ""
	select {
	case a.turning <- struct{}{}:
		if c.SetReceiveDeadline(time.Now().Add(turnAwayTimeout)) == nil {
			b := make([]byte, wire.MaxFrame)
			n, fds, _ := c.Receive(b) // it is refused whatever it says
			closeFDs(fds)
			claims = claimedName(b[:n])
		}
		if why.GetLimit() == limitAdrift { // it comes again at once
			select {
			case <-time.After(adriftPause):
			case <-a.ctx.Done():
			}
		}
		<-a.turning
	default:
	}
	a.refuse(c, &turnedAway{cred, claims, why})
}

// claimedName is the name in a Hello that is read for nothing else; "" if it isn't one.
func claimedName(frame []byte) string {
	head, body, err := decodeFrame(frame)
	if err != nil || head.GetType() != uint32(bhomev1.MsgType_MSG_TYPE_HELLO) {
		return ""
	}
	var m bhomev1.Hello
	if proto.Unmarshal(body, &m) != nil {
		return ""
	}
	return told(m.GetName())
}

// refuse has the center log who is not let in, tells the node why, and hangs up.
func (a *acceptor) refuse(c *shmio.Conn, t *turnedAway) {
	a.root.Send(a.center, t)
	refuseConn(c, t.why)
}

// refuseConn tells a node why, as far as it listens, and hangs up.
func refuseConn(c *shmio.Conn, why *bhomev1.ErrorMsg) {
	b, err := encodeFrame(&bhomev1.Head{Type: uint32(bhomev1.MsgType_MSG_TYPE_COMMON_REPLY)}, &bhomev1.CommonReply{Errmsg: why})
	if err == nil && c.SetSendDeadline(time.Now().Add(time.Second)) == nil {
		_ = c.Send(b)
	}
	_ = c.Close()
}

// admit hears and verifies a Hello with its three descriptors. They are adm's, which the caller closes if it is an error.
func (a *acceptor) admit(c *shmio.Conn) (adm *admission, err error) {
	adm = &admission{cred: c.Peer(), hello: &bhomev1.Hello{}}
	if err := c.SetReceiveDeadline(time.Now().Add(helloTimeout)); err != nil {
		return adm, err
	}
	b, fds, err := c.ReceiveMessage(wire.MaxFrame)
	if err != nil {
		return adm, err
	}
	adm.spare = fds
	head, body, err := decodeFrame(b)
	if err != nil {
		return adm, err
	}
	if head.GetType() != uint32(bhomev1.MsgType_MSG_TYPE_HELLO) {
		return adm, fmt.Errorf("%w: message type %d where Hello was expected", wire.ErrBadFrame, head.GetType())
	}
	if err := proto.Unmarshal(body, adm.hello); err != nil {
		return adm, fmt.Errorf("%w: %w", wire.ErrBadFrame, err)
	}
	if err := shmio.CheckABI(adm.hello.GetAbi()); err != nil {
		return adm, err
	}
	if len(fds) != 3 || len(adm.hello.GetDown()) != 4 || len(adm.hello.GetUp()) != 2 {
		return adm, fmt.Errorf("%w: %d descriptors, %d and %d queues; want 3 (segment 0, data segment, bell), 4 and 2",
			wire.ErrBadFrame, len(fds), len(adm.hello.GetDown()), len(adm.hello.GetUp()))
	}
	seg0, data, bell := fds[0], fds[1], fds[2]
	adm.seg0FD, adm.dataFD, adm.spare = seg0, data, []*shmio.FD{bell}
	// Handles, so that what is refused isn't closed before it is said.
	ring, err := bell.Share()
	if err != nil {
		return adm, err
	}
	if adm.bell, err = shmio.OpenBell(ring); err != nil {
		return adm, err
	}
	open := func(fd *shmio.FD, kind shmio.Kind, most uint64) (*shmio.Segment, error) {
		own, err := fd.Share()
		if err != nil {
			return nil, err
		}
		return shmio.OpenSegment(own, shmio.Want{Kinds: []shmio.Kind{kind}, MaxSize: most, CloseFD: true})
	}
	if adm.seg0, err = open(seg0, shmio.KindProcess, segment0Most); err != nil {
		return adm, fmt.Errorf("segment 0: %w", err)
	}
	if adm.data, err = open(data, shmio.KindData, maxSegmentSize); err != nil {
		return adm, fmt.Errorf("the first data segment: %w", err)
	}
	if adm.data2, err = open(data, shmio.KindData, maxSegmentSize); err != nil {
		return adm, fmt.Errorf("the first data segment: %w", err)
	}
	if adm.pidfd, err = c.PeerPIDFD(); err != nil {
		return adm, err
	}
	if err := c.SetReceiveDeadline(time.Time{}); err != nil {
		return adm, err
	}
	closeFDs(adm.spare)
	adm.spare = nil
	adm.conn = newConnection(c, a.root)
	return adm, nil
}
