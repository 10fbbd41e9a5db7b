package actors

import (
	"cmp"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"google.golang.org/protobuf/proto"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/wire"
)

const (
	queryTimeout = 2 * time.Second // for a role that is stuck: the rest is shown without it
	pageBudget   = 12 << 10        // bytes of rows in one frame
	maxQueries   = 64              // at a time
)

// query is a node's question, to be answered in one frame.
type query struct {
	to     asker
	id     Identity
	what   bhomev1.MsgType
	offset uint64
	limit  uint32
}

// inspector answers one question: it asks whom it must, on a goroutine of its own, and waits for none of them longer
// than queryTimeout.
type inspector struct {
	root     *actor.RootContext
	roles    roles
	sessions []*actor.PID
	cfg      Config
	started  time.Time
	public   [16]uint64
}

func (c *center) inspector(ctx actor.Context) *inspector {
	in := &inspector{root: ctx.ActorSystem().Root, roles: c.roles, cfg: c.cfg, started: c.started, public: c.public.Counters()}
	for _, a := range c.sessions {
		in.sessions = append(in.sessions, a.pid)
	}
	return in
}

// onQuestion takes questions, of nodes and of the embedding program, and the latter's other wishes.
func (c *center) onQuestion(ctx actor.Context, msg any) {
	sender := ctx.Sender()
	switch m := msg.(type) {
	case *query:
		if !c.cfg.Access.Inspect.admits(&m.id) {
			why := notAllowed(&m.id, ruleInspect, "inspect the bus")
			c.refusals.note(&m.id, why, monotonic())
			commonReply(ctx, m.to, why)
			return
		}
		if m.what == bhomev1.MsgType_MSG_TYPE_QUERY_FAULTS {
			c.checkFor(ctx, m)
			return
		}
		if c.queries.Load() >= maxQueries {
			commonReply(ctx, m.to, errorMsg(bhomev1.ErrorCode_ERROR_CODE_BUSY, "%d queries are being answered; try again", maxQueries))
			return
		}
		c.answer(ctx, func(in *inspector) {
			typ, body := in.page(m)
			in.root.Send(m.to.session, &frameOut{to: m.to, typ: typ, body: body})
		})
	case *QueryProcs:
		c.answerTo(ctx, sender, func(in *inspector) any { return in.procs() })
	case *QueryMsgs:
		limit := m.Limit
		if limit <= 0 {
			limit = 1000
		}
		c.answerTo(ctx, sender, func(in *inspector) any { return in.msgs(m.Offset, limit) })
	case *QueryTopics:
		c.answerTo(ctx, sender, func(in *inspector) any { return in.topics() })
	case *QueryFaults:
		if sender != nil {
			c.checkFor(ctx, sender)
		}
	case *checked:
		c.onChecked(ctx, m)
	case *auditCenter:
		audited(ctx, func() any { return c.audit() })
	case *QueryCenter:
		c.answerTo(ctx, sender, func(in *inspector) any { return in.center() })
	case *WatchNodes:
		ctx.Watch(m.PID)
		c.watchers[m.PID.Id] = m.PID
		for _, a := range c.sessions {
			if a.online {
				ctx.Send(m.PID, &NodeUp{Name: a.id.Name, Session: a.id.Session, PID: a.id.PID, UID: a.id.UID})
			}
		}
	case *UnwatchNodes:
		delete(c.watchers, m.PID.Id)
	case *HandleType:
		if m.PID == nil || m.Type < uint32(bhomev1.MsgType_MSG_TYPE_USER) {
			delete(c.handlers, m.Type)
			return
		}
		ctx.Watch(m.PID)
		c.handlers[m.Type] = m.PID
	}
}

func (c *center) answer(ctx actor.Context, f func(in *inspector)) {
	in := c.inspector(ctx)
	count := c.queries
	count.Add(1)
	c.background.Go(func() {
		defer count.Add(-1)
		f(in)
	})
}

func (c *center) answerTo(ctx actor.Context, to *actor.PID, f func(in *inspector) any) {
	if to == nil {
		return // asked with Send: nobody to tell
	}
	c.answer(ctx, func(in *inspector) { in.root.Send(to, f(in)) })
}

// ask asks one actor; the zero value stands for one that doesn't answer.
func ask[T any](in *inspector, pid *actor.PID, msg any) (t T) {
	r, err := in.root.RequestFuture(pid, msg, queryTimeout).Result()
	if err != nil {
		return t
	}
	t, _ = r.(T)
	return t
}

// askAll asks many at once.
func askAll[T any](in *inspector, pids []*actor.PID, msg any) []T {
	futures := make([]actor.Future, len(pids))
	for i, p := range pids {
		futures[i] = in.root.RequestFuture(p, msg, queryTimeout)
	}
	var rs []T
	for _, f := range futures {
		if r, err := f.Result(); err == nil {
			if t, ok := r.(T); ok {
				rs = append(rs, t)
			}
		}
	}
	return rs
}

