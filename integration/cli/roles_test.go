package cli

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strconv"

	"github.com/bhome-bus/bhome/node"
)

// runRole is a known process whose rows the listings must show. It says "ready", does what a line on its input tells it
// and says "done", and ends with its input.
//
//	publisher NAME TOPIC: "send COUNT SIZE", "spoil" (see spoil)
//	holder NAME PATTERN: "take COUNT" and never gives back; "release"
//	busy NAME TOPIC: publishes, subscribes, serves and asks as fast as it can, all the time
func runRole(role string) int {
	if err := playRole(role, os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func playRole(role, name, topic string) error {
	ctx := context.Background()
	n, err := node.Attach(ctx, node.Config{Name: name})
	if err != nil {
		return err
	}
	var do func(args []string) error
	switch role {
	case "publisher":
		p, err := n.Publisher(ctx, topic)
		if err != nil {
			return err
		}
		do = func(args []string) error {
			if args[0] == "spoil" {
				return spoil()
			}
			count, size := number(args[1]), number(args[2])
			for range count {
				if err := p.Publish(ctx, make([]byte, size)); err != nil {
					return err
				}
			}
			return nil
		}
	case "holder":
		s, err := n.Subscribe(ctx, topic, node.Depth(32))
		if err != nil {
			return err
		}
		var held []node.Message
		do = func(args []string) error {
			if args[0] == "release" {
				for _, m := range held {
					if err := m.Release(); err != nil {
						return err
					}
				}
				held = nil
				return nil
			}
			for range number(args[1]) {
				m, err := s.Receive(ctx)
				if err != nil {
					return err
				}
				held = append(held, m)
			}
			return nil
		}
	case "busy":
		if err := keepBusy(ctx, n, topic); err != nil {
			return err
		}
	default:
		return fmt.Errorf("no role %q", role)
	}
	fmt.Println("ready")
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		var args [3]string
		fmt.Sscan(in.Text(), &args[0], &args[1], &args[2])
		if err := do(args[:]); err != nil {
			return err
		}
		fmt.Println("done")
	}
	return nil
}

// keepBusy floods "<topic>.<name>" with small and large messages, holds some of what the others flood, and asks whoever
// answers. It goes on over the death of peers and of bhomed.
func keepBusy(ctx context.Context, n *node.Node, topic string) error {
	sub, err := n.Subscribe(ctx, topic+".>", node.Depth(64))
	if err != nil {
		return err
	}
	pub, err := n.Publisher(ctx, topic+"."+n.Name())
	if err != nil {
		return err
	}
	if _, err := n.Serve(ctx, topic, func(_ context.Context, r *node.Request) ([]byte, error) { return r.Bytes(), nil }); err != nil {
		return err
	}
	go func() {
		var held [8]node.Message
		for i := 0; ; i++ {
			m, err := sub.Receive(ctx)
			if err != nil {
				return
			}
			if i >= len(held) {
				_ = held[i%len(held)].Release() // its sender may be gone
			}
			held[i%len(held)] = m
		}
	}()
	go func() {
		for {
			_, _ = n.Request(ctx, topic, []byte("question")) // providers die
		}
	}()
	go func() {
		small, large := make([]byte, 64), make([]byte, 5000)
		for i := 0; ; i++ {
			_ = pub.Publish(ctx, small) // what is lost is not the matter here
			if i%16 == 0 {
				_ = pub.Publish(ctx, large[:i/16%len(large)])
			}
		}
	}()
	return nil
}

func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(err)
	}
	return n
}
