package actors

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"google.golang.org/protobuf/proto"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio"
	"github.com/bhome-bus/bhome/wire"
)

const (
	helloTimeout   = 5 * time.Second
	maxUnacked     = 4     // frames with descriptors that the node hasn't acknowledged
	maxQueued      = 65536 // frames that wait for a node to read its socket
	socketCredits  = 32    // frames of a node in its session's mailbox
	maxSegmentSize = 32 << 30
	segment0Most   = 4 << 20
)

// connection is a node's socket: one goroutine that receives (and verifies descriptors, which may block), and one that sends, while
// there is something to be sent. It knows nothing of sessions but where to send what it hears.
type connection struct {
	c       *shmio.Conn
	root    *actor.RootContext
	target  atomic.Pointer[actor.PID] // the session; stored once, before serve. Pairs with deliver's load
	credits chan struct{}
	out     chan *outgoing // always one, but for who has taken it; pairs with itself
	done    chan struct{}  // closed by close
	transit atomic.Int64   // descriptors that are queued; added by send, taken off by letGo. Pairs with auditHoldings
	closed  atomic.Bool
}

// outFrame is a frame to be sent; its descriptors are closed after. Without a body it is nothing but written, which is called when
// all before it are on the socket, or never will be.
type outFrame struct {
	typ     bhomev1.MsgType
	body    proto.Message
	fds     []*shmio.FD
	written func()
}

// What a connection tells its session.
type (
	socketFrame struct {
		typ  bhomev1.MsgType
		body proto.Message
		seg  *shmio.Segment // SegmentAdd: opened, for the session
		seg2 *shmio.Segment // data: opened again, for MsgRecords
		fd   *shmio.FD      // SegmentAdd: the descriptor, for peers
		bell *shmio.FD      // RouteHalf

		spare  []*shmio.FD       // what nobody took
		noRoom *bhomev1.ErrorMsg // SegmentAdd: why we, and not the node, could not open it
	}
	socketFault struct{ err error }
	socketEnd   struct{ err error }
)

func newConnection(c *shmio.Conn, root *actor.RootContext) *connection {
	k := &connection{c: c, root: root, credits: make(chan struct{}, socketCredits), out: make(chan *outgoing, 1), done: make(chan struct{})}
	k.out <- &outgoing{}
	for range socketCredits {
		k.credits <- struct{}{}
	}
	return k
}

// credit lets the receiving goroutine deliver one frame more.
func (k *connection) credit() {
	select {
	case k.credits <- struct{}{}:
	default:
	}
}

func (k *connection) deliver(msg any) {
	if pid := k.target.Load(); pid != nil {
		k.root.Send(pid, msg)
	}
}

