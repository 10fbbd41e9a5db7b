package actors

import (
	"github.com/asynkron/protoactor-go/actor"
)

// procRecords is the actor around the table of process names.
type procRecords struct {
	refusals refusals
	table    *procTable
	names    map[uint64][]string // of a session
	gauges
}

func newProcRecords(cfg Config) *procRecords {
	return &procRecords{refusals: newRefusals(cfg.Logger), table: newProcTable(cfg.Limits.Procs, cfg.Limits.NamesPerUID), names: map[uint64][]string{}}
}

// Receive is the actor.
func (p *procRecords) Receive(c actor.Context) {
	switch m := c.Message().(type) {
	case *procInit:
		r := &procInited{to: m.to, name: m.name, index: -1}
		switch {
		case m.inspect: // takes no index
		case m.pooled:
			r.name, r.index, r.err = p.table.putPooled(m.name, m.id.Session, m.id.UID)
		default:
			r.index, r.err = p.table.put(m.name, m.id.Session, m.id.UID)
		}
		if r.err != nil {
			// The name is what it asks for, not its own.
			p.refusals.warn("a process gets no index", m.id.unnamed(), monotonic(), append([]any{"name", told(m.name)}, limitAttrs(r.err)...)...)
			r.index = -1
		} else if !m.inspect {
			p.names[m.id.Session] = append(p.names[m.id.Session], r.name)
		}
		r.left = p.table.remaining()
		p.set(gaugeProcs, len(p.table.procs))
		c.Send(m.to.session, r)
	case *procRegister:
		r := &procRegistered{to: m.to}
		if m.id.ProcIndex >= 0 {
			r.displaced, r.err = p.table.register(m.id.Name, holder{m.id.Session, m.id.PID, m.id.UID}, m.takeover)
		}
		if r.err != nil {
			p.refusals.warn("a name is refused", m.id.unnamed(), monotonic(), "name", m.id.Name, "holder_pid", r.err.GetPid(), "holder_uid", r.err.GetUid())
		}
		c.Send(m.to.session, r)
	case *tick:
		p.refusals.expire(m.now)
	case *procLeaves:
		p.table.leaves(m.id.Session, m.id.Name)
	case *sessionGone:
		p.table.gone(m.id.Session, p.names[m.id.Session]...)
		delete(p.names, m.id.Session)
	case *auditRole:
		audited(c, func() any { return p.audit() })
	case *procCapacity:
		c.Respond(&procCapacityR{remaining: p.table.remaining(), known: len(p.table.procs)})
	}
}
