package actors

import (
	"log/slog"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
)

// How many lines about what one uid, and about what all, may not or can't do are logged in a while; the others are
// counted, and their number is told.
const (
	refusalsPerUID = 20
	refusalsInAll  = 200
	refusalsWhile  = int64(10e9) // ns
)

// refusals logs what processes can bring about as often as they like: whoever is refused again and again fills no disk.
type refusals struct {
	log    *slog.Logger
	since  int64
	logged int
	byUID  map[uint32]int
	said   map[limitRefusal]struct{}
	others uint64 // not logged
}

// limitRefusal is one of a session by a limit: a program that goes on asking is told of once in a while.
type limitRefusal struct {
	session uint64
	limit   string
}

func newRefusals(log *slog.Logger) refusals {
	return refusals{log: log, byUID: map[uint32]int{}, said: map[limitRefusal]struct{}{}}
}

// note logs that an access rule or a limit has refused something; what is refused because it can't be isn't logged. now is
// the monotonic clock's, ns.
func (r *refusals) note(id *Identity, why *bhomev1.ErrorMsg, now int64) {
	if why.GetRule() != "" {
		r.warn("refused by an access rule", id, now, "rule", why.GetRule(), "reason", why.GetMessage())
		return
	}
	if why.GetLimit() == "" {
		return
	}
	r.expire(now)
	key := limitRefusal{id.Session, why.GetLimit()}
	if _, again := r.said[key]; again && key.session != 0 {
		r.others++
		return
	}
	if r.warn("refused by a limit", id, now, limitAttrs(why)...) {
		r.said[key] = struct{}{}
	}
}

// warn logs what a process has brought about, if there is still room for it, and says whether it has.
func (r *refusals) warn(what string, id *Identity, now int64, attrs ...any) bool {
	r.expire(now)
	if r.logged == 0 {
		r.since = now
	}
	if r.logged >= refusalsInAll || r.byUID[id.UID] >= refusalsPerUID {
		r.others++
		return false
	}
	r.logged++
	r.byUID[id.UID]++
	r.log.Warn(what, append(id.attrs(), attrs...)...)
	return true
}

// expire begins anew once the while is over.
func (r *refusals) expire(now int64) {
	if r.logged == 0 || now-r.since < refusalsWhile {
		return
	}
	if r.others > 0 {
		r.log.Warn("more was refused than is logged", "count", r.others)
	}
	r.logged, r.others = 0, 0
	clear(r.byUID)
	clear(r.said)
}

// attrs says for the log who a process is. Uid and pid are the kernel's word.
func (id *Identity) attrs() []any {
	a := make([]any, 0, 16)
	if id.Name != "" {
		a = append(a, "name", id.Name)
	}
	if id.Session != 0 {
		a = append(a, "session", id.Session)
	}
	return append(a, "pid", id.PID, "uid", id.UID)
}

// unnamed is who a process is that has no name yet.
func (id *Identity) unnamed() *Identity {
	return &Identity{Session: id.Session, PID: id.PID, UID: id.UID}
}

// limitAttrs says for the log which limit refuses, and why.
func limitAttrs(why *bhomev1.ErrorMsg) []any {
	a := []any{"limit", why.GetLimit(), "whose", why.GetWhose(), "in_use", why.GetInUse(), "max", why.GetMax()}
	if why.GetMessage() != "" {
		a = append(a, "reason", why.GetMessage())
	}
	return a
}

// maxTold bounds what of a node's own text is kept, logged or passed on.
const maxTold = 255

// told is a node's own text: valid UTF-8 of bounded length.
func told(t string) string {
	if len(t) > maxTold {
		t = t[:maxTold]
	}
	return validText(t)
}

// toldError is a node's own word on why something failed there.
func toldError(m *bhomev1.ErrorMsg) *bhomev1.ErrorMsg {
	if m == nil {
		return nil
	}
	return &bhomev1.ErrorMsg{Code: m.GetCode(), Message: told(m.GetMessage()), Limit: told(m.GetLimit()), Whose: told(m.GetWhose()), InUse: m.GetInUse(), Max: m.GetMax()}
}