func (in *inspector) procs() *ProcsReply {
	rows := askAll[*bhomev1.ProcRow](in, in.sessions, &describe{})
	use := ask[*nodeUseR](in, in.roles.msgs, &nodeUse{})
	if use != nil {
		for _, r := range rows {
			u := use.nodes[r.GetSession()]
			r.SegmentBytes, r.GrantedBlocks, r.GrantedBytes = u.segments, u.blocks, u.bytes
		}
	}
	slices.SortFunc(rows, func(a, b *bhomev1.ProcRow) int {
		return cmp.Or(strings.Compare(a.GetName(), b.GetName()), cmp.Compare(a.GetSession(), b.GetSession()))
	})
	reply := &ProcsReply{Procs: rows}
	if left := ask[*procCapacityR](in, in.roles.procs, &procCapacity{}); left != nil {
		reply.Remaining = left.remaining
	}
	return reply
}

func (in *inspector) msgs(offset uint64, limit int) *MsgsReply {
	page := ask[*msgPageR](in, in.roles.msgs, &msgPage{offset: offset, limit: limit})
	if page == nil {
		return &MsgsReply{}
	}
	topics := map[uint32]string{}
	for _, role := range []*actor.PID{in.roles.pubsub, in.roles.registry} {
		if r := ask[*topicRowsR](in, role, &topicRows{}); r != nil {
			for id, name := range r.names {
				topics[id] = name
			}
		}
	}
	type blockKey struct {
		session uint64
		place   uint32
	}
	holders := map[blockKey][]string{}
	for _, scan := range askAll[*routesScan](in, in.sessions, &scanRoutes{tables: true}) {
		for _, r := range scan.routes {
			for _, b := range r.out {
				k := blockKey{scan.session, b.place}
				holders[k] = append(holders[k], r.peerName)
			}
		}
	}
	for i, row := range page.rows {
		if page.kinds[i] == wire.KindPublish || page.kinds[i] == wire.KindRequest {
			row.Topic = topics[page.topicIDs[i]]
		}
		row.Holders = names(holders[blockKey{row.GetOwnerSession(), uint32(row.GetId() & (1<<31 - 1))}])
	}
	return &MsgsReply{Msgs: page.rows, Next: page.next, Blocks: page.blocks, Bytes: page.bytes, LateFrees: page.lateFrees}
}

func (in *inspector) topics() *TopicsReply {
	heads := map[uint64]uint64{}
	for _, h := range askAll[*headsR](in, in.sessions, &scanHeads{}) {
		for id, head := range h.heads {
			heads[id] = head
		}
	}
	scans := map[uint64]routeScan{}
	for _, scan := range askAll[*routesScan](in, in.sessions, &scanRoutes{heads: heads}) {
		for _, r := range scan.routes {
			scans[r.id] = r
		}
	}
	reply := &TopicsReply{}
	for _, role := range []*actor.PID{in.roles.pubsub, in.roles.registry} {
		r := ask[*topicRowsR](in, role, &topicRows{})
		if r == nil {
			continue
		}
		// A message to three subscribers is one message: of a publisher's routes the busiest counts.
		type pubKey struct {
			row     int
			session uint64
		}
		rate, sent := map[pubKey]float64{}, map[pubKey]uint64{}
		for id, at := range r.routes {
			s, ok := scans[id]
			if !ok {
				continue
			}
			row := r.rows[at.row]
			row.Depth += s.unread
			row.Drops += s.dropped
			k := pubKey(at)
			rate[k], sent[k] = max(rate[k], s.rate), max(sent[k], s.sent)
		}
		for k, v := range rate {
			r.rows[k.row].Rate += v
			r.rows[k.row].Sent += sent[k]
		}
		for _, row := range r.rows {
			row.Publishers, row.Subscribers, row.Providers = names(row.Publishers), names(row.Subscribers), names(row.Providers)
		}
		reply.Topics = append(reply.Topics, r.rows...)
	}
	slices.SortFunc(reply.Topics, func(a, b *bhomev1.TopicRow) int {
		return cmp.Or(strings.Compare(a.GetTopic(), b.GetTopic()), strings.Compare(a.GetKind(), b.GetKind()))
	})
	return reply
}

