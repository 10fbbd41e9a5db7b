package actors

import (
	"fmt"

	"github.com/asynkron/protoactor-go/actor"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio"
)

// noRoomFor deals with a segment that we have no mapping or descriptor left for. A data segment that was asked for is let go
// again, and what waited for it refused. Without a control segment, or one of a report, there is no going on: the link ends,
// and the node comes again until there is room.
func (s *session) noRoomFor(c actor.Context, add *segmentAdd, why *bhomev1.ErrorMsg, wanted bool) {
	if s.first("no room") { // MsgRecords logs each loan that is refused for it
		s.log.Warn("there is no room for a node's segment", s.who(append([]any{"kind", add.kind, "size", add.size}, limitAttrs(why)...)...)...)
	}
	if add.kind != shmio.KindData || !wanted || len(s.unkept) >= s.cfg.Limits.SegmentsPerNode {
		s.cut(c, fmt.Errorf("limit %q of %s: %s", why.GetLimit(), why.GetWhose(), why.GetMessage()))
		return
	}
	delete(s.wanted, add.place)
	s.unkept[add.place] = true
	s.conn.send(outFrame{typ: bhomev1.MsgType_MSG_TYPE_SEGMENT_DROP, body: &bhomev1.SegmentDrop{
		Number: add.number, Base: add.place.base, Generation: add.place.generation}})
	add.refused = why
	c.Send(s.roles.msgs, add)
}
