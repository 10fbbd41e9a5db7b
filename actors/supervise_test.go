package actors

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio/pump"
	"github.com/bhome-bus/bhome/wire"
)

const poisonType = 4242 // of a frame at which a session panics

// A panic in one session ends that session only, and is logged with its stack.
func TestPanicInASession(t *testing.T) {
	b := newTestBus(t, func(c *Config) {
		c.hooks.onFrame = func(typ uint32) {
			if typ == poisonType {
				panic("poisoned frame")
			}
		}
	})
	other := b.attach("other")
	victim := b.onlineRaw("victim")
	before := countResources(t)
	second := b.onlineRaw("second")
	second.frame(0, &bhomev1.Head{Type: poisonType}, nil)
	line := b.log.wait(t, "a session has failed and ends", "poisoned frame")
	if !strings.Contains(line, "actors.(*session).onFrame") {
		t.Errorf("the stack isn't in the log: %s", line)
	}
	if _, _, _, err := second.receive(); err == nil {
		t.Error("its socket is still open")
	}
	eventually(t, func() string {
		p := askCenter[*ProcsReply](b, &QueryProcs{})
		if len(p.Procs) == 2 && b.counter("sessions") == 2 {
			return ""
		}
		return fmt.Sprint("the others are not alone: ", p.Procs)
	})
	victim.alive()
	if _, err := other.Procs(b.ctx); err != nil {
		t.Error(err)
	}
	second.close()
	noLeak(t, before)
	// Its name can be used again.
	b.onlineRaw("second").alive()
}

// A panic in the allocator loses no chunk: all that is asked is answered, and the records stay.
func TestPanicInARole(t *testing.T) {
	var fail atomic.Int32
	b := newTestBus(t, func(c *Config) {
		c.hooks.beforeGrant = func() {
			if fail.Load() > 0 {
				fail.Add(-1)
				panic("bad day")
			}
		}
	})
	r := b.onlineRaw("raw")
	kept := r.alloc(1, 100)
	fail.Store(1)
	words := make([]wire.Word, 0, 3)
	for id := uint32(10); id < 13; id++ {
		words = append(words, must(wire.AllocRequest{ID: id, Proc: r.index, Class: 5}.Encode()))
	}
	words = append(words, must(wire.Free{Grant: wire.NewGrant(1, kept)}.Encode()))
	r.push(0, words...)
	places := map[uint32]uint32{}
	for range 3 {
		m := must(wire.DecodeAllocReply(r.word(0)))
		places[m.ID] = m.Place
	}
	refused := uint32(0)
	for id := uint32(10); id < 13; id++ {
		place, answered := places[id]
		if !answered {
			t.Fatalf("request %d has no answer: %v", id, places)
		}
		if place == 0 {
			if refused != 0 {
				t.Errorf("requests %d and %d are refused; one has failed", refused, id)
			}
			refused = id
			var why bhomev1.CommonReply
			r.reply(0, fmt.Sprint("alloc:", id), bhomev1.MsgType_MSG_TYPE_COMMON_REPLY, &why)
			if why.GetErrmsg().GetCode() != bhomev1.ErrorCode_ERROR_CODE_INTERNAL {
				t.Errorf("the reason: %v", why.GetErrmsg())
			}
		}
	}
	if refused == 0 {
		t.Error("the request at which it failed is granted")
	}
	b.log.wait(t, "an actor has failed and goes on", "/msgs", "bad day", "actors.(*msgRecords).Receive")
	r.alive()
	msgs := askCenter[*MsgsReply](b, &QueryMsgs{})
	if len(msgs.Msgs) != 3 || msgs.LateFrees != 0 { // the NodeInitReply's, and two of three
		t.Errorf("%d blocks, %d late frees; the Free behind the failed request must count", len(msgs.Msgs), msgs.LateFrees)
	}
	// All chunks are back: many more requests than there are chunks get their answers.
	for i := range 100 {
		id := uint32(1000 + i)
		p := r.alloc(id, 100)
		if p == 0 {
			t.Fatalf("request %d is refused", id)
		}
		r.free(id, p)
	}
}

