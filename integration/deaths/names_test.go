package deaths

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/bhome-bus/bhome/node"
)

func TestANameOfAnotherProcess(t *testing.T) {
	d := newDaemon(t)
	p := role(t, "cam", d.socket)
	p.until("ready")
	var in *node.NameInUseError
	_, err := node.Attach(t.Context(), node.Config{Name: "cam", Socket: d.socket})
	if !errors.Is(err, node.ErrNameInUse) || !errors.As(err, &in) || int(in.PID) != p.cmd.Process.Pid {
		t.Fatalf("%v, want ErrNameInUse by process %d", err, p.cmd.Process.Pid)
	}
	if !strings.Contains(err.Error(), fmt.Sprint(p.cmd.Process.Pid)) {
		t.Errorf("%q doesn't say who has it", err)
	}
	// A process that is killed has no name any more.
	p.kill()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		n, err := node.Attach(ctx, node.Config{Name: "cam", Socket: d.socket})
		if err == nil {
			n.Close(ctx)
			break
		}
		if !errors.Is(err, node.ErrNameInUse) || ctx.Err() != nil {
			t.Fatal(err)
		}
	}
}

func TestTakeoverBetweenProcesses(t *testing.T) {
	d := newDaemon(t)
	first := role(t, "cam", d.socket)
	first.until("ready")
	n, err := node.Attach(t.Context(), node.Config{Name: "cam", Socket: d.socket, Takeover: true})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close(context.Background())
	first.until("displaced: true")
	second := role(t, "taker", d.socket)
	second.until("ready")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	select {
	case <-n.Done():
	case <-ctx.Done():
		t.Fatal("it doesn't hear that it is displaced")
	}
	if err := n.Err(); !errors.Is(err, node.ErrDisplaced) || !strings.Contains(err.Error(), fmt.Sprint("process ", second.cmd.Process.Pid)) {
		t.Fatalf("%v, want ErrDisplaced by process %d", err, second.cmd.Process.Pid)
	}
}

// keptBlocks counts the owner's blocks of topic t, and those of them that holder has.
func keptBlocks(t *testing.T, n *node.Node, owner, holder string) (all, held int) {
	t.Helper()
	rows, _, err := n.Msgs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		if r.GetOwner() == owner && r.GetTopic() == "t" {
			all++
			if slices.Contains(r.GetHolders(), holder) {
				held++
			}
		}
	}
	return all, held
}

// What a killed subscriber held is its sender's again; another subscriber holds on and goes on.
func TestSubscriberKilledWithMessagesInHand(t *testing.T) {
	d := newDaemon(t)
	p := role(t, "keeper", d.socket)
	p.until("ready")
	sender, err := node.Attach(t.Context(), node.Config{Name: "sender", Socket: d.socket, Magazine: node.NoMagazine})
	if err != nil {
		t.Fatal(err)
	}
	defer sender.Close(context.Background())
	s, err := attach(t, d, "other").Subscribe(t.Context(), "t", node.Depth(200), node.Hold(200))
	if err != nil {
		t.Fatal(err)
	}
	pub, err := sender.Publisher(t.Context(), "t")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		if err := pub.Publish(t.Context(), numbered(3000, i)); err != nil {
			t.Fatal(err)
		}
	}
	p.until("holds 10")
	for i := range 9 {
		receive(t, s, i)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ninth, err := s.Receive(ctx) // held by both
	if err != nil {
		t.Fatal(err)
	}
	if all, held := keptBlocks(t, sender, "sender", "keeper"); all != 10 || held != 10 {
		t.Fatalf("%d blocks, %d of them held", all, held)
	}
	p.kill()
	for all, held := 10, 10; all != 1 || held != 0; all, held = keptBlocks(t, sender, "sender", "keeper") {
		if ctx.Err() != nil {
			t.Fatalf("%d blocks, %d of them held by the dead", all, held)
		}
	}
	for i := range 100 {
		if err := pub.Publish(t.Context(), numbered(3000, 10+i)); err != nil {
			t.Fatal(err)
		}
	}
	if ninth.Bytes()[0] != 9 {
		t.Fatalf("a held message is %d now, was 9", ninth.Bytes()[0])
	}
	ninth.Release()
	for i := range 100 {
		receive(t, s, 10+i)
	}
	for all := 1; all != 0; all, _ = keptBlocks(t, sender, "sender", "keeper") {
		if ctx.Err() != nil {
			t.Fatalf("%d blocks are left", all)
		}
	}
	if st := s.Stats(); st.Dropped != 0 || st.Unread != 0 {
		t.Fatalf("%+v", st)
	}
}
