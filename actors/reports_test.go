package actors

import (
	"os/exec"
	"testing"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
)

func reportedReply(provider, client uint64, clientPID int32) *reportedRoute {
	return &reportedRoute{id: fakeNode(provider).id, route: &bhomev1.ReportedRoute{Route: &bhomev1.RouteOpen{Route: 9, Role: bhomev1.Role_ROLE_WRITER,
		Kind: bhomev1.RouteKind_ROUTE_KIND_REPLY, Slots: 8, Depth: 8, Out: 16, PeerSession: client, PeerPid: clientPID}}}
}

// A provider may have answered over a reply route of which its client hadn't heard when the center died: the client is told
// of it by the next one.
func TestAHalfToldReplyRouteIsFinished(t *testing.T) {
	g, c := newRegistry(testConfig()), &fakeContext{}
	g.reported(c, reportedReply(100, 200, 0))
	client := fakeNode(200)
	g.connect(c, client, &bhomev1.ConnectService{Topic: "s"})
	c.take()
	g.restored(c, 200)
	var opened *openRoute
	for _, s := range c.take() {
		switch m := s.msg.(type) {
		case *openRoute:
			if sessionOf(s.to) == 200 {
				opened = m
			}
		case *closeRoute:
			t.Errorf("route %d is closed: %s", m.route, m.reason)
		}
	}
	if opened == nil || opened.open.GetRoute() != 9 || opened.open.GetRole() != bhomev1.Role_ROLE_READER || opened.open.GetPeerSession() != 100 || !opened.lone {
		t.Errorf("the client is told %+v", opened)
	}
	if len(g.routes) != 1 || g.replies[pairKey{provider: 100, client: 200}] == nil {
		t.Errorf("routes %v, replies %v", g.routes, g.replies)
	}
}

// Of a route whose other end's process is dead nobody else will report: its end is told so. One that lives is waited for.
func TestRoutesToTheDeadEnd(t *testing.T) {
	child := exec.CommandContext(t.Context(), "sleep", "600")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	g, c := newRegistry(testConfig()), &fakeContext{}
	g.reported(c, reportedReply(100, 200, int32(child.Process.Pid)))
	look := func() (told []*closeRoute) {
		for _, h := range g.reports.orphans() {
			h.orphan(c)
		}
		for _, s := range c.take() {
			told = append(told, s.msg.(*closeRoute))
		}
		return told
	}
	if told := look(); len(told) != 0 {
		t.Fatalf("its process lives, and %v is told", told[0])
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := child.Wait(); err == nil {
		t.Fatal("it has ended by itself")
	}
	if told := look(); len(told) != 1 || told[0].route != 9 || told[0].alive {
		t.Fatalf("told %v", told)
	}
	if told := look(); len(told) != 0 {
		t.Error("it is told again")
	}
}