// The pause before a role goes on grows, and has an end.
func TestBackoffIsCapped(t *testing.T) {
	var fail atomic.Int32
	b := newTestBus(t, func(c *Config) {
		c.hooks.dropSessionEnd = func(uint64) bool {
			if fail.Load() > 0 {
				fail.Add(-1)
				panic("again")
			}
			return false
		}
	})
	b.counter("procs") // the roles are there
	fail.Store(4)
	start := time.Now()
	for range 4 {
		b.system.Root.Send(b.role("msgs"), &sessionGone{})
	}
	b.onlineRaw("late").alive() // the allocator is there again
	if took := time.Since(start); took < 150*time.Millisecond {
		t.Errorf("four failures cost %v; want 10, 20, 40 and 80 ms", took)
	}
	for _, p := range []string{"pause=10ms", "pause=20ms", "pause=40ms", "pause=80ms"} {
		b.log.wait(t, "an actor has failed", p)
	}
	s := newSupervision(b.cfg.Logger)
	s.fails["x"] = &failures{pause: backoffMost, last: time.Now()}
	if next := min(2*s.fails["x"].pause, backoffMost); next != 5*time.Second {
		t.Errorf("after %v comes %v", backoffMost, next)
	}
}

// The center isn't restarted, with all its sessions, for one bad message.
func TestPanicInTheCenter(t *testing.T) {
	b := newTestBus(t)
	r := b.onlineRaw("raw")
	bad := make(chan *bhomev1.ErrorMsg)
	close(bad)
	b.system.Root.Send(b.pid, &knocked{letIn: bad})
	b.log.wait(t, "the center has failed at a message and goes on", "*actors.knocked", "send on closed channel")
	r.alive()
	b.onlineRaw("another").alive()
}

// A pump that dies is replaced, and its link goes on.
func TestPumpIsReplaced(t *testing.T) {
	b := newTestBus(t)
	r := b.onlineRaw("raw")
	pumps := b.childrenOf(b.sessionPID(r.session))
	if len(pumps) != 1 {
		t.Fatalf("%d pumps", len(pumps))
	}
	for generation := range uint64(3) {
		b.system.Root.Send(pumps[0], &pump.Failure{Generation: generation + 1, Reason: "bad luck", Stack: []byte("where it was")})
		r.alive()
	}
	b.log.wait(t, "an actor has failed and goes on", pumps[0].Id, "pump 3", "bad luck", "where it was")
	r.alive()
}

// Heartbeats and questions of others are answered while the allocator is busy.
func TestBusyAllocatorDelaysNobodyElse(t *testing.T) {
	var busy atomic.Bool
	release, held := make(chan struct{}), make(chan struct{}, 100)
	b := newTestBus(t, func(c *Config) {
		c.hooks.beforeGrant = func() {
			if busy.Load() {
				held <- struct{}{}
				<-release
			}
		}
	})
	heavy, light := b.onlineRaw("heavy"), b.onlineRaw("light")
	node := b.attach("node")
	if _, err := node.Publisher(b.ctx, "a"); err != nil {
		t.Fatal(err)
	}
	busy.Store(true)
	heavy.push(0, must(wire.AllocRequest{ID: 7, Proc: heavy.index, Class: 5}.Encode()))
	<-held
	for range 20 {
		light.alive()
		heavy.alive() // its own heartbeat doesn't wait for its own request either
	}
	if err := light.common(1, bhomev1.MsgType_MSG_TYPE_SUBSCRIBE, sub(1, "a")); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if _, err := node.Providers(ctx, "nothing"); err != nil {
		t.Error(err)
	}
	// What the stuck role would add is left out, after 2 s; the rest is shown.
	if rows, err := node.Procs(ctx); err != nil || len(rows) != 3 {
		t.Error(rows, err)
	}
	busy.Store(false)
	close(release)
	if m := must(wire.DecodeAllocReply(heavy.word(0))); m.ID != 7 || m.Place == 0 {
		t.Error("the request is answered with", m)
	}
}
