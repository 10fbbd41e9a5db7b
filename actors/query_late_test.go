package actors

import (
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
)

// Whoever lists the processes doesn't wait for those that end meanwhile: a question behind a session's end is answered.
func TestQuestionsBehindASessionsEnd(t *testing.T) {
	b := newTestBus(t)
	for range 50 {
		r := b.onlineRaw("leaves")
		pid := b.sessionPID(r.session)
		b.system.Root.Send(pid, &endSession{"for the test"})
		var asked []actor.Future
		for there := true; there; _, there = b.system.ProcessRegistry.Get(pid) {
			asked = append(asked, b.system.Root.RequestFuture(pid, &describe{}, rawTimeout))
		}
		begin := time.Now()
		for _, f := range asked {
			got, err := f.Result()
			if err == actor.ErrTimeout {
				t.Fatalf("not answered within %v", time.Since(begin))
			}
			switch got.(type) {
			case *bhomev1.ProcRow, *sessionOver, nil: // before, after; nil: it wasn't there any more
			default:
				t.Fatalf("answered with %T", got)
			}
		}
		r.close()
	}
}
