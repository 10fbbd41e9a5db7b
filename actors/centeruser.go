package actors

import (
	"time"

	"github.com/asynkron/protoactor-go/actor"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
)

// onUserFrame passes a frame of the embedding program's to its handler.
func (c *center) onUserFrame(ctx actor.Context, m *userFrame) {
	h := c.handlers[m.typ]
	if h == nil {
		commonReply(ctx, m.to, errorMsg(bhomev1.ErrorCode_ERROR_CODE_NOT_FOUND, "nobody handles message type %d here", m.typ))
		return
	}
	to := m.to
	reply := ctx.Spawn(actor.PropsFromProducer(func() actor.Actor { return &userReplier{to: to} }))
	ctx.RequestWithCustomSender(h, &UserMessage{From: m.id, Type: m.typ, Body: m.body}, reply)
}

// userReplier waits for a handler's answer, and no longer than that.
type userReplier struct {
	to    asker
	timer *time.Timer
}

const userReplyTimeout = 30 * time.Second

// Receive is the actor.
func (u *userReplier) Receive(c actor.Context) {
	switch m := c.Message().(type) {
	case *actor.Started:
		root, self := c.ActorSystem().Root, c.Self()
		u.timer = time.AfterFunc(userReplyTimeout, func() { root.Send(self, &userTimeout{}) })
	case *UserReply:
		if m.Err != "" {
			commonReply(c, u.to, errorMsg(bhomev1.ErrorCode_ERROR_CODE_HANDLER, "%s", validText(m.Err)))
		} else {
			c.Send(u.to.session, &frameOut{to: u.to, typ: bhomev1.MsgType(m.Type), body: rawBody(m.Body)})
		}
		c.Stop(c.Self())
	case *userTimeout:
		commonReply(c, u.to, errorMsg(bhomev1.ErrorCode_ERROR_CODE_BUSY, "the handler has not answered within %v", userReplyTimeout))
		c.Stop(c.Self())
	case *actor.Stopping:
		u.timer.Stop()
	}
}

type userTimeout struct{}
