package deaths

import (
	"context"
	"fmt"
	"io"
	"os"
	"testing"

	"github.com/bhome-bus/bhome/node"
)

const (
	bigMessage = 1 << 20 // so that a magazine holds few
	bigHeld    = 10
)

// holder holds big messages of others, and has sent some that nobody has read yet.
func holder(ctx context.Context, n *node.Node) error {
	p, err := n.Publisher(ctx, "h.out")
	if err == nil {
		err = p.WaitForSubscribers(ctx, 1)
	}
	if err != nil {
		return err
	}
	for i := range 20 {
		if err := p.Publish(ctx, numbered(3000, i)); err != nil {
			return err
		}
	}
	s, err := n.Subscribe(ctx, "h.in", node.Depth(bigHeld), node.Hold(bigHeld))
	if err != nil {
		return err
	}
	fmt.Println("ready")
	for range bigHeld {
		if _, err := s.Receive(ctx); err != nil {
			return err
		}
	}
	fmt.Println("holds")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// held brings up a holder and lets it hold. What it has sent waits at s.
func held(t *testing.T, d *daemon, n *node.Node) (p *process, pub *node.Publisher, s *node.Subscription) {
	t.Helper()
	s, err := n.Subscribe(t.Context(), "h.out", node.Depth(64), node.OnFull(node.Block))
	if err != nil {
		t.Fatal(err)
	}
	if pub, err = n.Publisher(t.Context(), "h.in"); err != nil {
		t.Fatal(err)
	}
	p = role(t, "holder", d.socket)
	p.until("ready")
	for i := range bigHeld {
		if err := pub.Publish(t.Context(), numbered(bigMessage, i)); err != nil {
			t.Fatal(err)
		}
	}
	p.until("holds")
	eventually(t, func() string { // both ends have the route
		if st := s.Stats(); st.Unread != 20 {
			return fmt.Sprintf("%+v", st)
		}
		return ""
	})
	return p, pub, s
}

// A process dies while there is no center: what it sent is read, and what it held is its sender's again, at once.
func TestDeathWithoutACenter(t *testing.T) {
	d := newDaemon(t)
	n := attach(t, d, "n")
	p, pub, s := held(t, d, n)
	d.kill()
	eventually(t, func() string {
		if n.State() != node.StateReconnecting {
			return "n hasn't noticed"
		}
		return ""
	})
	p.kill()
	eventually(t, func() string {
		if k := pub.Subscribers(); k != 0 {
			return fmt.Sprint(k, " subscribers are left")
		}
		return ""
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for i := range bigHeld { // nobody could grant these
		l, err := pub.Loan(ctx, bigMessage)
		if err != nil {
			t.Fatalf("loan %d: %v", i, err)
		}
		defer l.Release()
	}
	for i := range 20 {
		receive(t, s, i)
	}
	d.run(t) // the next center never hears of it
	eventually(t, func() string {
		if r := procNamed(t, n, "holder"); r != nil || n.State() != node.StateOnline {
			return fmt.Sprint("n is ", n.State(), ", the dead is ", r)
		}
		return ""
	})
	msgs, _, err := n.Msgs(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range msgs {
		if m.GetOwner() != "n" || len(m.GetHolders()) != 0 {
			t.Error("a block is left:", m)
		}
	}
}

// A process that has been killed and that its parent has not waited for is as dead as any.
func TestZombie(t *testing.T) {
	d := newDaemon(t)
	n := attach(t, d, "n")
	p, pub, s := held(t, d, n)
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string {
		if st := state(t, p.cmd.Process.Pid); st != "Z" {
			return "it is in state " + st
		}
		if r := procNamed(t, n, "holder"); r != nil || pub.Subscribers() != 0 {
			return fmt.Sprintf("%d subscribers; the dead is %v", pub.Subscribers(), r)
		}
		return ""
	})
	for i := range 20 {
		receive(t, s, i)
	}
	again := role(t, "holder", d.socket) // its name is free
	again.until("ready")
	if st := state(t, p.cmd.Process.Pid); st != "Z" {
		t.Error("somebody has waited for it:", st)
	}
}

// The center goes while one process is stopped and another dies: the next one has what there is, and the late one fits in.
func TestLateAndDeadAtARestart(t *testing.T) {
	d := newDaemon(t)
	n := attach(t, d, "n")
	late := role(t, "sleeper", d.socket)
	late.until("ready")
	pub, err := n.Publisher(t.Context(), "late.in")
	if err != nil {
		t.Fatal(err)
	}
	for i := range sleeperHolds {
		if err := pub.Publish(t.Context(), numbered(3000, i)); err != nil {
			t.Fatal(err)
		}
	}
	late.until("holds")
	s, err := n.Subscribe(t.Context(), "late.out", node.Depth(64), node.OnFull(node.Block))
	if err != nil {
		t.Fatal(err)
	}
	dies, _, theirs := held(t, d, n)
	before := procNamed(t, n, "sleeper")
	goOn := stopped(t, late.cmd.Process.Pid)
	d.kill()
	dies.kill()
	d.run(t)
	for i := range 20 {
		receive(t, theirs, i)
	}
	newcomer, err := attach(t, d, "newcomer").Subscribe(t.Context(), "late.out", node.Depth(64))
	if err != nil { // waits for nobody who is stopped
		t.Fatal(err)
	}
	if r := procNamed(t, n, "holder"); r != nil {
		t.Error("the dead one is known:", r)
	}
	fmt.Fprintln(late.in, "go") // on the route of the center before
	goOn()
	for i := range 10 {
		receive(t, s, i)
	}
	late.until("intact: true")
	eventually(t, func() string {
		if r := procNamed(t, n, "sleeper"); r.GetSession() != before.GetSession() || r.GetState() != "online" {
			return fmt.Sprintf("it is %v, was %v", r, before)
		}
		return ""
	})
	// Once it has attached again all have a route from it, the newcomer's too.
	eventually(t, func() string {
		if st, ok := n.Stats(), procNamed(t, n, "sleeper"); st.RoutesIn < 1 || ok.GetRoutes() < 3 {
			return fmt.Sprintf("%d routes, n has %+v", ok.GetRoutes(), st)
		}
		return ""
	})
	fmt.Fprintln(late.in, "go")
	for i := range 10 {
		receive(t, s, i)
	}
	if _, ok, err := s.TryReceive(); ok || err != nil {
		t.Fatal("a message came twice:", ok, err)
	}
	for { // its first ten, if it was back by then; the last ten in any case
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		m, err := newcomer.Receive(ctx)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		last := m.Seq() == 20
		if err := m.Release(); err != nil {
			t.Fatal(err)
		}
		if last {
			return
		}
	}
}
