package actors

import (
	"fmt"
	"testing"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio"
)

// endBus is a bus with a writer and a reader that are told of a route between them, of which neither has told its half.
func endBus(t *testing.T) (b *testBus, w, r *rawNode, route uint64) {
	t.Helper()
	b = newTestBus(t, withPatients)
	w, r = b.onlineRaw("w"), b.onlineRaw("r")
	return b, w, r, b.joined(w, r)
}

// tellHalf says where a node's half of a route is.
func (r *rawNode) tellHalf(route uint64, role bhomev1.Role) {
	r.t.Helper()
	m := &bhomev1.RouteHalf{Route: route, Role: role, Half: &bhomev1.Half{Offset: shmio.FirstBlock}}
	if role == bhomev1.Role_ROLE_WRITER {
		r.send(bhomev1.MsgType_MSG_TYPE_ROUTE_HALF, m)
		return
	}
	m.HasBell = true
	r.send(bhomev1.MsgType_MSG_TYPE_ROUTE_HALF, m, r.bell())
}

// expectPeer takes the news of the other end's half.
func (r *rawNode) expectPeer(route uint64, role bhomev1.Role) {
	r.t.Helper()
	var m bhomev1.RoutePeer
	if r.expect(bhomev1.MsgType_MSG_TYPE_ROUTE_PEER, &m); m.GetRoute() != route || m.GetRole() != role {
		r.t.Fatalf("route %#x as %v is introduced, want %#x as %v", m.GetRoute(), m.GetRole(), route, role)
	}
}

// expectClose takes the news of a route's end.
func (r *rawNode) expectClose(route uint64, alive bool) {
	r.t.Helper()
	var m bhomev1.RouteClose
	if r.expect(bhomev1.MsgType_MSG_TYPE_ROUTE_CLOSE, &m); m.GetRoute() != route || m.GetPeerAlive() != alive {
		r.t.Fatalf("%v, want the end of route %#x, its peer alive: %v", &m, route, alive)
	}
}

func (r *rawNode) askOver(session uint64) {
	r.t.Helper()
	r.send(bhomev1.MsgType_MSG_TYPE_PEER_GONE, &bhomev1.PeerGone{Session: session})
}

func (r *rawNode) expectOver(session uint64) {
	r.t.Helper()
	var m bhomev1.PeerGone
	if r.expect(bhomev1.MsgType_MSG_TYPE_PEER_GONE, &m); m.GetSession() != session {
		r.t.Fatalf("session %d is over, want %d", m.GetSession(), session)
	}
}

// noSession is one that never was; what is asked about it is answered after what this node was told before.
const noSession = 1<<58 + 10

// quiet fails if the node has been told anything: it asks, and the answer must be the next thing to come.
func (r *rawNode) quiet() {
	r.t.Helper()
	r.askOver(noSession)
	r.expectOver(noSession)
}

func (r *rawNode) unsubscribe() {
	r.t.Helper()
	if err := r.common(1, bhomev1.MsgType_MSG_TYPE_UNSUBSCRIBE, &bhomev1.Unsubscribe{Subscription: 1}); err != nil {
		r.t.Fatal(err)
	}
}

// remembered waits until the node's session remembers so many routes, and ends of routes that are over.
func (b *testBus) remembered(r *rawNode, routes, ending int) {
	b.t.Helper()
	eventually(b.t, func() (what string) {
		operate(b, b.sessionPID(r.session), func(s *session) {
			if len(s.routes) != routes || len(s.ending) != ending || len(s.early) != 0 {
				what = fmt.Sprintf("%d routes, %d that end and %d early halves are remembered, want %d, %d and 0", len(s.routes), len(s.ending), len(s.early), routes, ending)
			}
		})
		return what
	})
}

// A route that ends before its ends know each other's halves is introduced yet, whoever tells its half first; then it is forgotten.
func TestRouteThatEndsBeforeItIsIntroduced(t *testing.T) {
	const writer, reader = bhomev1.Role_ROLE_WRITER, bhomev1.Role_ROLE_READER
	for name, before := range map[string][]bhomev1.Role{"neither is told": nil, "the writer's is told": {writer}, "the reader's is told": {reader}} {
		for _, first := range []bhomev1.Role{writer, reader} {
			t.Run(fmt.Sprintf("%s, then %v", name, first), func(t *testing.T) {
				b, w, r, route := endBus(t)
				told := map[bhomev1.Role]bool{}
				tell := func(role bhomev1.Role) {
					if told[role] {
						return
					}
					told[role] = true
					if role == writer {
						w.tellHalf(route, writer)
						r.expectPeer(route, reader)
					} else {
						r.tellHalf(route, reader)
						w.expectPeer(route, writer)
					}
				}
				for _, role := range before {
					tell(role)
				}
				r.unsubscribe()
				w.expectClose(route, true)
				r.expectClose(route, true)
				b.remembered(w, 0, 1)
				b.remembered(r, 0, 1)
				tell(first)
				if len(told) == 1 {
					b.remembered(w, 0, 1)
					b.remembered(r, 0, 1)
				}
				tell(writer)
				tell(reader)
				b.remembered(w, 0, 0)
				b.remembered(r, 0, 0)
				w.tellHalf(route, writer) // nobody's any more
				r.tellHalf(route, reader)
				w.quiet()
				r.quiet()
				b.remembered(w, 0, 0)
				b.remembered(r, 0, 0)
			})
		}
	}
}

