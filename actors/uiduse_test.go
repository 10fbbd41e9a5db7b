package actors

import (
	"testing"

	"google.golang.org/protobuf/proto"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
)

// What all processes of a uid may have together is bounded, whoever of them asks; what goes makes room again. All test nodes
// are uid 1's.
func TestUIDBudgets(t *testing.T) {
	h := newHub(t, func(c *Config) {
		c.Limits.SubscriptionsPerUID, c.Limits.TopicsPerUID, c.Limits.RoutesPerUID, c.Limits.RouteBytes = 4, 3, 5, 1<<20
	})
	refused := func(limit string, session uint64, body proto.Message) {
		t.Helper()
		got := h.do(session, body)
		if len(got) != 1 {
			t.Fatalf("answers %v", got)
		}
		err := commonErr(got[0])
		if err.GetLimit() != limit || limit != "route" && err.GetWhose() != "uid 1" {
			t.Errorf("%v, want the limit %q", err, limit)
		}
	}
	for i := range 3 {
		h.must(uint64(100*(i+1)), &bhomev1.Advertise{Topic: "t"})
	}
	refused("topics_per_uid", 400, &bhomev1.Advertise{Topic: "u"})
	h.must(100, &bhomev1.Advertise{Topic: "t"}) // again, as after a restart: it has it
	big := sub(1, "none")
	big.Quota = 1<<20 + 1
	refused("route", 500, big)
	h.must(500, sub(1, "t")) // three routes
	refused("routes_per_uid", 510, sub(1, "t"))
	h.must(510, sub(1, "none"))
	h.must(510, sub(2, "none"))
	h.must(520, sub(1, "none"))
	refused("subscriptions_per_uid", 530, sub(1, "none"))
	h.gone(h.c, 520, false)
	h.must(530, sub(1, "none"))
	h.gone(h.c, 500, false)
	h.must(510, sub(3, "t"))
	for _, session := range []uint64{100, 200, 300, 510, 530} {
		h.gone(h.c, session, false)
	}
	if len(h.uids) != 0 {
		t.Errorf("nobody is left, and uids have %+v", h.uids[1])
	}
}
