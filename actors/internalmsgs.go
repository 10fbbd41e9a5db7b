package actors

import (
	"github.com/asynkron/protoactor-go/actor"
	"google.golang.org/protobuf/proto"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio"
	"github.com/bhome-bus/bhome/wire"
)

// What the center's actors say to each other. Whatever is sent belongs to the receiver from then on.

// tick is the center's one-second timer, passed on to whom it concerns.
type tick struct {
	now  int64
	beat int64 // to Sessions: when the node's heart was seen to beat
	// To MsgRecords:
	alive    func(session uint64) bool // a snapshot's
	sessions int                       // its number
	public   *shmio.Segment            // where the sums go
}

// asker is where an answer goes: a frame of some session, or an actor outside.
type asker struct {
	session *actor.PID
	msgID   string
	socket  wire.Socket
}

// frameOut has a session send a frame down.
type frameOut struct {
	to   asker
	typ  bhomev1.MsgType
	body any // a proto.Message or a rawBody
}

// peerOver goes from a session whose node asks for it to the center, and once the session that it is about is gone from there
// through PubSub and Registry back: what they and that session have said of it has gone before.
type peerOver struct {
	session uint64
	asks    *actor.PID
	via     *actor.PID // Registry; PubSub is first
}

// sessionGone says that a session is over: nothing of it comes any more.
type sessionGone struct {
	from   *actor.PID // the session that says so; nil: the center
	id     Identity
	reason string
	alive  bool // its process goes on, under another session: what it holds of others stays held
}

// To MsgRecords.
type (
	nodeAttach struct {
		from    *actor.PID
		id      Identity
		name    string         // what it calls itself
		control uint64         // bytes of segment 0 and of the link segment
		data    *shmio.Segment // the first data segment
		resume  *segmentPlace  // it has its place already
	}
	segmentPlace struct{ base, generation uint32 }
	nodeNamed    struct { // it has registered
		session uint64
		from    *actor.PID
		name    string
	}
	nodeAttached struct { // the answer
		base, generation uint32
		err              *bhomev1.ErrorMsg
	}
	segmentAdd struct {
		session uint64
		seg     *shmio.Segment // data, opened for MsgRecords alone; nil: control, of size bytes, or refused
		kind    shmio.Kind
		size    uint64
		number  uint32
		place   segmentPlace
		group   string            // access group; the node's word where it reports
		refused *bhomev1.ErrorMsg // the node couldn't make it
		report  bool              // of a node that attaches again
	}
	segmentGone struct {
		session uint64
		kind    shmio.Kind
		size    uint64
		place   segmentPlace
	}
	reportGrants struct {
		session uint64
		grants  []*bhomev1.Grant
	}
)

// chunk is a batch of a session's words to MsgRecords; it comes back with the answers. Sessions keep a few of them, so
// that a node's flood costs no more.
type chunk struct {
	session  uint64
	from     *actor.PID
	ops      []msgOp
	next     int // op to be done next
	replies  []socketWord
	refusals []refusal
}

type msgOp struct {
	grant wire.Grant // Free, if req is nil's
	req   wire.AllocRequest
	group string // access group of the blocks
	free  bool
	init  bool // NodeInit: the answer is NodeInitReply
}

type socketWord struct {
	socket wire.Socket
	word   wire.Word
}

type refusal struct {
	socket wire.Socket
	id     uint32
	err    *bhomev1.ErrorMsg
}

// lateReplies answers requests that had to wait for a segment.
type lateReplies struct {
	replies  []socketWord
	refusals []refusal
}

// wantSegment has a session ask its node for a data segment; dropSegment, to let one go.
type (
	wantSegment struct {
		size  uint64
		place segmentPlace
		group string
	}
	dropSegment struct {
		number uint32
		place  segmentPlace
	}
	trimNode struct{ bytes uint64 }
)

