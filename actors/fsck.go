package actors

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio"
)

// checks is what the center knows of the checks that are asked for: one runs at a time.
type checks struct {
	quit     chan struct{} // closed when the center stops; pairs with the check's pauses
	baseline map[shmio.Inode]bool
	running  bool
	waiting  []any // who asked since it began: *query or *actor.PID
	now      []any // who is answered when it ends
}

// newChecks notes what is open before the first node comes: that is not the nodes'.
func newChecks(cfg Config) checks {
	k := checks{quit: make(chan struct{})}
	if cfg.Alone {
		k.baseline = map[shmio.Inode]bool{}
		list, err := shmio.Descriptors()
		if err != nil {
			cfg.Logger.Warn("a check will not account for descriptors", "error", err)
		}
		for _, d := range list {
			k.baseline[d.Inode] = true
		}
	}
	return k
}

func (k *checks) stop() {
	if k.quit != nil {
		close(k.quit)
	}
}

// checked is a check's result.
type checked struct{ reply *FaultsReply }

// checkFor answers who asks with the result of a check that begins after the asking.
func (c *center) checkFor(ctx actor.Context, who any) {
	if len(c.checks.waiting) >= maxQueries {
		busy := errorMsg(bhomev1.ErrorCode_ERROR_CODE_BUSY, "%d checks are asked for; try again", maxQueries)
		if q, ok := who.(*query); ok {
			commonReply(ctx, q.to, busy)
		} else {
			ctx.Send(who.(*actor.PID), &FaultsReply{Err: busy})
		}
		return
	}
	c.checks.waiting = append(c.checks.waiting, who)
	c.nextCheck(ctx)
}

func (c *center) nextCheck(ctx actor.Context) {
	k := &c.checks
	if k.running || len(k.waiting) == 0 || c.stopping {
		return
	}
	k.running, k.now, k.waiting = true, k.waiting, nil
	in, self := c.inspector(ctx), ctx.Self()
	x := &check{in: in, quit: k.quit, patience: queryTimeout, pauses: []time.Duration{200 * time.Millisecond, 600 * time.Millisecond, 1200 * time.Millisecond}}
	if c.cfg.Alone && len(k.baseline) > 0 {
		x.alone = true
		x.baseline = make(map[shmio.Inode]bool, len(k.baseline))
		for id := range k.baseline {
			x.baseline[id] = true
		}
	}
	if id, err := c.public.FD().Inode(); err == nil {
		x.public = id
	}
	c.background.Go(func() { in.root.Send(self, &checked{x.run()}) })
}

func (c *center) onChecked(ctx actor.Context, m *checked) {
	k := &c.checks
	for _, who := range k.now {
		if pid, ok := who.(*actor.PID); ok {
			ctx.Send(pid, m.reply)
			continue
		}
		q := who.(*query)
		limit := int(q.limit)
		if limit <= 0 || limit > 1000 {
			limit = 1000
		}
		rows, next := cut(m.reply.Faults, q.offset, limit)
		ctx.Send(q.to.session, &frameOut{to: q.to, typ: bhomev1.MsgType_MSG_TYPE_QUERY_FAULTS_REPLY,
			body: &bhomev1.QueryFaultsReply{Errmsg: m.reply.Err, Faults: rows, Next: next, Looks: uint32(m.reply.Looks), Checked: maps.Clone(m.reply.Checked)}})
	}
	k.running, k.now = false, nil
	if n := len(m.reply.Faults); n > 0 {
		c.log.Warn("a check has found faults", "count", n, "first", m.reply.Faults[0].GetWhat(), "where", m.reply.Faults[0].GetWhere())
	}
	c.nextCheck(ctx)
}

// check is one check of the bus, on a goroutine of its own: it asks, compares, and owns nothing.
type check struct {
	in       *inspector
	alone    bool
	baseline map[shmio.Inode]bool
	public   shmio.Inode
	pauses   []time.Duration // between looks
	patience time.Duration   // with an actor that doesn't answer
	quit     chan struct{}
}

// maxFaultText bounds each text of a row, so that every row fits a frame.
const maxFaultText = 2 << 10

// run looks until nothing is suspected any more, or what is has been there at every look.
func (x *check) run() *FaultsReply {
	first := x.look()
	looks, stays := 1, first.suspects()
	last := first
	for _, pause := range x.pauses {
		if len(stays) == 0 || first.silent > 0 && looks == 2 {
			break
		}
		select {
		case <-time.After(pause):
		case <-x.quit:
			return &FaultsReply{Err: errorMsg(bhomev1.ErrorCode_ERROR_CODE_CLOSED, "the center is stopping")}
		}
		last = x.look()
		looks++
		again := last.suspects()
		for key := range stays {
			if f, ok := again[key]; ok {
				stays[key] = f
			} else {
				delete(stays, key)
			}
		}
	}
	list := last.sure()
	for _, f := range stays {
		list = append(list, f)
	}
	slices.SortFunc(list, func(a, b finding) int {
		return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(a.where, b.where), cmp.Compare(a.what, b.what))
	})
	reply := &FaultsReply{Looks: looks, Checked: maps.Clone(last.counts)}
	for _, f := range list {
		reply.Faults = append(reply.Faults, &bhomev1.FaultRow{Kind: f.kind, Where: short(f.where), What: short(f.what), Do: remedy(f.kind)})
	}
	return reply
}

func short(text string) string {
	if len(text) > maxFaultText {
		return validText(text[:maxFaultText]) + "…"
	}
	return text
}

// look is what one look has found.
type look struct {
	findings
	counts map[string]uint64
	silent int
}

func (l *look) suspects() map[string]finding {
	m := map[string]finding{}
	for _, f := range l.list {
		if f.key != "" {
			m[f.key] = f
		}
	}
	return m
}

func (l *look) sure() (list []finding) {
	for _, f := range l.list {
		if f.key == "" {
			list = append(list, f)
		}
	}
	return list
}

// take adds what an actor has found in its own records.
func (l *look) take(f findings) { l.list = append(l.list, f.list...) }
