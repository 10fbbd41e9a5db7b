package burst

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/bhome-bus/bhome/cmd/internal/child"
	"github.com/bhome-bus/bhome/node"
)

const (
	smallestBlock = 512   // bytes: smaller ones may go inline
	partMost      = 65536 // messages that a subscription can hold
)

// roleConfig goes to the children. A subscription holds only so many messages: a burst of more is spread over several topics.
type roleConfig struct {
	Socket string
	Tag    string
	Size   int
	Parts  []int // messages of each topic
	Subs   int
	How    string
}

func (c roleConfig) topic(part int) string { return fmt.Sprintf("burst.%s.%d", c.Tag, part) }

// publish is the publisher: it sends when told.
func publish(ctx context.Context, s *child.Session) error {
	var cfg roleConfig
	if err := s.Config(&cfg); err != nil {
		return err
	}
	n, err := node.Attach(ctx, node.Config{Name: "burst-pub-" + cfg.Tag, Socket: cfg.Socket})
	if err != nil {
		return err
	}
	pubs := make([]*node.Publisher, len(cfg.Parts))
	for i := range pubs {
		if pubs[i], err = n.Publisher(ctx, cfg.topic(i), node.AllowBlock(time.Minute)); err != nil {
			return err
		}
		if err := pubs[i].WaitForSubscribers(ctx, cfg.Subs); err != nil {
			return err
		}
	}
	send := func(part, number, size int) error {
		loan, err := pubs[part].Loan(ctx, size)
		if err != nil {
			return err
		}
		b := loan.Bytes()
		for i := range b {
			b[i] = byte(number)
		}
		binary.NativeEndian.PutUint64(b, uint64(number))
		return pubs[part].Send(ctx, loan)
	}
	return serve(ctx, s, n, map[string]func(count int) error{
		"warm": func(count int) error {
			for i := range count {
				for part := range pubs {
					if err := send(part, i, smallestBlock); err != nil {
						return err
					}
				}
			}
			return nil
		},
		"burst": func(int) error {
			for part, count := range cfg.Parts {
				for i := range count {
					if err := send(part, i, cfg.Size); err != nil {
						return fmt.Errorf("message %d of topic %d: %w", i, part, err)
					}
				}
			}
			return nil
		},
	})
}

// subscribe is a subscriber: it receives, holds and releases when told.
func subscribe(ctx context.Context, s *child.Session) error {
	var cfg roleConfig
	if err := s.Config(&cfg); err != nil {
		return err
	}
	n, err := node.Attach(ctx, node.Config{Name: "burst-sub", Pooled: true, Socket: cfg.Socket})
	if err != nil {
		return err
	}
	subs := make([]*node.Subscription, len(cfg.Parts))
	for i, count := range cfg.Parts {
		if subs[i], err = n.Subscribe(ctx, cfg.topic(i), node.Depth(count), node.Hold(count), node.OnFull(node.Block),
			node.Quota(uint64(count)*uint64(max(cfg.Size, smallestBlock)))); err != nil {
			return err
		}
	}
	take := func(part, number, size int) (node.Message, error) {
		m, err := subs[part].Receive(ctx)
		if err != nil {
			return m, err
		}
		b := m.Bytes()
		if len(b) != size || binary.NativeEndian.Uint64(b) != uint64(number) {
			return m, fmt.Errorf("message %d of topic %d came with %d bytes, which begin %x: want %d", number, part, len(b), b[:min(8, len(b))], size)
		}
		for i := 8; i < size; i++ {
			if b[i] != byte(number) {
				return m, fmt.Errorf("message %d of topic %d is changed at byte %d", number, part, i)
			}
		}
		return m, nil
	}
	each := func(f func(m node.Message) error) error {
		for part, count := range cfg.Parts {
			for i := range count {
				m, err := take(part, i, cfg.Size)
				if err == nil {
					err = f(m)
				}
				if err != nil {
					return err
				}
			}
		}
		return nil
	}
	var held [][]node.Message
	return serve(ctx, s, n, map[string]func(count int) error{
		"warm": func(count int) error {
			for i := range count {
				for part := range subs {
					m, err := take(part, i, smallestBlock)
					if err != nil {
						return err
					}
					if err := m.Release(); err != nil {
						return err
					}
				}
			}
			return nil
		},
		"hold": func(int) error {
			return each(func(m node.Message) error {
				if k := len(held); k == 0 || len(held[k-1]) == cap(held[k-1]) {
					held = append(held, make([]node.Message, 0, 4096))
				}
				held[len(held)-1] = append(held[len(held)-1], m)
				return nil
			})
		},
		"release": func(int) error {
			if cfg.How == Queued {
				return each(node.Message.Release)
			}
			var errs []error
			for _, part := range held {
				errs = append(errs, node.ReleaseBatch(part))
			}
			held = nil
			return errors.Join(errs...)
		},
	})
}

// serve does what the parent says, and says so, until "close".
func serve(ctx context.Context, s *child.Session, n *node.Node, do map[string]func(count int) error) error {
	if err := s.Emit("ready", nil); err != nil {
		return err
	}
	for {
		select {
		case c := <-s.Commands():
			if c.Name == "close" {
				return n.Close(ctx)
			}
			var count int
			if err := c.Read(&count); err != nil {
				return err
			}
			if err := do[c.Name](count); err != nil {
				return fmt.Errorf("%s: %w", c.Name, err)
			}
			if err := s.Emit(c.Name, nil); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
