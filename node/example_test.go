package node_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/bhome-bus/bhome/node"
)

// A process publishes, another subscribes to everything below "camera".
func Example() {
	ctx := context.Background()
	n, err := node.Attach(ctx, node.Config{Name: "camera"})
	if err != nil {
		log.Fatal(err) // ErrNoDaemon says where it looked and how to start one
	}
	defer n.Close(ctx)

	// Everything published after Subscribe has returned arrives, as far as depth and policy allow.
	sub, err := n.Subscribe(ctx, "camera.>", node.Depth(64), node.OnFull(node.DropOldest))
	if err != nil {
		log.Fatal(err)
	}
	pub, err := n.Publisher(ctx, "camera.front")
	if err != nil {
		log.Fatal(err)
	}
	if err := pub.Publish(ctx, []byte("hello")); err != nil {
		log.Fatal(err)
	}
	for m := range sub.Messages(ctx) {
		fmt.Println(m.Topic(), m.Seq(), string(m.Bytes()))
		m.Release() // after this its bytes are the sender's again
	}
	fmt.Println("no more messages:", sub.Err())
}

// A loan is a block in this process's own memory: what is written there is what the subscribers read.
func ExamplePublisher_Loan() {
	ctx := context.Background()
	n, err := node.Attach(ctx, node.Config{Name: "camera"})
	if err != nil {
		log.Fatal(err)
	}
	defer n.Close(ctx)
	pub, err := n.Publisher(ctx, "camera.front")
	if err != nil {
		log.Fatal(err)
	}
	grab := func(into []byte) (int, error) { return copy(into, "a frame"), nil }

	l, err := pub.Loan(ctx, 1<<20)
	if err != nil {
		log.Fatal(err) // a LimitError names the limit, whose it is, and how much is in use
	}
	size, err := grab(l.Bytes())
	if err == nil {
		err = l.Resize(size) // never more than l.Cap()
	}
	if err != nil {
		l.Release() // not sent: the block goes back
		log.Fatal(err)
	}
	if err := pub.Send(ctx, l); err != nil { // the loan is no longer ours, whatever Send returns
		log.Print(err)
	}
}

// Messages are the sender's memory until they are released. Who works on them for long says how many at once.
func ExampleSubscription_Receive() {
	ctx := context.Background()
	n, err := node.Attach(ctx, node.Config{Name: "recorder"})
	if err != nil {
		log.Fatal(err)
	}
	defer n.Close(ctx)
	sub, err := n.Subscribe(ctx, "camera.*", node.Depth(8), node.Hold(4), node.Quota(64<<20), node.Expiry(time.Second))
	if err != nil {
		log.Fatal(err)
	}
	for {
		m, err := sub.Receive(ctx)
		if err != nil {
			log.Print(err)
			return
		}
		fmt.Printf("%s from %s: %d bytes, %v old\n", m.Topic(), m.Publisher(), len(m.Bytes()), m.Age())
		if err := m.Release(); err != nil {
			log.Print(err) // ErrReleased: it was released before
		}
	}
}

// A service adds numbers; a failing handler's error reaches the caller typed.
func ExampleNode_Serve() {
	ctx := context.Background()
	n, err := node.Attach(ctx, node.Config{Name: "calculator"})
	if err != nil {
		log.Fatal(err)
	}
	defer n.Close(ctx)
	svc, err := n.Serve(ctx, "math.add", func(ctx context.Context, req *node.Request) ([]byte, error) {
		b := req.Copy() // a hostile caller can't change it while we look
		if len(b) != 16 {
			return nil, fmt.Errorf("want 16 bytes, got %d", len(b))
		}
		sum := binary.LittleEndian.Uint64(b) + binary.LittleEndian.Uint64(b[8:])
		return binary.LittleEndian.AppendUint64(nil, sum), nil
	}, node.Workers(4))
	if err != nil {
		log.Fatal(err)
	}
	<-n.Done() // closed, displaced, or refused for good: n.Err says which
	if err := svc.Close(ctx); err != nil {
		log.Print(err)
	}
}

// A request ends with a reply, an error of the handler, or the end of its context or of the provider.
func ExampleNode_Request() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	n, err := node.Attach(ctx, node.Config{Name: "shop"})
	if err != nil {
		log.Fatal(err)
	}
	defer n.Close(context.Background())
	if err := n.WaitForService(ctx, "math.add"); err != nil {
		log.Fatal(err)
	}
	reply, err := n.Request(ctx, "math.add", make([]byte, 16))
	var failed *node.HandlerError
	switch {
	case errors.As(err, &failed):
		log.Printf("%s refused: %s", failed.Topic, failed.Message)
	case errors.Is(err, node.ErrProviderGone): // it may have done the work: asking again is our decision
		log.Print("the provider died with the request in hand")
	case err != nil:
		log.Print(err)
	default:
		fmt.Println(reply.Provider(), "says", binary.LittleEndian.Uint64(reply.Bytes()))
		reply.Release()
	}
}

// Several requests under way at once; each callback runs once.
func ExampleNode_RequestAsync() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	n, err := node.Attach(ctx, node.Config{Name: "shop"})
	if err != nil {
		log.Fatal(err)
	}
	defer n.Close(context.Background())
	const count = 10
	done := make(chan error, count)
	for range count {
		err := n.RequestAsync(ctx, "math.add", make([]byte, 16), func(r *node.Reply, err error) {
			if err == nil {
				err = r.Release()
			}
			done <- err
		})
		if err != nil {
			done <- err
		}
	}
	for range count {
		if err := <-done; err != nil {
			log.Print(err)
		}
	}
}
