package hostile

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/bhome-bus/bhome/cmd/internal/child"
	"github.com/bhome-bus/bhome/node"
)

// Roles are the children of an attack: the honest pair, and whoever attacks.
func Roles() map[string]child.Role {
	return map[string]child.Role{PubRole: pubRole, SubRole: subRole, AttackRole: attackRole}
}

// The names of the roles. PubRole and SubRole take HonestConfig; AttackRole what Attack.Config makes.
const (
	PubRole    = "hostile-pub"
	SubRole    = "hostile-sub"
	AttackRole = "hostile-attack"
)

// honestConfig is what the honest ones are told.
type honestConfig struct {
	Socket string
	Size   int // bytes of a message
}

const headLen = 16 // of an honest payload: number, checksum

// fill makes message number n of the rest of b.
func fill(b []byte, n uint64) {
	sum := n
	for i := headLen; i+8 <= len(b); i += 8 {
		w := n*0x9e3779b97f4a7c15 + uint64(i)
		binary.NativeEndian.PutUint64(b[i:], w)
		sum = sum*31 + w
	}
	binary.NativeEndian.PutUint64(b, n)
	binary.NativeEndian.PutUint64(b[8:], sum)
}

// check is the number of an honest message, and whether each byte of it is as it was sent.
func check(b []byte) (n uint64, ok bool) {
	if len(b) < headLen {
		return 0, false
	}
	n = binary.NativeEndian.Uint64(b)
	sum := n
	for i := headLen; i+8 <= len(b); i += 8 {
		sum = sum*31 + binary.NativeEndian.Uint64(b[i:])
	}
	return n, sum == binary.NativeEndian.Uint64(b[8:])
}

// pubRole publishes as fast as the subscriber takes it, from "go" to "stop"; then it says how many there were.
func pubRole(ctx context.Context, s *child.Session) error {
	var cfg honestConfig
	if err := s.Config(&cfg); err != nil {
		return err
	}
	n, err := node.Attach(ctx, node.Config{Name: "honest-pub", Socket: cfg.Socket})
	if err != nil {
		return err
	}
	// It waits for those that ask for it: the honest subscriber alone does.
	pub, err := n.Publisher(ctx, goodTopic, node.AllowBlock(time.Minute))
	if err == nil {
		err = pub.WaitForSubscribers(ctx, 1)
	}
	if err != nil {
		return err
	}
	if err := s.Emit("ready", nil); err != nil {
		return err
	}
	if err := s.Await(ctx, "go", nil); err != nil {
		return err
	}
	var stop atomic.Bool // pairs with the loop's load
	sent, failed := make(chan uint64, 1), make(chan error, 1)
	go func() {
		for i := uint64(0); ; i++ {
			if stop.Load() {
				sent <- i
				return
			}
			l, err := pub.Loan(ctx, cfg.Size)
			if err == nil {
				fill(l.Bytes(), i)
				err = pub.Send(ctx, l)
			}
			if err != nil {
				failed <- fmt.Errorf("message %d: %w", i, err)
				return
			}
		}
	}()
	asked := make(chan error, 1)
	go func() { asked <- s.Await(ctx, "stop", nil) }()
	select {
	case err = <-failed:
		return err
	case err = <-asked:
		stop.Store(true)
	}
	if err != nil {
		return err
	}
	select {
	case err = <-failed:
		return err
	case all := <-sent:
		err = s.Emit("sent", all)
	}
	if err == nil {
		err = s.Await(ctx, "close", nil)
	}
	cctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return errors.Join(err, n.Close(cctx))
}

// Count is what the honest subscriber has got so far.
type Count struct {
	Good   uint64 `json:"good"`   // of the honest publisher: whole and in order, each once
	Others uint64 `json:"others"` // of strangers
	AtNs   int64  `json:"at_ns"`  // when it was counted, on the machine's monotonic clock
}

// subRole receives what the honest publisher sends, and what strangers do, and checks the former. It fails at the first
// message that is lost, doubled, out of order or changed.
func subRole(ctx context.Context, s *child.Session) error {
	var cfg honestConfig
	if err := s.Config(&cfg); err != nil {
		return err
	}
	n, err := node.Attach(ctx, node.Config{Name: "honest-sub", Socket: cfg.Socket})
	if err != nil {
		return err
	}
	// What strangers send must not hold back the honest, so it has a queue of its own.
	good, err := n.Subscribe(ctx, goodTopic, node.Depth(1024), node.OnFull(node.Block))
	if err != nil {
		return err
	}
	all, err := n.Subscribe(ctx, evilTopic, node.Depth(1024))
	if err != nil {
		return err
	}
	runs, err := n.Subscribe(ctx, runTopic, node.Depth(1024), node.OnFull(node.Block))
	if err != nil {
		return err
	}
	var next, others atomic.Uint64 // pair with the loads for "count"
	failed := make(chan error, 1)
	rctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan struct{}, 3)
	go func() {
		defer func() { ended <- struct{}{} }()
		for m := range good.Messages(rctx) {
			i, ok := check(m.Bytes())
			if want := next.Load(); i != want || !ok || len(m.Bytes()) != cfg.Size {
				failed <- fmt.Errorf("message %d came (whole: %v, %d bytes), expected was %d", i, ok, len(m.Bytes()), want)
				return
			}
			next.Add(1)
			if err := m.Release(); err != nil {
				failed <- err
				return
			}
		}
	}()
	go func() {
		defer func() { ended <- struct{}{} }()
		var copied []byte
		for m := range all.Messages(rctx) {
			copied = append(copied[:0], m.Bytes()...) // as it is advised with strangers' messages
			others.Add(1)
			_ = m.Release() // its sender may be beyond that
		}
	}()
	go func() {
		defer func() { ended <- struct{}{} }()
		var copied []byte
		for into := make([]node.Message, 16); ; {
			k, err := runs.ReceiveBatch(rctx, into)
			if err != nil {
				return // rctx is over
			}
			for _, m := range into[:k] {
				copied = append(copied[:0], m.Bytes()...)
			}
			others.Add(uint64(k))
			_ = node.ReleaseBatch(into[:k]) // as above
		}
	}()
	if err := s.Emit("ready", nil); err != nil {
		return err
	}
	start := time.Now()
	for {
		select {
		case err := <-failed:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		case c := <-s.Commands():
			if c.Name == "count" {
				if err := s.Emit("count", Count{Good: next.Load(), Others: others.Load(), AtNs: int64(time.Since(start))}); err != nil {
					return err
				}
				continue
			}
			stop()
			for range cap(ended) {
				<-ended
			}
			cctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			return n.Close(cctx)
		}
	}
}
