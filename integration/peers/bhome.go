package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/bhome-bus/bhome/node"
	"github.com/bhome-bus/bhome/shmio"
)

type bhome struct{ c config }

func newBhome(c config) transport { return &bhome{c} }

// bhomed is the center, on a bus of its own.
func bhomed(ctx context.Context, c config, ready func(string)) error {
	dir, err := os.MkdirTemp("", "bhome-peers-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "bus.sock")
	cmd := exec.CommandContext(ctx, c.Bhomed, "--socket", socket, "--log-level", "error")
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	for _, err := os.Stat(socket); err != nil && ctx.Err() == nil; _, err = os.Stat(socket) {
		time.Sleep(time.Millisecond)
	}
	ready(socket)
	_ = cmd.Wait() // it ends because we do
	return nil
}

type bhomeConn struct {
	n   *node.Node
	pub *node.Publisher
	sub *node.Subscription
	ctx context.Context

	batch [][]byte // nil: none; what is sent one way and not published yet
	full  int      // of it
}

func (b *bhome) attach(ctx context.Context, addr, name, in, out string) (k *bhomeConn, err error) {
	wait, err := shmio.ParseWaitStrategy(b.c.Wait)
	if err != nil {
		return nil, err
	}
	k = &bhomeConn{ctx: ctx}
	if n := min(64, (64<<10)/b.c.Size); b.c.Name == "bhome batch" && n > 1 {
		for range n {
			k.batch = append(k.batch, make([]byte, b.c.Size))
		}
	}
	if k.n, err = node.Attach(ctx, node.Config{Name: name, Socket: addr, Wait: wait}); err != nil {
		return nil, err
	}
	depth := max(4, min(1024, 4<<20/b.c.Size))
	if k.sub, err = k.n.Subscribe(ctx, in, node.Depth(depth), node.OnFull(node.Block), node.Quota(256<<20)); err == nil {
		k.pub, err = k.n.Publisher(ctx, out, node.AllowBlock(time.Minute))
	}
	return k, err
}

func (b *bhome) serve(ctx context.Context, ready func(string), handle func([]byte) bool) error {
	k, err := b.attach(ctx, b.c.Addr, "server", "there", "back")
	if err != nil {
		return err
	}
	defer k.close()
	ready(b.c.Addr)
	ms := make([]node.Message, max(1, len(k.batch)))
	for {
		n, err := k.sub.ReceiveBatch(ctx, ms)
		if err != nil {
			return nil // told to end
		}
		for _, m := range ms[:n] {
			if handle(m.Bytes()) {
				if err := k.pub.Publish(ctx, m.Bytes()); err != nil {
					return err
				}
			}
		}
		if err := node.ReleaseBatch(ms[:n]); err != nil {
			return err
		}
	}
}

func (b *bhome) dial(ctx context.Context, addr string) (conn, error) {
	k, err := b.attach(ctx, addr, "client", "back", "there")
	if err != nil {
		return nil, err
	}
	return k, k.pub.WaitForSubscribers(ctx, 1)
}

func (k *bhomeConn) send(payload []byte) error {
	if k.batch == nil || payload[0] != kindSink && k.full == 0 {
		return k.pub.Publish(k.ctx, payload)
	}
	copy(k.batch[k.full], payload)
	if k.full++; k.full < len(k.batch) && payload[0] == kindSink {
		return nil
	}
	n := k.full
	k.full = 0
	return k.pub.PublishBatch(k.ctx, k.batch[:n])
}

func (k *bhomeConn) recv(read func([]byte)) error {
	m, err := k.sub.Receive(k.ctx)
	if err != nil {
		return err
	}
	read(m.Bytes())
	return m.Release()
}

func (k *bhomeConn) close() error { return closeNode(k.n) }

func closeNode(n *node.Node) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return n.Close(ctx)
}
