package suite

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bhome-bus/bhome/node"
	"github.com/bhome-bus/bhome/shmio"
)

// depthFor is how many messages may be under way, the same for all contestants that say: 4 MiB of them, so that they
// stay in the caches; a power of two, 4 to 4,096.
func depthFor(cfg pairConfig) int {
	return max(4, min(4096, 1<<(bits.Len(uint(max(1, 4<<20/max(cfg.Size, 1))))-1)))
}

// bhome: publishers and a subscription each way.
type bhome struct {
	n    *node.Node
	pub  *node.Publisher // of the topic whose turn it is
	pubs []*node.Publisher
	turn int
	sub  *node.Subscription
	side string
	held []node.Message // the last ones, a ring
	next int            // of held: the oldest
}

func openBhome(ctx context.Context, cfg pairConfig, side string) (*bhome, error) {
	wait, err := shmio.ParseWaitStrategy(cfg.Wait)
	if err != nil {
		return nil, err
	}
	n, err := node.Attach(ctx, node.Config{Name: "suite-" + side + "-" + cfg.Tag, Socket: cfg.Socket, Wait: wait})
	if err != nil {
		return nil, err
	}
	other := map[string]string{"a": "b", "b": "a"}[side]
	t := &bhome{n: n, side: side, held: make([]node.Message, cfg.Hold)}
	t.sub, err = n.Subscribe(ctx, "suite."+cfg.Tag+"."+other+".", node.Depth(depthFor(cfg)), node.OnFull(node.Block), node.Quota(256<<20),
		node.Hold(node.DefaultHold+cfg.Hold))
	for i := 0; err == nil && i < max(1, cfg.Topics); i++ {
		t.pub, err = n.Publisher(ctx, fmt.Sprint("suite.", cfg.Tag, ".", side, ".", i), node.AllowBlock(time.Minute))
		t.pubs = append(t.pubs, t.pub)
	}
	return t, err
}

func (t *bhome) where() string { return "" }

func (t *bhome) join(ctx context.Context, _ string) error {
	if t.side == "a" { // b is there; a's own subscriber is b
		return t.pub.WaitForSubscribers(ctx, 1)
	}
	return nil
}

func (t *bhome) send(ctx context.Context, payload []byte) error {
	if len(t.pubs) > 1 {
		t.turn = (t.turn + 1) % len(t.pubs)
		t.pub = t.pubs[t.turn]
	}
	return t.pub.Publish(ctx, payload)
}

func (t *bhome) recv(ctx context.Context, read func([]byte)) error {
	m, err := t.sub.Receive(ctx)
	if err != nil {
		return err
	}
	read(m.Bytes())
	if len(t.held) > 0 {
		m, t.held[t.next] = t.held[t.next], m
		t.next = (t.next + 1) % len(t.held)
		if m == (node.Message{}) {
			return nil
		}
	}
	return m.Release()
}

func (t *bhome) flush(context.Context) error { return nil }

func (t *bhome) close(ctx context.Context) error {
	var errs []error
	for _, m := range t.held {
		if m != (node.Message{}) {
			errs = append(errs, m.Release())
		}
	}
	return errors.Join(append(errs, t.n.Close(ctx))...)
}

// bhomeBatch is bhome with 64 messages a call.
type bhomeBatch struct {
	*bhome
	out  [][]byte
	full int            // of out
	in   []node.Message // received,
	next int            // and not read yet from here on
}

func openBhomeBatch(ctx context.Context, cfg pairConfig, side string) (transport, error) {
	const batch = 64
	t, err := openBhome(ctx, cfg, side)
	if err != nil {
		return nil, err
	}
	b := &bhomeBatch{bhome: t, out: make([][]byte, batch), in: make([]node.Message, 0, batch)}
	for i := range b.out {
		b.out[i] = make([]byte, cfg.Size)
	}
	return b, nil
}

func (t *bhomeBatch) send(ctx context.Context, payload []byte) error {
	copy(t.out[t.full], payload)
	if t.full++; t.full < len(t.out) {
		return nil
	}
	return t.flush(ctx)
}

func (t *bhomeBatch) flush(ctx context.Context) error {
	n := t.full
	t.full = 0
	return t.pub.PublishBatch(ctx, t.out[:n])
}

func (t *bhomeBatch) recv(ctx context.Context, read func([]byte)) error {
	if t.next == len(t.in) {
		if err := node.ReleaseBatch(t.in); err != nil {
			return err
		}
		n, err := t.sub.ReceiveBatch(ctx, t.in[:cap(t.in)])
		t.in, t.next = t.in[:n], 0
		if err != nil {
			return err
		}
	}
	read(t.in[t.next].Bytes())
	t.next++
	return nil
}

