package actors

import (
	"testing"

	"github.com/bhome-bus/bhome/node"
	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
)

// A newcomer's Subscribe is answered when nodes that have attached again have said what they publish, or don't say so.
func TestSubscribeWaitsForWhoResumes(t *testing.T) {
	for name, end := range map[string]func(r *rawNode){
		"it says all": func(r *rawNode) {
			r.frame(1, &bhomev1.Head{Type: uint32(bhomev1.MsgType_MSG_TYPE_RESTORED)}, &bhomev1.Restored{})
		},
		"it leaves":        func(r *rawNode) { r.send(bhomev1.MsgType_MSG_TYPE_BYE, &bhomev1.Bye{}) },
		"it takes forever": func(*rawNode) {},
	} {
		t.Run(name, func(t *testing.T) {
			b := newTestBus(t)
			n := b.attach("new")
			r := b.onlineRaw("back", func(h *bhomev1.Hello) { h.Resume, h.Base, h.Generation, h.NextSegment = 1<<59+10, 4096, 1, 2 })
			if !r.welcome.GetResumed() {
				t.Fatal("it doesn't resume")
			}
			done := make(chan error, 1)
			go func() {
				_, err := n.Subscribe(b.ctx, "t", node.Depth(4))
				done <- err
			}()
			eventually(t, func() string { // the center has it
				for _, row := range askCenter[*TopicsReply](b, &QueryTopics{}).Topics {
					if row.GetTopic() == "t" {
						return ""
					}
				}
				return "no subscription"
			})
			if name != "it takes forever" {
				select {
				case err := <-done:
					t.Fatal("Subscribe has returned:", err)
				default:
				}
			}
			end(r)
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		})
	}
}

// A newcomer's first request of a service is answered when its provider is back after a restart, or when none is to come.
func TestConnectServiceWaitsForWhoReturns(t *testing.T) {
	back := func(h *bhomev1.Hello) { h.Resume, h.Base, h.Generation, h.NextSegment = 1<<59+10, 4096, 1, 2 }
	for name, test := range map[string]struct {
		late  func(r *rawNode)
		found bool
	}{
		"it comes back": {late: func(r *rawNode) {
			if err := r.common(1, bhomev1.MsgType_MSG_TYPE_REGISTER_RPC, &bhomev1.RegisterRPC{Service: 1, Topic: "svc", Depth: 4, Hold: 4}); err != nil {
				r.t.Fatal(err)
			}
		}, found: true},
		"it serves another": {late: func(r *rawNode) {
			if err := r.common(1, bhomev1.MsgType_MSG_TYPE_REGISTER_RPC, &bhomev1.RegisterRPC{Service: 1, Topic: "other", Depth: 4, Hold: 4}); err != nil {
				r.t.Fatal(err)
			}
			r.frame(1, &bhomev1.Head{Type: uint32(bhomev1.MsgType_MSG_TYPE_RESTORED)}, &bhomev1.Restored{})
		}},
		"it leaves": {late: func(r *rawNode) { r.send(bhomev1.MsgType_MSG_TYPE_BYE, &bhomev1.Bye{}) }},
	} {
		t.Run(name, func(t *testing.T) {
			b := newTestBus(t)
			r := b.onlineRaw("back", back)
			client := b.onlineRaw("client")
			client.frame(1, &bhomev1.Head{Type: uint32(bhomev1.MsgType_MSG_TYPE_CONNECT_SERVICE), MsgId: "ask"}, &bhomev1.ConnectService{Topic: "svc"})
			eventually(t, func() string { // the center has it
				for _, row := range askCenter[*TopicsReply](b, &QueryTopics{}).Topics {
					if row.GetTopic() == "svc" {
						return ""
					}
				}
				return "no client"
			})
			client.alive() // the first answer on its queue: the other waits
			test.late(r)
			var reply bhomev1.ConnectServiceReply
			client.reply(0, "ask", bhomev1.MsgType_MSG_TYPE_CONNECT_SERVICE_REPLY, &reply)
			if found := reply.GetProviders() > 0; found != test.found || reply.GetErrmsg() != nil {
				t.Fatal(&reply)
			}
		})
	}
}
