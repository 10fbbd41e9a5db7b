package actors

import (
	"time"

	"github.com/asynkron/protoactor-go/actor"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
)

// What an embedding program may send to the center. Questions are answered with context.Respond: ask with Request or
// RequestFuture.

// QueryProcs asks for all processes; answered with *ProcsReply.
type QueryProcs struct{}

// ProcsReply lists the processes, by name.
type ProcsReply struct {
	Procs     []*bhomev1.ProcRow
	Remaining int // places left in the proc table
}

// QueryMsgs asks for the granted blocks from an offset on, at most Limit (0: 1000); answered with *MsgsReply.
type QueryMsgs struct {
	Offset uint64
	Limit  int
}

// MsgsReply lists granted blocks. Next is the offset to ask for, 0 at the end.
type MsgsReply struct {
	Msgs                     []*bhomev1.MsgRow
	Next                     uint64
	Blocks, Bytes, LateFrees uint64
}

// QueryTopics asks for all topics and services; answered with *TopicsReply.
type QueryTopics struct{}

// TopicsReply lists topics and services, by name.
type TopicsReply struct{ Topics []*bhomev1.TopicRow }

// QueryFaults has the center check itself and what it can see of the nodes; answered with *FaultsReply. That takes
// milliseconds where all is well, and up to some seconds else: only what stays so counts. Checks asked for meanwhile are
// answered together.
type QueryFaults struct{}

// FaultsReply lists what is wrong: none is a clean bus. It is shared by all who asked: read only.
type FaultsReply struct {
	Faults  []*bhomev1.FaultRow
	Looks   int               // how often it was looked
	Checked map[string]uint64 // how many of what were looked at, at the last look
	Err     *bhomev1.ErrorMsg // it could not be checked
}

// QueryCenter asks for the center's own figures; answered with *bhomev1.QueryCenterReply.
type QueryCenter struct{}

// WatchNodes has NodeUp and NodeDown sent to PID from now on, first a NodeUp for each node that is online.
type WatchNodes struct{ PID *actor.PID }

// UnwatchNodes ends that.
type UnwatchNodes struct{ PID *actor.PID }

// NodeUp says that a process has registered.
type NodeUp struct {
	Name    string
	Session uint64
	PID     int32
	UID     uint32
}

// NodeDown says that it is gone, and why.
type NodeDown struct {
	Name    string
	Session uint64
	PID     int32
	UID     uint32
	Reason  string
}

// HandleType has frames of a message type of the embedding program's, 1000 or above, sent to PID as *UserMessage. A nil
// PID ends that.
type HandleType struct {
	Type uint32
	PID  *actor.PID
}

// UserMessage is such a frame. The handler answers with Respond(*UserReply), or the caller waits in vain.
type UserMessage struct {
	From Identity
	Type uint32
	Body []byte // the handler's
}

// UserReply answers a UserMessage; Err instead of a body refuses it.
type UserReply struct {
	Type uint32
	Body []byte
	Err  string
}

// Identity is who is at the other end of a link: the kernel's word, and the name that it registered.
type Identity struct {
	Session   uint64
	PID       int32
	UID, GID  uint32
	Groups    []uint32 // supplementary, as they were when it connected; not to be changed
	Name      string
	ProcIndex int // -1: none
	Since     time.Time
	pidOf     *actor.PID
}
