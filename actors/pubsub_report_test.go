package actors

import (
	"fmt"
	"testing"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
)

// A route that outlived the center keeps the topics' numbers, from the first end's report on; what only the writer was
// told of, the reader is told now.
func TestReportedTopicsKeepTheirNumbers(t *testing.T) {
	h := newHub(t)
	topics := []*bhomev1.TopicID{{Id: 7, Name: "a.x"}, {Id: 8, Name: "a.y"}, {Id: 9, Name: "a.z"}}
	half := func(session, peer uint64, role bhomev1.Role, topics []*bhomev1.TopicID) *reportedRoute {
		return &reportedRoute{id: fakeNode(session).id, route: &bhomev1.ReportedRoute{Route: &bhomev1.RouteOpen{Route: 5, Role: role,
			Kind: bhomev1.RouteKind_ROUTE_KIND_PUBSUB, Slots: 1024, Depth: 64, Out: 128, PeerSession: peer, Subscription: 1, Topics: topics}}}
	}
	h.reported(h.c, half(100, 200, bhomev1.Role_ROLE_WRITER, topics))
	for _, topic := range topics {
		h.must(100, &bhomev1.Advertise{Topic: topic.Name})
		if id := h.ids.ids[topic.Name]; id != topic.Id {
			t.Errorf("%q has number %d now, had %d", topic.Name, id, topic.Id)
		}
	}
	h.reported(h.c, half(200, 100, bhomev1.Role_ROLE_READER, topics[:1]))
	var told []*bhomev1.TopicID
	for _, s := range h.c.take() {
		if m, ok := s.msg.(*routeTopics); ok && m.role == bhomev1.Role_ROLE_READER && sessionOf(s.to) == 200 {
			told = append(told, m.msg.GetAdded()...)
		}
	}
	if len(told) != 2 || told[0].Id != 8 || told[0].Name != "a.y" || told[1].Id != 9 {
		t.Errorf("the reader is told of %v", told)
	}
	h.must(200, sub(1, "a."))
	if len(h.routes) != 1 || len(h.routes[5].topics) != 3 {
		t.Errorf("routes: %v", h.routes)
	}
}

// A publisher may be back, and publish again, before a subscriber that was only half told of the route between them has
// said all: they get that route and no second one, whichever comes first, or what is published would come twice.
func TestOneRouteForAPairThatComesBack(t *testing.T) {
	for _, order := range []string{"advertise, subscribe", "subscribe, advertise"} {
		t.Run(order, func(t *testing.T) {
			h := newHub(t)
			topics := []*bhomev1.TopicID{{Id: 7, Name: "a.x"}}
			h.reported(h.c, &reportedRoute{id: fakeNode(100).id, route: &bhomev1.ReportedRoute{Route: &bhomev1.RouteOpen{Route: 5, Role: bhomev1.Role_ROLE_WRITER,
				Kind: bhomev1.RouteKind_ROUTE_KIND_PUBSUB, Slots: 8, Depth: 8, Out: 16, PeerSession: 200, Subscription: 1, Topics: topics}}})
			if order == "advertise, subscribe" {
				h.must(100, &bhomev1.Advertise{Topic: "a.x"})
				h.must(200, sub(1, "a."))
			} else {
				h.must(200, sub(1, "a."))
				h.must(100, &bhomev1.Advertise{Topic: "a.x"})
			}
			h.restored(h.c, 200)
			h.restored(h.c, 100)
			if len(h.routes) != 1 || h.routes[5] == nil {
				t.Errorf("routes: %v", h.routes)
			}
		})
	}
}

// A route that its subscriber has had and ended, of which only the publisher's end is left, isn't opened a second time: the
// publisher knows the subscriber's old half. They get another route.
func TestARouteThatWasReadIsNotOpenedAgain(t *testing.T) {
	h := newHub(t)
	h.reported(h.c, &reportedRoute{id: fakeNode(100).id, route: &bhomev1.ReportedRoute{Joined: true, Route: &bhomev1.RouteOpen{Route: 5, Role: bhomev1.Role_ROLE_WRITER,
		Kind: bhomev1.RouteKind_ROUTE_KIND_PUBSUB, Slots: 8, Depth: 8, Out: 16, PeerSession: 200, Subscription: 1, Topics: []*bhomev1.TopicID{{Id: 7, Name: "a.x"}}}}})
	h.must(200, sub(1, "a."))
	h.must(100, &bhomev1.Advertise{Topic: "a.x"})
	h.restored(h.c, 200)
	if len(h.routes) != 1 || h.routes[5] != nil {
		t.Errorf("routes: %v", h.routes)
	}
}

// What a node closed while there was no center ends, though its end was reported before; also if the other end is reported
// only when the node has said all.
func TestWhatWasClosedMeanwhileEnds(t *testing.T) {
	half := func(role bhomev1.Role) *reportedRoute {
		o := &bhomev1.RouteOpen{Route: 5, Role: role, Kind: bhomev1.RouteKind_ROUTE_KIND_PUBSUB, Slots: 8, Depth: 8, Out: 16, Subscription: 1,
			Topics: []*bhomev1.TopicID{{Id: 7, Name: "a.x"}}}
		if role == bhomev1.Role_ROLE_WRITER {
			o.PeerSession = 200
			return &reportedRoute{id: fakeNode(100).id, route: &bhomev1.ReportedRoute{Route: o}}
		}
		o.PeerSession = 100
		return &reportedRoute{id: fakeNode(200).id, route: &bhomev1.ReportedRoute{Route: o}}
	}
	for _, late := range []bool{false, true} {
		for _, closed := range []string{"publisher", "subscription"} {
			t.Run(fmt.Sprintf("%s, late %v", closed, late), func(t *testing.T) {
				h := newHub(t)
				// The one that closed something says all; the other follows, before or after.
				mine, theirs, me, them := half(bhomev1.Role_ROLE_WRITER), half(bhomev1.Role_ROLE_READER), uint64(100), uint64(200)
				if closed == "subscription" {
					mine, theirs, me, them = theirs, mine, them, me
				}
				h.reported(h.c, mine)
				if !late {
					h.reported(h.c, theirs)
				}
				h.restored(h.c, me)
				if late {
					h.reported(h.c, theirs)
				}
				told := map[uint64]bool{}
				for _, s := range h.c.take() {
					if m, ok := s.msg.(*closeRoute); ok && m.route == 5 && m.alive {
						told[sessionOf(s.to)] = true
					}
				}
				if !told[100] || !told[200] {
					t.Errorf("told of the end: %v", told)
				}
				if closed == "subscription" {
					h.must(them, &bhomev1.Advertise{Topic: "a.x"})
				} else {
					h.must(them, sub(1, "a."))
				}
				h.restored(h.c, them)
				if len(h.routes) != 0 || len(h.adopted) != 0 || h.pubs[100] != nil && len(h.pubs[100].routes) != 0 {
					t.Errorf("routes %v, subscriptions to come %v", h.routes, h.adopted)
				}
			})
		}
	}
}
