package node

import (
	"fmt"
	"strconv"
	"sync"

	"google.golang.org/protobuf/proto"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/wire"
)

// frame makes a control frame. replyTo is the address that the answer goes to, seq the socket's number for frames with
// descriptors; 0 is none.
func (n *Node) frame(typ uint32, msgID string, replyTo, seq uint64, body []byte) ([]byte, error) {
	head := &bhomev1.Head{Type: typ, ProcId: n.Name(), MsgId: msgID, Seq: seq, SsnId: n.session.Load()}
	if replyTo != 0 {
		head.Route = []*bhomev1.Address{{MqId: replyTo}}
	}
	h, err := proto.Marshal(head)
	if err != nil {
		return nil, fmt.Errorf("message type %d: %w: %w", typ, ErrInvalid, err)
	}
	f := wire.AppendFrame(nil, h, body)
	if len(f) > wire.MaxFrame {
		return nil, fmt.Errorf("message type %d: frame of %d bytes: %w: at most %d", typ, len(f), ErrTooLarge, wire.MaxFrame)
	}
	return f, nil
}

func splitFrame(b []byte) (*bhomev1.Head, []byte, error) {
	h, body, err := wire.SplitFrame(b)
	if err != nil {
		return nil, nil, err
	}
	var head bhomev1.Head
	if err := proto.Unmarshal(h, &head); err != nil {
		return nil, nil, fmt.Errorf("%w: head: %w", wire.ErrBadFrame, err)
	}
	return &head, body, nil
}

func (n *Node) newMsgID() string { return strconv.FormatUint(n.msgSeq.Add(1), 36) }

// broadcast wakes all that wait for the next event.
type broadcast struct {
	mu sync.Mutex
	ch chan struct{}
}

func newBroadcast() *broadcast { return &broadcast{ch: make(chan struct{})} }

// C is closed at the next Fire. Take it before looking at what is waited for.
func (b *broadcast) C() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ch
}

func (b *broadcast) Fire() {
	b.mu.Lock()
	close(b.ch)
	b.ch = make(chan struct{})
	b.mu.Unlock()
}
