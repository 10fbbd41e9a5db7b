package hostile

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/wire"
)

func linkAttacks() []Attack {
	return []Attack{
		{"words", "pushes random words and cursors to the center", true, fuzzWords},
		{"frames", "pushes random and bent frames to the center", true, fuzzFrames},
		{"flood-queue", "fills its queues with questions, and never reads an answer", false, floodQueue},
		{"churn", "subscribes and unsubscribes, publishes and no more, as fast as it is answered", false, churn},
	}
}

func fuzzWords(ctx context.Context, a *attacker) error {
	return a.again(ctx, func(ctx context.Context, r *rawNode) error {
		a.ready()
		for i := 0; ctx.Err() == nil && !r.isOver(); i++ {
			q := a.rand.IntN(2)
			switch {
			case i < 1000 && r.room(q, 1): // commands whose contents are off, or refer to what isn't
				r.push(q, a.rand.Uint64()|1&^0xe|uint64(a.rand.IntN(5))<<1)
			case i < 1000:
				pause(ctx, 50*time.Microsecond)
			case a.rand.IntN(8) == 0:
				put(r.upMem[q], tailAt, a.oddNumber(get(r.upMem[q], tailAt)))
				r.center.Ring(0)
				pause(ctx, 100*time.Microsecond)
			default:
				r.push(q, a.oddNumber(uint64(r.data.Base())<<4))
				pause(ctx, 20*time.Microsecond)
			}
			a.count++
		}
		return nil
	})
}

// types are the message types that a frame may have, and some that it may not.
func (a *attacker) messageType() uint32 {
	if a.rand.IntN(8) == 0 {
		return a.rand.Uint32()
	}
	return uint32(a.rand.IntN(82))
}

// someFrame is a frame that is right in part.
func (a *attacker) someFrame(r *rawNode, typ uint32) []byte {
	bodies := []proto.Message{
		&bhomev1.Subscribe{Subscription: a.rand.Uint64(), Pattern: string(a.noise(a.rand.IntN(40))), Depth: a.rand.Uint32(), Hold: a.rand.Uint32(), Quota: a.rand.Uint64(), OnFull: bhomev1.Policy(a.rand.Int32())},
		&bhomev1.Subscribe{Subscription: uint64(a.rand.IntN(4)), Pattern: "a.>", Depth: 1, OnFull: bhomev1.Policy(a.rand.IntN(2))},
		&bhomev1.Advertise{Topic: "a." + string(rune('a'+a.rand.IntN(26))), Keep: a.rand.Uint32(), BlockNs: int64(a.rand.Uint64())},
		&bhomev1.RegisterRPC{Service: uint64(a.rand.IntN(9)), Topic: "s", Depth: a.rand.Uint32(), Quota: a.rand.Uint64()},
		&bhomev1.ConnectService{Topic: "s", Quota: a.rand.Uint64()},
		&bhomev1.QueryMsgs{Offset: a.rand.Uint64(), Limit: a.rand.Uint32()},
		&bhomev1.RouteHalf{Route: a.someRoute(r), Role: bhomev1.Role(a.rand.IntN(4)), Half: &bhomev1.Half{Segment: uint32(a.rand.IntN(3)), Offset: a.oddNumber(4096)}},
		&bhomev1.RouteClose{Route: a.someRoute(r), Reason: string(a.noise(20)), PeerAlive: a.rand.IntN(2) == 0},
		&bhomev1.SegmentAdd{Segment: &bhomev1.SegmentRef{Number: uint32(a.rand.IntN(9)), Kind: uint32(a.rand.IntN(7)), Base: a.rand.Uint32()}, Size: a.rand.Uint64()},
		&bhomev1.SegmentDrop{Number: uint32(a.rand.IntN(9)), Base: a.rand.Uint32()},
		&bhomev1.SocketAck{Seq: a.rand.Uint64()},
		&bhomev1.SegmentUnmapped{PeerSession: a.rand.Uint64(), Segment: &bhomev1.SegmentRef{Number: a.rand.Uint32()}},
		&bhomev1.Report{Grants: []*bhomev1.Grant{{Id: a.rand.Uint64(), Class: a.rand.Uint32()}}, End: a.rand.IntN(2) == 0},
		&bhomev1.Hello{Abi: wire.ABIVersion, Resume: a.rand.Uint64()},
		nil,
	}
	f, err := frame(&bhomev1.Head{Type: typ, MsgId: string(rune('a' + a.rand.IntN(26))), SsnId: []uint64{0, r.session, a.rand.Uint64()}[a.rand.IntN(3)]}, bodies[a.rand.IntN(len(bodies))])
	if err != nil || a.rand.IntN(4) == 0 {
		return a.noise(1 + a.rand.IntN(200))
	}
	for range a.rand.IntN(3) { // bent
		f[a.rand.IntN(len(f))] = byte(a.rand.Uint32())
	}
	return f
}

// someRoute is one that we have, or any.
func (a *attacker) someRoute(r *rawNode) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id := range r.routes {
		return id
	}
	return a.rand.Uint64()
}

func fuzzFrames(ctx context.Context, a *attacker) error {
	return a.again(ctx, func(ctx context.Context, r *rawNode) error {
		a.ready()
		for ctx.Err() == nil && !r.isOver() {
			f, q := a.someFrame(r, a.messageType()), a.rand.IntN(2)
			if !r.room(q, 40) {
				pause(ctx, 20*time.Microsecond)
				continue
			}
			r.pushFrame(q, f)
			a.drain(r)
			a.count++
		}
		return nil
	})
}

// drain reads the answers away.
func (a *attacker) drain(r *rawNode) {
	for {
		_, f, err := r.tryAnswer()
		if f == nil || err != nil {
			return
		}
	}
}

func floodQueue(ctx context.Context, a *attacker) error {
	return a.again(ctx, func(ctx context.Context, r *rawNode) error {
		a.ready()
		queries := []bhomev1.MsgType{bhomev1.MsgType_MSG_TYPE_QUERY_PROCS, bhomev1.MsgType_MSG_TYPE_QUERY_MSGS, bhomev1.MsgType_MSG_TYPE_QUERY_TOPICS,
			bhomev1.MsgType_MSG_TYPE_HEARTBEAT, bhomev1.MsgType_MSG_TYPE_QUERY_TOPIC}
		for ctx.Err() == nil && !r.isOver() {
			f, err := frame(&bhomev1.Head{Type: uint32(queries[a.rand.IntN(len(queries))]), MsgId: "x"}, nil)
			if err != nil {
				return err
			}
			if !r.room(0, 12) {
				pause(ctx, 100*time.Microsecond) // it is full: the center has enough of us
				continue
			}
			r.pushFrame(0, f)
			a.count++
		}
		return nil
	})
}

func churn(ctx context.Context, a *attacker) error {
	return a.again(ctx, func(ctx context.Context, r *rawNode) error {
		a.ready()
		for i := uint64(1); ctx.Err() == nil && !r.isOver(); i++ {
			if _, err := r.subscribes(ctx, i, goodTopic); err != nil {
				return err
			}
			if err := r.unsubscribes(ctx, i); err != nil {
				return err
			}
			if _, err := r.publishes(ctx, evilTopic); err != nil {
				return err
			}
			if err := r.unpublishes(ctx, evilTopic); err != nil {
				return err
			}
			a.count++
		}
		return nil
	})
}