// A route whose ends know each other is forgotten with its end.
func TestRouteThatEndsIntroducedIsForgotten(t *testing.T) {
	b, w, r, route := endBus(t)
	w.tellHalf(route, bhomev1.Role_ROLE_WRITER)
	r.expectPeer(route, bhomev1.Role_ROLE_READER)
	r.tellHalf(route, bhomev1.Role_ROLE_READER)
	w.expectPeer(route, bhomev1.Role_ROLE_WRITER)
	b.remembered(w, 1, 0)
	r.unsubscribe()
	w.expectClose(route, true)
	r.expectClose(route, true)
	b.remembered(w, 0, 0)
	b.remembered(r, 0, 0)
	w.quiet()
	r.quiet()
}

// An end that is over and not introduced waits for the other's half as long as that lives: its death is told, after all else.
func TestRouteThatEndsWaitsForTheLiving(t *testing.T) {
	b, w, r, route := endBus(t)
	w.tellHalf(route, bhomev1.Role_ROLE_WRITER)
	r.expectPeer(route, bhomev1.Role_ROLE_READER)
	r.unsubscribe()
	w.expectClose(route, true)
	b.remembered(w, 0, 1)
	w.askOver(r.session)
	w.quiet() // it lives
	r.send(bhomev1.MsgType_MSG_TYPE_BYE, &bhomev1.Bye{})
	w.expectClose(route, false)
	w.expectOver(r.session)
	w.quiet()
	b.remembered(w, 0, 0)
}

// A reader that can't make its half says so: the writer doesn't wait for it, whether the route has ended before or not.
func TestReaderRefusesItsHalf(t *testing.T) {
	for name, c := range map[string]struct{ ended, told bool }{"": {}, "the writer's half is told": {told: true},
		"the route has ended": {ended: true}, "the route has ended, the writer's half is told": {true, true}} {
		t.Run(name, func(t *testing.T) {
			b, w, r, route := endBus(t)
			if c.told {
				w.tellHalf(route, bhomev1.Role_ROLE_WRITER)
				r.expectPeer(route, bhomev1.Role_ROLE_READER)
			}
			if c.ended {
				r.unsubscribe()
				w.expectClose(route, true)
				r.expectClose(route, true)
				b.remembered(r, 0, 1)
			}
			for range 3 {
				r.send(bhomev1.MsgType_MSG_TYPE_ROUTE_CLOSE, &bhomev1.RouteClose{Route: route, Reason: "no room"})
			}
			w.expectClose(route, false)
			if !c.ended {
				r.expectClose(route, true)
			}
			b.remembered(w, 0, 0)
			b.remembered(r, 0, 0)
			r.tellHalf(route, bhomev1.Role_ROLE_READER)
			w.quiet()
			r.quiet()
		})
	}
}

// PeerGone is answered at once for a session that isn't there, and else when it has ended, after all that there was to say of it.
func TestPeerGone(t *testing.T) {
	b, w, r, route := endBus(t)
	w.tellHalf(route, bhomev1.Role_ROLE_WRITER)
	r.expectPeer(route, bhomev1.Role_ROLE_READER)
	for range 3 {
		w.askOver(r.session) // once is enough
	}
	r.askOver(w.session)
	w.askOver(w.session) // it will never hear
	w.quiet()
	r.quiet()
	r.tellHalf(route, bhomev1.Role_ROLE_READER) // its last words
	r.send(bhomev1.MsgType_MSG_TYPE_BYE, &bhomev1.Bye{})
	w.expectPeer(route, bhomev1.Role_ROLE_WRITER)
	w.expectClose(route, false)
	w.expectOver(r.session)
	w.quiet()
	w.askOver(r.session) // it is known to be gone
	w.expectOver(r.session)
	w.quiet()
	asks := func(of uint64) (n int) {
		operate(b, b.pid, func(c *center) { n = len(c.sessions[of].asks) })
		return n
	}
	if n := asks(w.session); n != 1 {
		t.Errorf("%d ask about one, of whom one is gone", n)
	}
}
