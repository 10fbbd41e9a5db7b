package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/bhome-bus/bhome/cmd/internal/child"
	"github.com/bhome-bus/bhome/node"
)

// base is what every process of the demo is told.
type base struct {
	Name        string
	Bus, Socket string
	Root        string
}

func (b base) attach(ctx context.Context) (*node.Node, error) {
	return node.Attach(ctx, node.Config{Name: b.Name, Bus: b.Bus, Socket: b.Socket})
}

// leave closes n within d.
func leave(n *node.Node, d time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	return n.Close(ctx)
}

const leaveTimeout = 5 * time.Second

// consent is how long a publisher lets a subscriber hold up a file. Nothing may be lost, so it is long.
const consent = 20 * time.Second

// reportEvery is after how many files a publisher says how far it is.
const reportEvery = 16

const (
	filesTopic   = "demo.files"
	serviceTopic = "demo.wordcount"
)

type pubConfig struct {
	base
	Subscribers int
	// Corrupt flips a bit of the file at this position, after it was read; -1: of none.
	Corrupt int
}

type pubReady struct{ Session uint64 }

// pubProgress says how many files were sent, of which the last report was no more than reportEvery ago.
type pubProgress struct {
	Sent  uint64
	Bytes uint64
}

// pubDone is the end of a publisher's passes. Pushes is its node's own count of messages pushed to queues.
type pubDone struct {
	pubProgress
	Pushes uint64
}

// pubRole: ready once the subscribers are there; on "go" streams the tree again and again; answers "mark" with how many
// it has sent; on "last" ends with the pass it is in, but does no fewer than it is told; done; leaves on "close".
func pubRole(ctx context.Context, s *child.Session) (err error) {
	var cfg pubConfig
	if err := s.Config(&cfg); err != nil {
		return err
	}
	t, err := openTree(cfg.Root)
	if err != nil {
		return err
	}
	n, err := cfg.attach(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, leave(n, leaveTimeout)) }()
	p, err := n.Publisher(ctx, filesTopic, node.AllowBlock(consent))
	if err != nil {
		return err
	}
	if err := p.WaitForSubscribers(ctx, cfg.Subscribers); err != nil {
		return err
	}
	if err := s.Emit("ready", pubReady{n.Session()}); err != nil {
		return err
	}
	if err := s.Await(ctx, "go", nil); err != nil {
		return err
	}
	st := &stream{t: t, p: p, s: s, cfg: cfg, total: math.MaxUint64}
	if err := st.run(ctx); err != nil {
		return err
	}
	if err := s.Emit("done", pubDone{st.progress, n.Stats().Sent}); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case c := <-s.Commands():
			if c.Name == "close" {
				return nil
			}
			if err := st.obey(c); err != nil {
				return err
			}
		}
	}
}

// stream is a publisher's work.
type stream struct {
	t        *tree
	p        *node.Publisher
	s        *child.Session
	cfg      pubConfig
	progress pubProgress
	total    uint64 // files to send
}

func (st *stream) run(ctx context.Context) error {
	for {
		select {
		case c := <-st.s.Commands():
			if err := st.obey(c); err != nil {
				return err
			}
		default:
		}
		if st.progress.Sent >= st.total {
			return nil
		}
		_, name := st.t.at(st.progress.Sent)
		size, err := st.send(ctx, name)
		if err != nil {
			return fmt.Errorf("publish %s: %w", name, err)
		}
		st.progress.Sent++
		st.progress.Bytes += uint64(size)
		if st.progress.Sent%reportEvery == 0 {
			if err := st.s.Emit("progress", st.progress); err != nil {
				return err
			}
		}
	}
}

func (st *stream) obey(c child.Command) error {
	switch c.Name {
	case "mark":
		return st.s.Emit("mark", st.progress)
	case "last":
		var least uint64
		if err := c.Read(&least); err != nil {
			return err
		}
		pass := uint64(len(st.t.files))
		st.total = max(least, (st.progress.Sent+pass-1)/pass) * pass
		return nil
	default:
		return fmt.Errorf("a publisher doesn't know how to %q", c.Name)
	}
}

// send reads a file straight into the shared memory from which the subscribers will read it.
func (st *stream) send(ctx context.Context, name string) (size int, err error) {
	f, err := os.Open(filepath.Join(st.t.root, name))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return 0, err
	}
	size = int(fi.Size())
	l, err := st.p.Loan(ctx, messageSize(name, size))
	if err != nil {
		return 0, err
	}
	content := putFileHead(l.Bytes(), fileHead{st.progress.Sent, time.Now().UnixNano(), name})
	if _, err := io.ReadFull(f, content); err != nil {
		l.Release()
		return 0, err
	}
	if st.cfg.Corrupt >= 0 && st.progress.Sent >= uint64(st.cfg.Corrupt) && size > 0 {
		content[size/2] ^= 0x10
		st.cfg.Corrupt = -1
	}
	return size, st.p.Send(ctx, l)
}