func (t *bhomeBatch) close(ctx context.Context) error {
	return errors.Join(node.ReleaseBatch(t.in), t.bhome.close(ctx))
}

// unixPair: a stream, a length in front of each message.
type unixPair struct {
	l   net.Listener
	c   net.Conn
	r   *bufio.Reader
	buf []byte
	out []byte
}

func openUnix(cfg pairConfig, side string) (transport, error) {
	t := &unixPair{buf: make([]byte, cfg.Size), out: make([]byte, 4+cfg.Size)}
	if side == "b" {
		dir, err := os.MkdirTemp("", "bhome-suite-")
		if err != nil {
			return nil, err
		}
		if t.l, err = net.Listen("unix", filepath.Join(dir, "s")); err != nil {
			return nil, err
		}
	}
	return t, nil
}

func (t *unixPair) where() string {
	if t.l != nil {
		return t.l.Addr().String()
	}
	return ""
}

func (t *unixPair) join(ctx context.Context, peer string) (err error) {
	if t.l != nil {
		t.c, err = t.l.Accept()
	} else {
		var d net.Dialer
		t.c, err = d.DialContext(ctx, "unix", peer)
	}
	if err == nil {
		t.r = bufio.NewReaderSize(t.c, 64<<10)
	}
	return err
}

func (t *unixPair) send(_ context.Context, payload []byte) error {
	binary.NativeEndian.PutUint32(t.out, uint32(len(payload)))
	copy(t.out[4:], payload)
	_, err := t.c.Write(t.out)
	return err
}

func (t *unixPair) recv(_ context.Context, read func([]byte)) error {
	var n [4]byte
	if _, err := io.ReadFull(t.r, n[:]); err != nil {
		return err
	}
	if _, err := io.ReadFull(t.r, t.buf); err != nil {
		return err
	}
	read(t.buf)
	return nil
}

func (t *unixPair) flush(context.Context) error { return nil }

func (t *unixPair) close(context.Context) error {
	var err error
	if t.l != nil {
		dir := filepath.Dir(t.l.Addr().String())
		err = errors.Join(t.l.Close(), os.RemoveAll(dir))
	}
	return errors.Join(err, t.c.Close())
}

// bare: tail and slot, spinning.
type bare struct {
	seg, peer *shmio.Segment
	w         *shmio.BareWriter
	r         *shmio.BareReader
	count     uint64
	size      uint64
	path      string
}

func openBare(cfg pairConfig) (transport, error) {
	t := &bare{size: uint64(cfg.Size), count: uint64(depthFor(cfg))}
	// A page for the read cursor, then the slots.
	seg, err := shmio.CreateSegment("bhome-bare", shmio.SegmentSpec{Kind: shmio.KindControl, Number: 1, Size: 2*shmio.FirstBlock + shmio.BareSize(t.count, t.size)})
	if err != nil {
		return nil, err
	}
	seg.Publish(shmio.StateLaidOut)
	t.seg = seg
	t.path = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), seg.FD().Int())
	return t, nil
}

func (t *bare) where() string { return t.path }

func (t *bare) join(_ context.Context, peer string) error {
	n, err := unix.Open(peer, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if t.peer, err = shmio.OpenSegment(shmio.NewFD(n), shmio.Want{Kinds: []shmio.Kind{shmio.KindControl}}); err != nil {
		return err
	}
	mem := func(s *shmio.Segment, off, size uint64) []byte {
		b, merr := s.Memory(off, size)
		err = errors.Join(err, merr)
		return b
	}
	slots := shmio.BareSize(t.count, t.size)
	t.w = shmio.NewBareWriter(mem(t.seg, 2*shmio.FirstBlock, slots), mem(t.peer, shmio.FirstBlock, 128), t.count, t.size)
	t.r = shmio.NewBareReader(mem(t.seg, shmio.FirstBlock, 128), mem(t.peer, 2*shmio.FirstBlock, slots), t.count, t.size)
	return err
}

func (t *bare) send(_ context.Context, payload []byte) error {
	for i := 0; !t.w.TrySend(payload); i++ {
		if i&1023 == 1023 {
			runtime.Gosched()
		}
	}
	return nil
}

func (t *bare) recv(_ context.Context, read func([]byte)) error {
	for i := 0; ; i++ {
		if b := t.r.Peek(); b != nil {
			read(b)
			t.r.Release()
			return nil
		}
		if i&1023 == 1023 {
			runtime.Gosched()
		}
	}
}

func (t *bare) flush(context.Context) error { return nil }

func (t *bare) close(context.Context) error { return errors.Join(t.peer.Close(), t.seg.Close()) }
