package node_test

import (
	"runtime"
	"strings"
	"testing"

	"github.com/bhome-bus/bhome/node"
)

// locking reports whether a goroutine waits for a mutex in a function.
func locking(function string) bool {
	buf := make([]byte, 4<<20)
	for g := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if strings.Contains(g, "[sync.Mutex.Lock") && strings.Contains(g, function) {
			return true
		}
	}
	return false
}

// Who has listed a route may look into its peer's memory until the route is freed: the peer isn't forgotten before.
func TestAPeerIsNotForgottenBeforeItsRouteIsFreed(t *testing.T) {
	b := newBus(t)
	reader, pub := b.attach("reader"), b.attach("pub")
	sub := b.subscribe(reader, "t")
	b.sendNumbers(b.publisher(pub, "t"), 1, 2) // in a block
	m := b.receive(sub)
	_ = pub.Close(b.ctx) // it says that something is held
	eventually(t, func() string {
		node.PeerDied(reader, "pub")
		if !node.Settled(reader, "pub") {
			return "the center has not told all of pub"
		}
		return ""
	})
	unlock := node.LockRoute(reader, "pub")
	if err := m.Release(); err != nil {
		t.Error(err)
	}
	eventually(t, func() string {
		if !locking("node.(*Node).reap") {
			return "the housekeeper isn't about to free the route"
		}
		return ""
	})
	node.ForgetPeers(reader)
	if node.Peers(reader) != 1 {
		t.Error("the peer is forgotten")
	}
	unlock()
	eventually(t, func() string {
		if node.Peers(reader) != 0 {
			return "the peer is remembered"
		}
		return ""
	})
}
