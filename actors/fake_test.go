package actors

import (
	"github.com/asynkron/protoactor-go/actor"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
)

// fakeContext is an actor.Context for record keepers that are tested without an actor system: it keeps what is sent.
type fakeContext struct {
	actor.Context // nil: whatever else is called fails the test
	sent          []sentMsg
	responded     []any
}

type sentMsg struct {
	to  *actor.PID
	msg any
}

func (f *fakeContext) Self() *actor.PID              { return &actor.PID{Id: "self"} }
func (f *fakeContext) Send(to *actor.PID, m any)     { f.sent = append(f.sent, sentMsg{to, m}) }
func (f *fakeContext) Respond(m any)                 { f.responded = append(f.responded, m) }
func (f *fakeContext) take() []sentMsg               { s := f.sent; f.sent = nil; return s }
func (f *fakeContext) takeFor(to string) (got []any) { return takeFrom(&f.sent, to) }

func takeFrom(from *[]sentMsg, to string) (got []any) {
	rest := (*from)[:0]
	for _, s := range *from {
		if s.to.Id == to {
			got = append(got, s.msg)
		} else {
			rest = append(rest, s)
		}
	}
	*from = rest
	return got
}

// fakeNode is a session that the record keepers believe in.
func fakeNode(session uint64, name string) busFrame {
	pid := &actor.PID{Id: name}
	return busFrame{to: asker{session: pid, msgID: "m"}, id: Identity{Session: session, PID: int32(session), UID: 1, Name: name, pidOf: pid}}
}

// ackAll plays the sessions: it acknowledges all that asks for it, and returns the frames that went down.
func ackAll(f *fakeContext, deliver func(*routeAck)) (frames []*frameOut) {
	for len(f.sent) > 0 {
		for _, s := range f.take() {
			switch m := s.msg.(type) {
			case *openRoute:
				if m.ack != nil {
					deliver(&routeAck{m.op, m.open.GetPeerSession()})
				}
			case *frameOut:
				frames = append(frames, m)
			}
		}
	}
	return frames
}

func commonErr(m *frameOut) *bhomev1.ErrorMsg {
	switch b := m.body.(type) {
	case *bhomev1.CommonReply:
		return b.GetErrmsg()
	case *bhomev1.AdvertiseReply:
		return b.GetErrmsg()
	case *bhomev1.ConnectServiceReply:
		return b.GetErrmsg()
	}
	return nil
}
