package actors

import (
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/bhome-bus/bhome/shmio"
)

// The center wakes no session of an idle node while its heart beats, and wakes it when the heart has stopped; a busy one's
// each second.
func TestIdleSessionsSleep(t *testing.T) {
	seg, err := shmio.CreateSegment("heart", shmio.SegmentSpec{Kind: shmio.KindProcess, Size: 1 << 16, Session: 10})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeSegment(seg) })
	c := &center{cfg: testConfig(), sessions: map[uint64]*admitted{}}
	c.refusals = newRefusals(c.log)
	c.cfg.OfflineAfter = 15 * time.Second
	idle := &admitted{pid: &actor.PID{Id: "idle"}, heart: seg}
	c.sessions[10] = idle
	c.sessions[20] = &admitted{pid: &actor.PID{Id: "busy"}, heart: seg, busy: true}
	woken := func(from, seconds int, beats bool) (n map[string]int) {
		n = map[string]int{}
		for s := range seconds {
			if beats && s%5 == 0 {
				seg.Counter(shmio.CounterBeats).Add(1)
			}
			f := &fakeContext{}
			c.tickAll(f, int64(from+s)*int64(time.Second))
			for _, m := range f.sent {
				if m.to != nil {
					n[m.to.Id]++
				}
			}
		}
		return n
	}
	if n := woken(1000, 30, true); n["idle"] != 0 || n["busy"] != 30 {
		t.Fatalf("woken while its heart beats: %v", n)
	}
	if n := woken(1030, 30, false); n["idle"] < 4 || n["idle"] > 8 { // each third second, from the tenth of silence on
		t.Fatalf("woken when it is silent: %v", n)
	}
	if n := woken(1060, 30, true); n["idle"] != 0 {
		t.Fatalf("woken when it beats again: %v", n)
	}
	closeSegment(seg) // as its session does when it ends, whatever the center does just then
	if n := woken(1090, 30, false); n["idle"] == 0 {
		t.Error("a node without memory is taken for one that lives")
	}
}