func (in *inspector) center() *bhomev1.QueryCenterReply {
	l := in.cfg.Limits
	counters := [...]string{"sessions", "procs", "granted_blocks", "granted_bytes", "segment_bytes", "topics", "routes", "refused_attaches",
		"refused_grants", "late_frees", "routing_epoch", "node_faults"}
	r := &bhomev1.QueryCenterReply{Bus: in.cfg.Bus, Pid: int32(os.Getpid()), SinceUnixNs: in.started.UnixNano(), Counters: map[string]uint64{}, Limits: map[string]uint64{
		"bus_bytes": l.BusBytes, "uid_bytes": l.UIDBytes, "node_bytes": l.NodeBytes, "max_message": l.MaxMessage, "default_quota": l.DefaultQuota,
		"procs": uint64(l.Procs), "sessions": uint64(l.Sessions), "sessions_per_uid": uint64(l.SessionsPerUID)}}
	for i, n := range counters {
		r.Counters[n] = in.public[i]
	}
	if use := ask[*nodeUseR](in, in.roles.msgs, &nodeUse{}); use != nil {
		r.Counters["late_frees"], r.Counters["refused_grants"], r.Counters["segment_bytes"] = use.lateFrees, use.refused, use.bus
		r.Counters["granted_blocks"], r.Counters["granted_bytes"] = 0, 0
		for _, u := range use.nodes {
			r.Counters["granted_blocks"] += u.blocks
			r.Counters["granted_bytes"] += u.bytes
		}
	}
	if left := ask[*procCapacityR](in, in.roles.procs, &procCapacity{}); left != nil {
		r.Counters["procs"] = uint64(left.known)
	}
	return r
}

// page makes the frame that answers a node: as many rows as fit, and where to go on.
func (in *inspector) page(q *query) (bhomev1.MsgType, proto.Message) {
	limit := int(q.limit)
	if limit <= 0 || limit > 1000 {
		limit = 1000
	}
	switch q.what {
	case bhomev1.MsgType_MSG_TYPE_QUERY_PROCS:
		all := in.procs()
		rows, next := cut(all.Procs, q.offset, limit)
		return bhomev1.MsgType_MSG_TYPE_QUERY_PROCS_REPLY, &bhomev1.QueryProcsReply{Procs: rows, Next: next, Remaining: uint32(all.Remaining)}
	case bhomev1.MsgType_MSG_TYPE_QUERY_MSGS:
		all := in.msgs(q.offset, min(limit, 200))
		for _, row := range all.Msgs {
			if row.GetTopic() != "" && in.hides(&q.id, row.GetTopic()) {
				row.Topic, row.Holders = "", nil
			}
		}
		rows, next := cut(all.Msgs, 0, limit)
		if next != 0 {
			next += q.offset
		} else {
			next = all.Next
		}
		return bhomev1.MsgType_MSG_TYPE_QUERY_MSGS_REPLY, &bhomev1.QueryMsgsReply{Msgs: rows, Next: next, GrantedBlocks: all.Blocks, GrantedBytes: all.Bytes, LateFrees: all.LateFrees}
	case bhomev1.MsgType_MSG_TYPE_QUERY_TOPICS:
		seen := slices.DeleteFunc(in.topics().Topics, func(r *bhomev1.TopicRow) bool { return in.hides(&q.id, r.GetTopic()) })
		rows, next := cut(seen, q.offset, limit)
		return bhomev1.MsgType_MSG_TYPE_QUERY_TOPICS_REPLY, &bhomev1.QueryTopicsReply{Topics: rows, Next: next}
	default:
		return bhomev1.MsgType_MSG_TYPE_QUERY_CENTER_REPLY, in.center()
	}
}

// hides reports whether a row of the topics isn't for a process; a pattern that nobody publishes on stands there, too.
func (in *inspector) hides(id *Identity, topic string) bool {
	return in.cfg.Access.refuses(id, actInspect, topic) != nil
}

// maxNames bounds the names in one row of a frame, so that every row fits one.
const maxNames = 20

// cut takes the rows from offset on that fit one frame.
func cut[R proto.Message](rows []R, offset uint64, limit int) (page []R, next uint64) {
	if offset >= uint64(len(rows)) {
		return nil, 0
	}
	size := 0
	for i, r := range rows[offset:] {
		shorten(r)
		size += proto.Size(r) + 4
		if i > 0 && size > pageBudget || i == limit {
			return page, offset + uint64(i)
		}
		page = append(page, r)
	}
	return page, 0
}

// shorten bounds the lists of names in a row.
func shorten(r proto.Message) {
	few := func(names []string) []string {
		if len(names) <= maxNames {
			return names
		}
		return append(slices.Clone(names[:maxNames]), "and "+strconv.Itoa(len(names)-maxNames)+" more")
	}
	switch r := r.(type) {
	case *bhomev1.TopicRow:
		r.Publishers, r.Subscribers, r.Providers = few(r.Publishers), few(r.Subscribers), few(r.Providers)
	case *bhomev1.MsgRow:
		r.Holders = few(r.Holders)
	}
}

// names sorts names and lists each once: a process may have several routes.
func names(l []string) []string {
	slices.Sort(l)
	return slices.Compact(l)
}
