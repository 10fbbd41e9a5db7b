package actors

import (
	"fmt"
	"log/slog"

	"github.com/asynkron/protoactor-go/actor"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
)

// fakeContext is an actor.Context for record keepers that are tested without an actor system: it keeps what is sent.
type fakeContext struct {
	actor.Context     // nil: whatever else is called fails the test
	message       any // that is received
	sent          []sentMsg
	responded     []any
}

type sentMsg struct {
	to  *actor.PID
	msg any
}

func (f *fakeContext) Message() any              { return f.message }
func (f *fakeContext) Self() *actor.PID          { return &actor.PID{Id: "self"} }
func (f *fakeContext) Send(to *actor.PID, m any) { f.sent = append(f.sent, sentMsg{to, m}) }
func (f *fakeContext) Respond(m any)             { f.responded = append(f.responded, m) }
func (f *fakeContext) take() []sentMsg           { s := f.sent; f.sent = nil; return s }

// fakeNode is a session that the record keepers believe in.
func fakeNode(session uint64) *busFrame {
	name := fmt.Sprint("s", session)
	pid := &actor.PID{Id: name}
	return &busFrame{to: asker{session: pid, msgID: "m"}, id: Identity{Session: session, PID: int32(session), UID: 1, Name: name, pidOf: pid}}
}

// ackAll plays the sessions: it acknowledges all that asks for it, and returns the frames that went down.
func ackAll(f *fakeContext, deliver func(*routeAck)) (frames []*frameOut) {
	for len(f.sent) > 0 {
		for _, s := range f.take() {
			switch m := s.msg.(type) {
			case *openRoute:
				if m.ack != nil {
					deliver(&routeAck{m.op, sessionOf(s.to)})
				}
			case *routeTopics:
				if m.ack != nil {
					deliver(&routeAck{m.op, sessionOf(s.to)})
				}
			case *frameOut:
				frames = append(frames, m)
			}
		}
	}
	return frames
}

func sessionOf(pid *actor.PID) (session uint64) {
	if _, err := fmt.Sscanf(pid.Id, "s%d", &session); err != nil {
		panic(err)
	}
	return session
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

// testConfig is a center that logs nothing.
func testConfig() Config {
	cfg := DefaultConfig()
	cfg.Logger = slog.New(slog.DiscardHandler)
	return cfg
}
