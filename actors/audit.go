package actors

import (
	"fmt"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/bhome-bus/bhome/shmio"
)

// The kinds of faults that a check finds, as docs/operations.md lists them.
const (
	faultAccounts   = "accounts"   // sums of blocks, bytes or budgets don't add up
	faultBlock      = "block"      // a block is out without a grant, or with somebody who is gone
	faultSegment    = "segment"    // a node's segments: its session and MsgRecords know different ones
	faultSession    = "session"    // a record keeper knows a session that is over, or lacks one that isn't
	faultName       = "name"       // a name that two have, or that its holder hasn't
	faultRoute      = "route"      // a route without one of its ends, or an end without a route
	faultHalf       = "half"       // a half that was never told, or isn't what was told
	faultWord       = "word"       // a cursor or slot that can't be
	faultRecords    = "records"    // a record keeper's own tables contradict each other
	faultDescriptor = "descriptor" // open in the center, and of nobody; or of somebody, and not open
	faultMapping    = "mapping"    // likewise mapped
	faultSilent     = "no answer"  // an actor of the center doesn't answer
)

// remedy is what an operator is to do about a kind of fault.
func remedy(kind string) string {
	const restart = "restart bhomed (nodes go on, and report anew what they hold); keep its log and this output for a bug report"
	switch kind {
	case faultBlock, faultHalf, faultWord:
		return "look for the process in bhomed's log; it has spoilt its own memory: restart that process. It harms only itself"
	case faultSegment:
		return "look for the process in bhomed's log: what it reported after a restart was refused; restart that process, and look at the limits"
	case faultDescriptor, faultMapping:
		return "what is lost comes back when bhomed restarts (nodes go on); keep its log and this output for a bug report"
	case faultSilent:
		return "look into bhomed's log for a failure or a machine without a free core; ask again; if it stays so, " + restart
	}
	return restart
}

// finding is something that is not as it should be, at one look. What one actor says of its own records is so. What comes of
// comparing what several said, or of looking at a node's memory, counts only if later looks find the same.
type finding struct {
	kind  string
	where string
	what  string
	key   string // by which it is the same at another look; "": it is sure
}

// findings collects what one actor finds in its own records.
type findings struct {
	where string
	list  []finding
}

// maxFindings bounds what one actor says at one look.
const maxFindings = 1000

// add tells what is so.
func (f *findings) add(kind, format string, args ...any) {
	f.put(finding{kind: kind, where: f.where, what: fmt.Sprintf(format, args...)})
}

// suspect tells what is so if it stays so, to the figure.
func (f *findings) suspect(kind, where, format string, args ...any) {
	what := fmt.Sprintf(format, args...)
	f.put(finding{kind: kind, where: where, what: what, key: kind + "|" + where + "|" + what})
}

func (f *findings) put(x finding) {
	if len(f.list) < maxFindings {
		x.where, x.what = validText(x.where), validText(x.what)
		f.list = append(f.list, x)
	}
}

// audited answers a check. Whatever is wrong with the records, their keeper goes on.
func audited(c actor.Context, f func() any) {
	defer func() {
		if p := recover(); p != nil {
			c.Respond(&auditFailed{fmt.Sprintf("%v", p)})
		}
	}()
	c.Respond(f())
}

// auditFailed is the answer of an actor that could not look at its records.
type auditFailed struct{ reason string }

// What a check asks the actors, and what they answer about their own records. All of an answer is a copy.
type (
	auditRole  struct{} // to ProcRecords, PubSub, Registry
	auditRoleR struct {
		findings
		sessions []sessionRef
		routes   []auditRoute
		halves   map[uint64]bool // routes of which one end has been reported
		owners   []nameOwner     // ProcRecords
	}

	auditCenter  struct{}
	auditCenterR struct {
		findings
		sessions []auditAdmitted
		knocking int
	}

	auditMsgs  struct{}
	auditMsgsR struct {
		findings
		nodes []auditNode
	}
	auditBlocks struct { // which of these a session has been granted, and whether its pages are in order
		session uint64
		out     []auditOut
	}
	auditBlocksR struct {
		findings
		blocks uint64
	}

	auditSession  struct{ holdings bool }
	auditSessionR struct {
		findings
		id       Identity
		pid      string // of the actor
		state    sessionState
		inspect  bool
		detached bool
		ends     []auditEnd
		data     []segmentPlace
		controls int
		control  uint64 // bytes of the control segments
		held     []auditHeld
		transit  int // descriptors on their way to the node
	}

	auditHeads  struct{}
	auditHeadsR struct {
		findings
		heads map[uint64]shmio.ReaderView // by route
	}
	auditWords  struct{ routes []auditWriter }
	auditWordsR struct {
		findings
		out   []auditOut
		slots uint64
	}
)

// sessionRef is a session that a record keeper remembers something of.
type sessionRef struct {
	session uint64
	pid     string // its actor, "": any
	what    string
}

type auditAdmitted struct {
	id     Identity
	pid    string
	online bool
}

type nameOwner struct {
	name    string
	index   int
	session uint64
}

// auditRoute is a route as PubSub or Registry has it.
type auditRoute struct{ id, writer, reader uint64 }

// auditEnd is an end of a route as a session has it.
type auditEnd struct {
	end     routeEnd
	peer    uint64
	name    string // the peer's
	spec    shmio.RouteSpec
	half    bool
	overdue bool // its node has been heard long after it was told of the route
	closing bool
	tail    uint64 // a writer's, read now
}

// auditWriter is a writer half to be looked at, with what was read of the route before.
type auditWriter struct {
	id     uint64
	tail   uint64
	reader shmio.ReaderView
	known  bool // the reader
	both   bool // both halves are there, and the reader's node has been heard since
}

// auditOut is a block that a writer half shows to be out.
type auditOut struct {
	route uint64
	seq   uint64
	place uint32
	peer  uint64
	name  string
}

// auditNode is a node as MsgRecords has it.
type auditNode struct {
	session  uint64
	pid      string
	name     string
	segments []segmentPlace
	number   int // segments it is charged for
	growing  int
	control  uint64
}

// auditHeld is what a session holds of the kernel's: descriptors and mappings of one object.
type auditHeld struct {
	what      string
	inode     shmio.Inode
	fds, maps int
	place     *segmentPlace // a data segment that isn't dropped: MsgRecords maps it too
}
