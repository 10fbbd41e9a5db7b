package hostile

import (
	"context"
	"time"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio"
	"github.com/bhome-bus/bhome/wire"
)

func loadAttacks() []Attack {
	return []Attack{
		{"flood-topic", "publishes as fast as it can to a subscriber that listens to strangers", false, floodTopic},
		{"idle-reader", "subscribes and never reads", false, idleReader},
	}
}

// floodTopic is what a busy publisher does, too: it is its subscriber who has asked for it.
func floodTopic(ctx context.Context, a *attacker) error {
	return a.again(ctx, func(ctx context.Context, r *rawNode) error {
		ro, err := r.publishes(ctx, evilTopic)
		if err != nil {
			return err
		}
		a.ready()
		in := wire.Inline{Kind: wire.KindPublish, Topic: ro.open.GetTopics()[0].GetId()}
		payload := make([]byte, 64)
		for ctx.Err() == nil && !r.gone(ro) {
			for range 64 {
				in.Seq++
				if o := ro.w.PushInline(in, payload); o == shmio.Sent {
					a.count++
				}
				ro.w.Commit()
			}
		}
		return nil
	})
}

func idleReader(ctx context.Context, a *attacker) error {
	return a.again(ctx, func(ctx context.Context, r *rawNode) error {
		ro, err := r.subscribes(ctx, 1, goodTopic)
		if err != nil {
			return err
		}
		a.ready()
		for ctx.Err() == nil && !r.gone(ro) {
			pause(ctx, 10*time.Millisecond)
			a.count++
		}
		return r.send(bhomev1.MsgType_MSG_TYPE_BYE, &bhomev1.Bye{})
	})
}
