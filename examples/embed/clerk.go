package main

import (
	"fmt"
	"io"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/bhome-bus/bhome/actors"
	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
)

// typeGreeting is this program's own message type: from 1000 on they are the embedding program's.
const typeGreeting = 1001

// clerk is an actor of the host's that has to do with the bus: it asks the center, hears of nodes, and serves
// typeGreeting.
type clerk struct {
	center, screen *actor.PID
	events         chan<- any // to the host's main flow; big enough for all of them
	answers        int        // still to come
}

// What the clerk is told, and tells.
type (
	look   struct{} // ask the center for everything
	looked struct{} // all answers are there
	ready  struct{} // the center knows the clerk
)

// Receive is the actor.
func (k *clerk) Receive(c actor.Context) {
	switch m := c.Message().(type) {
	case *actor.Started:
		c.Send(k.center, &actors.WatchNodes{PID: c.Self()})
		c.Send(k.center, &actors.HandleType{Type: typeGreeting, PID: c.Self()})
		// Messages to the center keep their order: once this is answered, it has heard both.
		c.Request(k.center, &actors.QueryCenter{})
	case *actors.NodeUp:
		k.say(c, "up:   %s, process %d of uid %d", m.Name, m.PID, m.UID)
		k.events <- m
	case *actors.NodeDown:
		k.say(c, "down: %s: %s", m.Name, m.Reason)
		k.events <- m
	case *actors.UserMessage:
		k.say(c, "%s says %q", m.From.Name, m.Body)
		c.Respond(&actors.UserReply{Type: typeGreeting, Body: fmt.Appendf(nil, "good day, %s", m.From.Name)})
	case *look:
		k.answers = 3
		c.Request(k.center, &actors.QueryProcs{})
		c.Request(k.center, &actors.QueryMsgs{})
		c.Request(k.center, &actors.QueryTopics{})
	case *actors.ProcsReply:
		for _, p := range m.Procs {
			k.say(c, "proc:  %s is %s, index %d", p.GetName(), p.GetState(), p.GetProcIndex())
		}
		k.answered()
	case *actors.MsgsReply:
		for _, b := range m.Msgs {
			if b.GetTopic() != "" { // the others lie ready in the node's magazine
				k.say(c, "msg:   %d bytes on %s, owned by %s, held by %v", b.GetSize(), b.GetTopic(), b.GetOwner(), b.GetHolders())
			}
		}
		k.answered()
	case *actors.TopicsReply:
		for _, t := range m.Topics {
			k.say(c, "topic: %s, from %v to %v", t.GetTopic(), t.GetPublishers(), t.GetSubscribers())
		}
		k.answered()
	case *bhomev1.QueryCenterReply:
		k.events <- ready{}
	}
}

func (k *clerk) answered() {
	if k.answers--; k.answers == 0 {
		k.events <- looked{}
	}
}

func (k *clerk) say(c actor.Context, format string, args ...any) {
	c.Send(k.screen, line(fmt.Sprintf(format, args...)))
}

// screen is an actor of the host's that has nothing to do with the bus. It outlives the centers.
type screen struct {
	out   io.Writer
	lines int
}

type (
	line  string
	count struct{} // answered with how many lines there were
)

// Receive is the actor.
func (s *screen) Receive(c actor.Context) {
	switch m := c.Message().(type) {
	case line:
		s.lines++
		fmt.Fprintln(s.out, string(m)) // a screen that is gone is nobody's loss
	case *count:
		c.Respond(s.lines)
	}
}