// To ProcRecords.
type (
	procInit struct {
		to      asker
		id      Identity
		name    string
		inspect bool
		pooled  bool
	}
	procInited struct { // the answer
		to    asker
		name  string
		index int
		err   *bhomev1.ErrorMsg
		left  int
	}
	procRegister struct {
		to       asker
		id       Identity
		takeover bool
	}
	procRegistered struct {
		to        asker
		err       *bhomev1.ErrorMsg
		displaced *holder
	}
	procLeaves struct{ id Identity } // its name is free from now on, its session not yet over
	displace   struct {
		session uint64
		by      holder
		name    string
	}
	procCapacity  struct{}
	procCapacityR struct{ remaining, known int }
)

// busFrame is a frame for PubSub or Registry.
type busFrame struct {
	to   asker
	id   Identity
	body proto.Message
}

// Routes.
type (
	// openRoute has a session tell its node of a route; ack, if any, hears when the node will adopt it before it
	// publishes again.
	openRoute struct {
		lone bool               // the writer has it from the center before
		open *bhomev1.RouteOpen // with the role
		peer *actor.PID         // the other end's session
		ack  *actor.PID
		op   uint64
	}
	routeTopics struct {
		msg  *bhomev1.RouteTopics
		role bhomev1.Role
		ack  *actor.PID
		op   uint64
	}
	closeRoute struct {
		route  uint64
		reason string
		alive  bool
	}
	routeAck struct {
		op      uint64
		session uint64
	}
	// peerHalf brings what one end's node said to the other end's session. The descriptors are the receiver's.
	peerHalf struct {
		route       uint64
		role        bhomev1.Role // of the end that is told
		peerSession uint64
		half        *bhomev1.Half
		segments    []segmentFD
		bell        *shmio.FD
		resumed     bool // the node was there before this center
		pidfd       *shmio.FD
	}
	segmentFD struct {
		ref *bhomev1.SegmentRef
		fd  *shmio.FD
	}
	peerSegments struct {
		peerSession uint64
		added       []segmentFD
		dropped     []*bhomev1.SegmentRef
		all         bool                  // there are no others than
		kept        map[segmentPlace]bool // these
	}
	// routeClosed: a node, or the loss of one, ended a route.
	routeClosed struct {
		route   uint64
		session uint64
		reason  string
	}
	reportedRoute struct {
		id    Identity
		route *bhomev1.ReportedRoute
	}
	adoptRoute struct { // both ends of a route have reported it
		open *bhomev1.RouteOpen
		peer *actor.PID
		lone bool // the reader is told of it only now
	}
	resumes  struct{ session uint64 } // a node has attached again; restored, or its end, follows
	restored struct{ session uint64 } // a node that attached again has said all that it kept
	retell   struct {                 // to the session of an end whose half the other end lacks
		route uint64
		role  bhomev1.Role // of that end
		bell  bool
		asks  *actor.PID // the other end's session: this one may not have heard of it
	}
	nodeState struct {
		session uint64
		online  bool
	}
)

// Inspection.
type (
	describe   struct{}
	scanRoutes struct {
		tables bool
		heads  map[uint64]uint64 // by route
	}
	routesScan struct {
		session uint64
		routes  []routeScan
	}
	routeScan struct {
		id                    uint64
		sent, dropped, unread uint64
		rate                  float64
		peerName              string
		out                   []outBlock
	}
	outBlock struct {
		place uint32
		seq   uint64
	}
	msgPage struct {
		offset uint64
		limit  int
	}
	msgPageR struct {
		rows                     []*bhomev1.MsgRow
		topicIDs                 []uint32
		kinds                    []wire.Kind
		next                     uint64
		blocks, bytes, lateFrees uint64
	}
	nodeUse  struct{}
	nodeUseR struct {
		nodes                   map[uint64]usage
		lateFrees, refused, bus uint64
	}
	usage      struct{ blocks, bytes, segments uint64 }
	topicRows  struct{}
	topicRowsR struct {
		rows   []*bhomev1.TopicRow
		routes map[uint64]routePlace // by route id
		names  map[uint32]string
	}
)

// routePlace says to which row a route's counters belong, and which publisher's they are.
type routePlace struct {
	row     int
	session uint64
}
