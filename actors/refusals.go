package actors

import (
	"log/slog"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
)

// How many refusals of one uid, and of all, are logged in a while; the others are counted, and their number is told.
const (
	refusalsPerUID = 20
	refusalsInAll  = 200
	refusalsWhile  = int64(10e9) // ns
)

// refusals logs what access rules forbid: whoever is refused again and again fills no disk.
type refusals struct {
	log    *slog.Logger
	since  int64
	logged int
	byUID  map[uint32]int
	others uint64 // not logged
}

func newRefusals(log *slog.Logger) refusals { return refusals{log: log, byUID: map[uint32]int{}} }

// note logs a refusal. now is the monotonic clock's, ns.
func (r *refusals) note(id *Identity, why *bhomev1.ErrorMsg, now int64) {
	r.expire(now)
	if r.logged == 0 {
		r.since = now
	}
	if r.logged >= refusalsInAll || r.byUID[id.UID] >= refusalsPerUID {
		r.others++
		return
	}
	r.logged++
	r.byUID[id.UID]++
	r.log.Warn("refused by an access rule", "rule", why.GetRule(), "name", id.Name, "session", id.Session, "pid", id.PID, "uid", id.UID, "reason", why.GetMessage())
}

// expire begins anew once the while is over.
func (r *refusals) expire(now int64) {
	if r.logged == 0 || now-r.since < refusalsWhile {
		return
	}
	if r.others > 0 {
		r.log.Warn("more was refused by access rules than is logged", "count", r.others)
	}
	r.logged, r.others = 0, 0
	clear(r.byUID)
}
