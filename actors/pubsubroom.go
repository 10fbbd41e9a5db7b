package actors

import (
	"fmt"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio"
)

// defaultShare is how many subscriptions that name no quota fit a publisher at least, or nearly: where nodes' limits are
// small, the first of them must not take all.
const defaultShare = 8

// most is what the routes of one publisher may cost it.
func (p *pubSub) most() uint64 { return p.cfg.Limits.NodeBytes - p.cfg.Limits.Reserve }

// halfSize is what a subscription's route takes of the publisher's memory besides its quota.
func halfSize(s *subscription) uint64 {
	m := s.msg
	return shmio.RouteSpec{Slots: slotsFor(m.GetDepth()), Depth: m.GetDepth(), Out: m.GetDepth() + m.GetHold()}.WriterSize()
}

// roomForAll says why a subscription can't have its routes, if so: so many from each publisher, by session.
func (p *pubSub) roomForAll(s *subscription, fresh map[uint64]int) *bhomev1.ErrorMsg {
	byUID := uidUses{}
	for session, more := range fresh {
		if err := p.room(p.pubs[session], s, more); err != nil {
			return err
		}
		byUID.route(p.pubs[session].party.id.UID, s.party.id.UID, more)
	}
	for uid, more := range byUID {
		if err := p.uids.over(&p.cfg.Limits, uid, *more); err != nil {
			return err
		}
	}
	return nil
}

// room says why a publisher can't have so many more routes to a subscription, if so.
func (p *pubSub) room(pub *publisher, s *subscription, more int) *bhomev1.ErrorMsg {
	l := p.cfg.Limits
	if n := len(pub.routes); n+more > l.RoutesPerNode {
		return tooMany("routes_per_node", pub.party.id.Name, n, l.RoutesPerNode)
	}
	if each := s.msg.GetQuota() + halfSize(s); pub.cost+uint64(more)*each > p.most() {
		return &bhomev1.ErrorMsg{Code: bhomev1.ErrorCode_ERROR_CODE_NO_MEMORY, Limit: "route", Whose: pub.party.id.Name, InUse: pub.cost, Max: p.most(),
			Message: fmt.Sprintf("the quotas of its subscribers and this one's %d bytes exceed what the publisher may use; ask for a smaller Quota", s.msg.GetQuota())}
	}
	return nil
}

// share is the quota of a subscription's route from a publisher that came later than it: what it asked for, or half of
// what the publisher has left. A subscriber's wishes must keep nobody from publishing; so one that finds no room at all,
// not even for its ring, is left out (false).
func (p *pubSub) share(pub *publisher, s *subscription, group string) (quota uint64, ok bool) {
	if pub.routes[toKey{s.key, group}] != nil {
		return 0, true
	}
	for _, uid := range []uint32{pub.party.id.UID, s.party.id.UID} {
		if err := p.uids.over(&p.cfg.Limits, uid, uidUse{routes: 1}); err != nil {
			p.refusals.warn("a subscriber gets nothing of a publisher: too many routes of a uid", &pub.party.id, monotonic(),
				append(s.attrs(), limitAttrs(err)...)...)
			return 0, false
		}
	}
	left := p.most() - min(p.most(), pub.cost)
	half := halfSize(s)
	if len(pub.routes) >= p.cfg.Limits.RoutesPerNode || left <= half+1 {
		p.refusals.warn("a subscriber gets nothing of a publisher that has no room for one more route", &pub.party.id, monotonic(),
			append(s.attrs(), "routes", len(pub.routes), "cost", pub.cost, "max", p.most())...)
		return 0, false
	}
	quota = s.msg.GetQuota()
	if quota > left-half {
		quota = (left-half)/2 + 1
		p.refusals.warn("a route gets a smaller quota than its subscriber asked for", &pub.party.id, monotonic(),
			append(s.attrs(), "asked", s.msg.GetQuota(), "quota", quota)...)
	}
	return quota, true
}

// attrs is who subscribes to what, for a line about a publisher.
func (s *subscription) attrs() []any {
	return []any{"subscriber", s.party.id.Name, "subscriber_pid", s.party.id.PID, "subscriber_uid", s.party.id.UID, "pattern", s.msg.GetPattern()}
}