// receive is the receiving goroutine: everything that comes is parsed, verified and closed, whatever it is.
func (k *connection) receive(ctx context.Context) {
	for {
		select {
		case <-k.credits:
		case <-k.done:
			return
		}
		b, fds, err := k.c.ReceiveMessage(wire.MaxFrame)
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			k.deliver(&socketEnd{err})
			return
		}
		f, ack, err := k.parse(b, fds)
		switch {
		case err != nil:
			k.deliver(&socketFault{err})
			f.close() // after it is told: to close what a node gave can take as long as it likes
		case ack != 0:
			k.acknowledge(ack)
			f.close()
			k.credit()
		default:
			k.deliver(f)
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// parse takes a frame apart and verifies its descriptors. They are f's, which the caller closes if it is an error; none is
// closed here.
func (k *connection) parse(b []byte, fds []*shmio.FD) (f *socketFrame, ack uint64, err error) {
	f = &socketFrame{spare: fds}
	head, body, err := decodeFrame(b)
	if err != nil {
		return f, 0, err
	}
	f.typ = bhomev1.MsgType(head.GetType())
	want := 0
	switch f.typ {
	case bhomev1.MsgType_MSG_TYPE_SOCKET_ACK:
		f.body = &bhomev1.SocketAck{}
	case bhomev1.MsgType_MSG_TYPE_ROUTE_HALF:
		f.body = &bhomev1.RouteHalf{}
	case bhomev1.MsgType_MSG_TYPE_ROUTE_CLOSE:
		f.body = &bhomev1.RouteClose{}
	case bhomev1.MsgType_MSG_TYPE_SEGMENT_ADD:
		f.body = &bhomev1.SegmentAdd{}
	case bhomev1.MsgType_MSG_TYPE_SEGMENT_DROP:
		f.body = &bhomev1.SegmentDrop{}
	case bhomev1.MsgType_MSG_TYPE_SEGMENT_UNMAPPED:
		f.body = &bhomev1.SegmentUnmapped{}
	case bhomev1.MsgType_MSG_TYPE_PEER_GONE:
		f.body = &bhomev1.PeerGone{}
	case bhomev1.MsgType_MSG_TYPE_REPORT:
		f.body = &bhomev1.Report{}
	case bhomev1.MsgType_MSG_TYPE_BYE:
		f.body = &bhomev1.Bye{}
	default:
		return f, 0, fmt.Errorf("%w: message type %d on the socket", wire.ErrBadFrame, head.GetType())
	}
	if err := proto.Unmarshal(body, f.body); err != nil {
		return f, 0, fmt.Errorf("%w: %v: %w", wire.ErrBadFrame, f.typ, err)
	}
	switch m := f.body.(type) {
	case *bhomev1.SocketAck:
		return f, m.GetSeq(), nil
	case *bhomev1.RouteHalf:
		if m.GetHasBell() {
			want = 1
		}
	case *bhomev1.SegmentAdd:
		if m.GetErrmsg() == nil {
			want = 1
		}
	}
	if len(fds) != want {
		return f, 0, fmt.Errorf("%w: %v with %d descriptors, want %d", wire.ErrBadFrame, f.typ, len(fds), want)
	}
	if want == 0 {
		return f, 0, nil
	}
	fd := fds[0]
	f.spare = nil
	if f.typ == bhomev1.MsgType_MSG_TYPE_ROUTE_HALF {
		f.bell = fd // the peer, to whom it goes, must not come to close what never lets go
		return f, 0, shmio.CheckBell(fd)
	}
	return f, 0, f.openSegment(fd)
}

// openSegment verifies an announced segment; fd is f's.
func (f *socketFrame) openSegment(fd *shmio.FD) error {
	m := f.body.(*bhomev1.SegmentAdd)
	f.fd = fd
	kind := shmio.Kind(m.GetSegment().GetKind())
	if kind != shmio.KindControl && kind != shmio.KindData {
		return fmt.Errorf("%w: SegmentAdd of a %v segment", wire.ErrBadFrame, kind)
	}
	open := func() (*shmio.Segment, error) {
		own, err := fd.Share() // so that closing it closes nothing yet
		if err != nil {
			return nil, err
		}
		s, err := shmio.OpenSegment(own, shmio.Want{Kinds: []shmio.Kind{kind}, MaxSize: maxSegmentSize, CloseFD: true})
		if err != nil {
			return nil, err
		}
		ref := m.GetSegment()
		if s.Number() != ref.GetNumber() || s.Base() != ref.GetBase() || s.Generation() != ref.GetGeneration() || s.Size() != m.GetSize() {
			_ = s.Close() // the lie is what counts
			return nil, fmt.Errorf("%w: SegmentAdd says other things than the segment's header", wire.ErrBadFrame)
		}
		return s, nil
	}
	var err error
	if f.seg, err = open(); err == nil && kind == shmio.KindData {
		f.seg2, err = open()
	}
	if f.noRoom = ownLimit(err); f.noRoom != nil {
		f.close()
		f.seg, f.seg2, f.fd = nil, nil, nil
		return nil
	}
	return err
}

func (f *socketFrame) close() {
	closeSegment(f.seg)
	closeSegment(f.seg2)
	closeFDs([]*shmio.FD{f.fd, f.bell})
	closeFDs(f.spare)
}

func closeFDs(fds []*shmio.FD) {
	for _, fd := range fds {
		if fd != nil {
			_ = fd.Close() // nothing depends on how it ends
		}
	}
}

func encodeFrame(head *bhomev1.Head, body proto.Message) ([]byte, error) {
	h, err := proto.Marshal(head)
	if err != nil {
		return nil, err
	}
	var b []byte
	if body != nil {
		if b, err = proto.Marshal(body); err != nil {
			return nil, err
		}
	}
	f := wire.AppendFrame(make([]byte, 0, 8+len(h)+len(b)), h, b)
	if len(f) > wire.MaxFrame {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", wire.ErrBadFrame, len(f), wire.MaxFrame)
	}
	return f, nil
}

// rawBody is a body that is bytes already: an embedding program's.
type rawBody []byte

func encodeAny(head *bhomev1.Head, body any) ([]byte, error) {
	raw, ok := body.(rawBody)
	if !ok {
		return encodeFrame(head, body.(proto.Message))
	}
	h, err := proto.Marshal(head)
	if err != nil {
		return nil, err
	}
	f := wire.AppendFrame(nil, h, raw)
	if len(f) > wire.MaxFrame {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", wire.ErrBadFrame, len(f), wire.MaxFrame)
	}
	return f, nil
}

func decodeFrame(b []byte) (*bhomev1.Head, []byte, error) {
	h, body, err := wire.SplitFrame(b)
	if err != nil {
		return nil, nil, err
	}
	head := &bhomev1.Head{}
	if err := proto.Unmarshal(h, head); err != nil {
		return nil, nil, fmt.Errorf("%w: head: %w", wire.ErrBadFrame, err)
	}
	return head, body, nil
}
