package actors

import (
	"fmt"
	"strconv"
	"strings"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
)

// maxProcs is how many names a 16-bit index can tell apart.
const maxProcs = 65536

// procTable maps process names to indices. It grows only: an index, once given, stays with its name. Of the living it
// knows who has which name.
type procTable struct {
	limit  int
	perUID int
	index  map[string]int
	procs  []procRec
	byUID  map[uint32]int
	pooled map[string]int // shared name → the number before which all of its pool are in use
}

type procRec struct {
	name    string
	uid     uint32  // who first took it
	session uint64  // who asks for blocks under this index; 0: nobody now
	owner   *holder // who is registered; nil: nobody
}

// holder is a living process that has a name.
type holder struct {
	session uint64
	pid     int32
	uid     uint32
}

func newProcTable(limit, perUID int) *procTable {
	return &procTable{limit: min(limit, maxProcs), perUID: perUID, index: map[string]int{}, byUID: map[uint32]int{}, pooled: map[string]int{}}
}

// put gives a name its index. A known name keeps it, also when the table is full.
func (t *procTable) put(name string, session uint64, uid uint32) (int, *bhomev1.ErrorMsg) {
	if name == "" || len(name) > 255 {
		return -1, errorMsg(bhomev1.ErrorCode_ERROR_CODE_INVALID_INPUT, "a process name has 1 to 255 bytes; this has %d", len(name))
	}
	if i, ok := t.index[name]; ok {
		if t.procs[i].owner == nil {
			t.procs[i].session = session
		}
		return i, nil
	}
	if len(t.procs) >= t.limit {
		m := errorMsg(bhomev1.ErrorCode_ERROR_CODE_TABLE_FULL, "the proc table has no room for the new name %q: %d of %d; names that are known can still attach", name, len(t.procs), t.limit)
		m.Limit, m.InUse, m.Max = "procs", uint64(len(t.procs)), uint64(t.limit)
		return -1, m
	}
	if t.byUID[uid] >= t.perUID {
		m := errorMsg(bhomev1.ErrorCode_ERROR_CODE_TOO_MANY, "uid %d has taken %d names; use one it has", uid, t.byUID[uid])
		m.Limit, m.Whose, m.InUse, m.Max = "names_per_uid", fmt.Sprintf("uid %d", uid), uint64(t.byUID[uid]), uint64(t.perUID)
		return -1, m
	}
	i := len(t.procs)
	t.index[name] = i
	t.procs = append(t.procs, procRec{name: name, uid: uid, session: session})
	t.byUID[uid]++
	return i, nil
}

// putPooled gives the first free name of the pool name#1, name#2…
func (t *procTable) putPooled(name string, session uint64, uid uint32) (string, int, *bhomev1.ErrorMsg) {
	for k := max(1, t.pooled[name]); ; k++ {
		candidate := poolName(name, k)
		i, known := t.index[candidate]
		if known && t.procs[i].inUse() {
			continue
		}
		i, err := t.put(candidate, session, uid)
		if err == nil {
			t.pooled[name] = k + 1
		}
		return candidate, i, err
	}
}

func poolName(name string, k int) string { return name + "#" + strconv.Itoa(k) }

// inUse tells whether somebody has the name, or asks for blocks under its index.
func (r *procRec) inUse() bool { return r.session != 0 || r.owner != nil }

// freeUnused has a name that nobody uses be given again, if it is of a pool.
func (t *procTable) freeUnused(i int) {
	name := t.procs[i].name
	at := strings.LastIndexByte(name, '#')
	if at < 0 || t.procs[i].inUse() {
		return
	}
	pool := name[:at]
	if k, err := strconv.Atoi(name[at+1:]); err == nil && k >= 1 && k < t.pooled[pool] && poolName(pool, k) == name {
		t.pooled[pool] = k
	}
}

// register gives a living process its name. Somebody else who has it is returned: with takeover displaced, else the
// reason for the refusal.
func (t *procTable) register(name string, h holder, takeover bool) (displaced *holder, refused *bhomev1.ErrorMsg) {
	i, ok := t.index[name]
	if !ok {
		return nil, errorMsg(bhomev1.ErrorCode_ERROR_CODE_INVALID_INPUT, "name %q has had no ProcInit", name)
	}
	r := &t.procs[i]
	if o := r.owner; o != nil && o.session != h.session {
		if !takeover || o.uid != h.uid {
			m := errorMsg(bhomev1.ErrorCode_ERROR_CODE_NAME_IN_USE, "name %q is in use by process %d (uid %d)", name, o.pid, o.uid)
			if takeover {
				m.Message += "; only the same uid may take it over"
			}
			m.Pid, m.Uid = o.pid, o.uid
			return nil, m
		}
		displaced = o
	}
	r.owner, r.session = &h, h.session
	return displaced, nil
}

// leaves frees a name; its session still asks for what it has to give back.
func (t *procTable) leaves(session uint64, name string) {
	if i, ok := t.index[name]; ok && t.procs[i].owner != nil && t.procs[i].owner.session == session {
		t.procs[i].owner = nil
		t.freeUnused(i)
	}
}

// gone forgets a session; its names stay known.
func (t *procTable) gone(session uint64, names ...string) {
	for _, name := range names {
		i, ok := t.index[name]
		if !ok {
			continue
		}
		r := &t.procs[i]
		if r.owner != nil && r.owner.session == session {
			r.owner = nil
		}
		if r.session == session {
			r.session = 0
		}
		t.freeUnused(i)
	}
}

func (t *procTable) remaining() int { return t.limit - len(t.procs) }

// errorMsg makes a refusal.
func errorMsg(code bhomev1.ErrorCode, format string, args ...any) *bhomev1.ErrorMsg {
	// What is quoted may be anything; a message that is not UTF-8 could not be sent.
	return &bhomev1.ErrorMsg{Code: code, Message: validText(fmt.Sprintf(format, args...))}
}
