package actors

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio"
	"github.com/bhome-bus/bhome/wire"
)

// At most four frames with descriptors are unacknowledged, whatever a node acknowledges.
func TestUnacknowledgedDescriptors(t *testing.T) {
	l, err := shmio.Listen(filepath.Join(t.TempDir(), "s"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	node, err := shmio.Dial(ctx, l.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	k := newConnection(c, nil)
	defer k.close()

	_, bell, err := shmio.NewBell()
	if err != nil {
		t.Fatal(err)
	}
	defer bell.Close()
	const frames = 12
	for range frames {
		fd, err := bell.Share()
		if err != nil {
			t.Fatal(err)
		}
		k.send(outFrame{typ: bhomev1.MsgType_MSG_TYPE_ROUTE_PEER, body: &bhomev1.RoutePeer{}, fds: []*shmio.FD{fd}})
	}
	buf := make([]byte, wire.MaxFrame)
	next := func(wait time.Duration) (uint64, error) {
		t.Helper()
		if err := node.SetReceiveDeadline(time.Now().Add(wait)); err != nil {
			t.Fatal(err)
		}
		n, fds, err := node.Receive(buf)
		if err != nil {
			return 0, err
		}
		closeFDs(fds)
		head, _, err := decodeFrame(buf[:n])
		if err != nil || len(fds) != 1 {
			t.Fatal(len(fds), err)
		}
		return head.GetSeq(), nil
	}
	take := func(from, to uint64) {
		t.Helper()
		for want := from; want <= to; want++ {
			if seq, err := next(patience); err != nil || seq != want {
				t.Fatalf("frame %d: %d, %v", want, seq, err)
			}
		}
		if seq, err := next(20 * time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("frame %d before it was acknowledged: %v", seq, err)
		}
	}
	take(1, 4)
	k.acknowledge(1)
	take(5, 5)
	k.acknowledge(1<<64 - 1) // a lie: all that was sent, no more
	take(6, 9)
	k.acknowledge(2) // an old one
	k.acknowledge(9)
	take(10, frames)
	k.acknowledge(1<<64 - 1) // while nothing waits
	fd, err := bell.Share()
	if err != nil {
		t.Fatal(err)
	}
	k.send(outFrame{typ: bhomev1.MsgType_MSG_TYPE_ROUTE_PEER, body: &bhomev1.RoutePeer{}, fds: []*shmio.FD{fd}})
	if seq, err := next(patience); err != nil || seq != frames+1 {
		t.Fatalf("the frame after a lie: %d, %v", seq, err)
	}
}
