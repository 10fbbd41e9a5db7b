package actors

import (
	"strconv"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
)

// uidUse is what the processes of one uid have of a record keeper's records: PubSub's and Registry's are counted apart.
type uidUse struct {
	subscriptions int // or services
	topics        int // published, or services asked
	routes        int // of which they have an end, or both
}

// uidUses counts by uid.
type uidUses map[uint32]*uidUse

// add changes what a uid has.
func (u uidUses) add(uid uint32, change uidUse) {
	x := u[uid]
	if x == nil {
		x = &uidUse{}
		u[uid] = x
	}
	x.subscriptions += change.subscriptions
	x.topics += change.topics
	if x.routes += change.routes; *x == (uidUse{}) {
		delete(u, uid)
	}
}

// route counts a route between two, or with -1 its end.
func (u uidUses) route(a, b uint32, one int) {
	u.add(a, uidUse{routes: one})
	if a != b {
		u.add(b, uidUse{routes: one})
	}
}

// over says which limit refuses more of something to a uid; nil: none.
func (u uidUses) over(l *Limits, uid uint32, more uidUse) *bhomev1.ErrorMsg {
	var now uidUse
	if x := u[uid]; x != nil {
		now = *x
	}
	for _, c := range []struct {
		limit           string
		now, more, most int
	}{
		{"subscriptions_per_uid", now.subscriptions, more.subscriptions, l.SubscriptionsPerUID},
		{"topics_per_uid", now.topics, more.topics, l.TopicsPerUID},
		{"routes_per_uid", now.routes, more.routes, l.RoutesPerUID},
	} {
		if c.more > 0 && c.now+c.more > c.most {
			return tooMany(c.limit, uidName(uid), c.now, c.most)
		}
	}
	return nil
}

// uidName is how limits name a user.
func uidName(uid uint32) string { return "uid " + strconv.FormatUint(uint64(uid), 10) }
