package actors

import (
	"fmt"
	"testing"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
)

// What subscribers ask for keeps nobody from publishing: their routes get less, down to none, and the sum never exceeds
// what the publisher may use.
func TestPubSubGreedySubscribers(t *testing.T) {
	h := newHub(t, func(c *Config) { c.Limits.NodeBytes, c.Limits.Reserve, c.Limits.RoutesPerNode = 16<<20, 1<<20, 40 })
	for i := range 60 {
		s := sub(uint64(i), ">")
		s.Quota = 15 << 20
		h.must(100, s)
	}
	modest := sub(1, "t")
	modest.Quota = 1 << 20
	h.must(110, modest)
	big := sub(2, ">")
	big.Depth, big.Hold = 65536, 65536
	h.must(110, big)
	h.must(200, &bhomev1.Advertise{Topic: "t"})
	pub := h.pubs[200]
	if n := len(pub.routes); n < 2 || n > 40 {
		t.Errorf("%d routes, at most 40", n)
	}
	if pub.cost > h.most() {
		t.Errorf("routes cost %d, at most %d", pub.cost, h.most())
	}
	if r := pub.routes[toKey{subKey{110, 1}, ""}]; r == nil || r.quota != 1<<20 {
		t.Errorf("the modest subscriber has %+v", r)
	}
	if r := pub.routes[toKey{subKey{110, 2}, ""}]; r != nil && r.cost < 1<<20 {
		t.Errorf("a route with a ring of %d bytes costs %d", halfSize(r.sub), r.cost)
	}
	h.gone(h.c, 100, false)
	h.gone(h.c, 110, false)
	if pub.cost != 0 || len(h.routes) != 0 {
		t.Errorf("ended routes left costs of %d, %d routes", pub.cost, len(h.routes))
	}
}

// Names that nobody uses any more make room for others; those in use keep their ids.
func TestTopicsThatCameAndWent(t *testing.T) {
	h := newHub(t, func(c *Config) { c.Limits.Topics, c.Limits.TopicsPerNode = 8, 4 })
	h.must(100, &bhomev1.Advertise{Topic: "stays"})
	id := h.ids.ids["stays"]
	for i := range 100 {
		topic := fmt.Sprint("t", i)
		h.must(200, &bhomev1.Advertise{Topic: topic})
		h.unadvertise(h.c, 200, topic)
	}
	if h.ids.ids["stays"] != id || len(h.ids.ids) > 8 || len(h.ids.names) != len(h.ids.ids) {
		t.Errorf("%d names, %d ids; that of a topic in use is %d, was %d", len(h.ids.ids), len(h.ids.names), h.ids.ids["stays"], id)
	}
}
