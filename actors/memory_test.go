package actors

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/bhome-bus/bhome/node"
	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio"
	"github.com/bhome-bus/bhome/wire"
)

// A proc index that is not the link's is refused and counted, and gets nothing.
func TestForeignProcIndex(t *testing.T) {
	b := newTestBus(t)
	other, r := b.onlineRaw("other"), b.onlineRaw("raw")
	before := askCenter[*MsgsReply](b, &QueryMsgs{}).Blocks
	for _, w := range []wire.AllocRequest{
		{ID: 1, Proc: other.index, Class: 5},
		{ID: 2, Proc: 65535, Class: 5, Batch: true, Log2: 8},
		{ID: 3, Proc: r.index, Class: 5, Socket: 4}, // no such queue
		{ID: 4, Proc: r.index, Class: 5, Socket: 15},
	} {
		r.push(0, must(w.Encode()))
	}
	r.alive()
	if n := askCenter[*MsgsReply](b, &QueryMsgs{}).Blocks; n != before {
		t.Errorf("%d blocks were granted", n-before)
	}
	if n := b.faults("raw"); n != 4 {
		t.Errorf("%d faults are counted, want 4", n)
	}
	b.log.wait(t, "a node's fault", "name=raw", "proc index", "not the link's")
	if n := b.counter("node_faults"); n != 4 {
		t.Errorf("the center counts %d faults", n)
	}
	if r.alloc(5, 100) == 0 {
		t.Error("an honest request is refused")
	}
}

func TestLateFree(t *testing.T) {
	b := newTestBus(t)
	r := b.onlineRaw("raw")
	old := r.alloc(1, 100)
	r.free(1, old)
	again := r.alloc(2, 100)
	if again != old {
		t.Fatalf("blocks %#x and %#x: last in, first out", old, again)
	}
	r.free(1, old)     // twice: it is another's now
	r.free(3, old)     // an id that never was
	r.free(2, old+4)   // not where a block begins
	r.free(2, 1<<31-1) // outside
	eventually(t, func() string {
		msgs := askCenter[*MsgsReply](b, &QueryMsgs{})
		if msgs.LateFrees != 4 || len(msgs.Msgs) != 2 {
			return fmt.Sprintf("%d late frees, %d blocks; want 4 and 2", msgs.LateFrees, len(msgs.Msgs))
		}
		return ""
	})
	if n := b.counter("late_frees"); n != 4 {
		t.Errorf("the counter says %d late frees", n)
	}
	r.free(2, old)
	eventually(t, func() string {
		if n := len(askCenter[*MsgsReply](b, &QueryMsgs{}).Msgs); n != 1 {
			return fmt.Sprintf("%d blocks after the true Free, want 1", n)
		}
		return ""
	})
}

func TestRequestIDsWrap(t *testing.T) {
	b := newTestBus(t)
	r := b.onlineRaw("raw")
	ids := []uint32{1<<28 - 2, 1<<28 - 1, 0, 1}
	places := map[uint32]uint32{}
	for _, id := range ids {
		if places[id] = r.alloc(id, 100); places[id] == 0 {
			t.Fatalf("request %d is refused", id)
		}
	}
	for _, id := range ids {
		r.free(id, places[id])
	}
	r.alive()
	msgs := askCenter[*MsgsReply](b, &QueryMsgs{})
	if msgs.LateFrees != 0 || len(msgs.Msgs) != 1 {
		t.Errorf("%d late frees, %d blocks; want 0 and 1", msgs.LateFrees, len(msgs.Msgs))
	}
	// The center's own ids, of NodeInit, wrap too.
	n := &nodeRecord{pages: newNodePages(), nextID: 1<<28 - 2}
	d := &dataSegment{base: 256, size: 64 << 10}
	n.pages.add(d)
	m := newMsgRecords(testConfig())
	for _, want := range []uint32{1<<28 - 1, 0, 1} {
		var replies []socketWord
		m.grant(&fakeContext{}, n, msgOp{init: true}, 1, &replies, nil)
		if got := must(wire.DecodeNodeInitReply(replies[0].word)); got.ID != want || got.Place == 0 {
			t.Errorf("NodeInitReply %+v, want id %d", got, want)
		}
	}
}

// A batch is answered by as many words as asked for, or by fewer and a 0.
func TestAllocBatch(t *testing.T) {
	b := newTestBus(t)
	r := b.onlineRaw("raw")
	for log2 := range uint8(9) {
		id := uint32(100 + log2)
		r.push(0, must(wire.AllocRequest{ID: id, Proc: r.index, Class: 0, Batch: true, Log2: log2, Socket: 3}.Encode()))
		seen := map[uint32]bool{}
		for range 1 << log2 {
			m := must(wire.DecodeAllocReply(r.word(3)))
			if m.ID != id || m.Place == 0 || seen[m.Place] {
				t.Fatalf("batch of 2^%d: %+v", log2, m)
			}
			seen[m.Place] = true
		}
		for place := range seen {
			r.free(id, place)
		}
	}
	r.alive()
	// More than the first segment has room for: what there is, and the mark of the end.
	class := uint8(wire.CalcAllocIndex(30 << 10))
	r.push(0, must(wire.AllocRequest{ID: 1, Proc: r.index, Class: class, Batch: true, Log2: 6}.Encode()))
	got := 0
	for {
		m := must(wire.DecodeAllocReply(r.word(0)))
		if m.Place == 0 {
			break
		}
		got++
	}
	if got == 0 || got >= 64 {
		t.Errorf("%d blocks of 30 KiB from a segment of 256 KiB", got)
	}
	r.alive() // and no frame with a reason follows: the heartbeat's answer is the next
}

// A refusal's reason arrives: which limit, whose, how much is in use, of how much.
func TestLimits(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		limit string
		whose string
		set   func(*Limits)
	}{
		{"node", "greedy", func(l *Limits) { l.NodeBytes = 4 * mib }},
		{"uid", fmt.Sprint("uid ", uidOf()), func(l *Limits) { l.UIDBytes = 4 * mib }},
		{"bus", "default", func(l *Limits) { l.BusBytes = 4 * mib }},
	} {
		t.Run(c.limit, func(t *testing.T) {
			b := newTestBus(t, func(cfg *Config) { cfg.Limits.Reserve = 0; c.set(&cfg.Limits) })
			greedy := b.attach("greedy")
			pub, err := greedy.Publisher(b.ctx, "a")
			if err != nil {
				t.Fatal(err)
			}
			var loans []node.Loan
			for len(loans) < 100 {
				l, err := pub.Loan(b.ctx, 500<<10)
				if err == nil {
					loans = append(loans, l)
					continue
				}
				var limit *node.LimitError
				if !errors.Is(err, node.ErrNoMemory) || !errors.As(err, &limit) {
					t.Fatal("after", len(loans), "loans:", err)
				}
				if limit.Limit != c.limit || limit.Whose != c.whose || limit.Max != 4*mib || limit.InUse == 0 || limit.InUse > 4*mib {
					t.Errorf("the reason: %+v", limit)
				}
				break
			}
			if len(loans) == 0 || len(loans) > 8 {
				t.Fatalf("%d loans of 500 KiB within 4 MiB", len(loans))
			}
			if n := b.counter("refused_grants"); n == 0 {
				t.Error("the refusal isn't counted")
			}
			for _, l := range loans {
				if err := l.Release(); err != nil {
					t.Error(err)
				}
			}
			if l, err := pub.Loan(b.ctx, 500<<10); err != nil {
				t.Error("after all was given back:", err)
			} else if err := l.Release(); err != nil {
				t.Error(err)
			}
			_, err = pub.Loan(b.ctx, 2<<30)
			var limit *node.LimitError
			if !errors.Is(err, node.ErrTooLarge) || !errors.As(err, &limit) || limit.Max == 0 {
				t.Error("2 GiB:", err)
			}
		})
	}
}

// A request that waits for a segment is refused if the node doesn't make it, or makes another.
func TestGrowth(t *testing.T) {
	b := newTestBus(t, func(c *Config) { c.hooks.ownTicks = true })
	r := b.onlineRaw("raw")
	size := int64(1 << 20)
	request := func(id uint32) {
		t.Helper()
		r.push(0, must(wire.AllocRequest{ID: id, Proc: r.index, Class: uint8(wire.CalcAllocIndex(size))}.Encode()))
	}
	ask := func(id uint32) *bhomev1.SegmentWanted {
		t.Helper()
		request(id)
		head, body, _, err := r.receive()
		if err != nil || head.GetType() != uint32(bhomev1.MsgType_MSG_TYPE_SEGMENT_WANTED) {
			t.Fatal(head, err)
		}
		var m bhomev1.SegmentWanted
		if err := proto.Unmarshal(body, &m); err != nil || m.GetSize() < uint64(size) || m.GetSize()%4096 != 0 || m.GetBase()%256 != 0 {
			t.Fatal(&m, err)
		}
		return &m
	}
	refused := func(id uint32, text string) {
		t.Helper()
		if m := must(wire.DecodeAllocReply(r.word(0))); m.ID != id || m.Place != 0 {
			t.Fatalf("request %d: %+v", id, m)
		}
		var why bhomev1.CommonReply
		r.reply(0, fmt.Sprint("alloc:", id), bhomev1.MsgType_MSG_TYPE_COMMON_REPLY, &why)
		if !strings.Contains(why.GetErrmsg().GetMessage(), text) {
			t.Errorf("the reason: %v", why.GetErrmsg())
		}
	}
	inUse := b.counter("segment_bytes")
	add := func(w *bhomev1.SegmentWanted, size uint64, number uint32) {
		t.Helper()
		s, err := shmio.CreateSegment("raw-more", shmio.SegmentSpec{Kind: shmio.KindData, Number: number, Size: size, Base: w.GetBase(), Generation: w.GetGeneration(), Session: r.session})
		if err != nil {
			t.Fatal(err)
		}
		r.toClose = append(r.toClose, func() { closeSegment(s) })
		s.Publish(shmio.StateAttached)
		r.send(bhomev1.MsgType_MSG_TYPE_SEGMENT_ADD, &bhomev1.SegmentAdd{Segment: &bhomev1.SegmentRef{Number: number, Kind: uint32(shmio.KindData),
			Base: w.GetBase(), Generation: w.GetGeneration()}, Size: size}, s.FD())
	}
	// It doesn't come.
	w := ask(1)
	b.system.Root.Send(b.role("msgs"), &tick{now: monotonic() + int64(9*time.Second), alive: func(uint64) bool { return true }})
	r.alive()
	b.system.Root.Send(b.role("msgs"), &tick{now: monotonic() + int64(11*time.Second), alive: func(uint64) bool { return true }})
	refused(1, "has not made the segment")
	// A later request waits for the same segment. The node can't make it, and says so.
	request(2)
	r.alive()
	r.send(bhomev1.MsgType_MSG_TYPE_SEGMENT_ADD, &bhomev1.SegmentAdd{Segment: &bhomev1.SegmentRef{Kind: uint32(shmio.KindData), Base: w.GetBase(), Generation: w.GetGeneration()},
		Errmsg: &bhomev1.ErrorMsg{Code: bhomev1.ErrorCode_ERROR_CODE_NO_MEMORY, Message: "no memory here"}})
	refused(2, "no memory here")
	if n := b.counter("segment_bytes"); n != inUse {
		t.Errorf("%d bytes are counted for segments that there aren't", n-inUse)
	}
	// It comes.
	w = ask(4)
	add(w, w.GetSize(), 2)
	m := must(wire.DecodeAllocReply(r.word(0)))
	if m.ID != 4 || m.Place == 0 || m.Place < w.GetBase()+256 || uint64(m.Place-w.GetBase())*16 >= w.GetSize() {
		t.Fatalf("%+v in %v", m, w)
	}
	if n := b.counter("segment_bytes"); n != inUse+w.GetSize() {
		t.Errorf("%d bytes of segments, want %d", n, inUse+w.GetSize())
	}
	// It is too small.
	size = 2 << 20
	w = ask(5)
	add(w, 8192, 3)
	refused(5, "asked for")
	r.alive()
}

// A node that can't be served since a limit refuses its segments isn't admitted.
func TestLimitAtAttach(t *testing.T) {
	b := newTestBus(t, func(c *Config) { c.Limits.BusBytes, c.Limits.Reserve = 2<<20, 0 })
	b.attach("one")
	b.attach("two")
	_, err := node.Attach(b.ctx, node.Config{Name: "three", Socket: b.socket})
	var limit *node.LimitError
	if !errors.Is(err, node.ErrNoMemory) || !errors.As(err, &limit) || limit.Limit != "bus" || limit.Whose != "default" || limit.Max != 2<<20 {
		t.Fatal(err)
	}
}

// The sweep finds a session whose end MsgRecords wasn't told of, and takes nothing from the living.
func TestSweepFindsAMissedEnd(t *testing.T) {
	var dropped atomic.Int32
	b := newTestBus(t, func(c *Config) {
		c.hooks.dropSessionEnd = func(uint64) bool { return dropped.Add(1) == 1 }
	})
	living, lost := b.onlineRaw("living"), b.onlineRaw("lost")
	kept := living.alloc(1, 100)
	lost.alloc(1, 100)
	if err := lost.common(0, bhomev1.MsgType_MSG_TYPE_UNREGISTER, nil); err != nil {
		t.Fatal(err)
	}
	_ = lost.conn.Close()
	line := b.log.wait(t, "records of a session whose end was missed are freed", "name=lost", "blocks=2")
	t.Log(line)
	if dropped.Load() == 0 {
		t.Fatal("the event wasn't suppressed")
	}
	msgs := askCenter[*MsgsReply](b, &QueryMsgs{})
	if msgs.Blocks != 2 || msgs.Msgs[0].GetOwner() != "living" {
		t.Errorf("granted after the sweep: %v", msgs.Msgs)
	}
	living.free(1, kept)
	living.alive()
	if n := b.counter("late_frees"); n != 0 {
		t.Error("the sweep has taken a block of the living")
	}
}

// The sweep looks at a bounded number of records each second, and goes on where it stopped.
func TestSweepIsBounded(t *testing.T) {
	m := newMsgRecords(testConfig())
	const nodes, each = 30, 1000
	for i := range uint64(nodes) {
		n := &nodeRecord{session: 1000 + 10*i, pages: newNodePages()}
		n.pages.add(&dataSegment{base: 256, size: 1 << 20})
		for k := range uint32(each) {
			if _, ok := n.pages.alloc("", 0, k, 1); !ok {
				t.Fatal("no room")
			}
		}
		m.nodes[n.session] = n
		m.count(n, 1<<20)
	}
	asked := map[uint64]int{}
	for range 4 {
		before := len(asked)
		m.sweep(&fakeContext{}, &tick{now: int64(time.Second), alive: func(s uint64) bool { asked[s]++; return true }})
		if n := len(asked) - before; n > sweepLeast/each {
			t.Errorf("%d sessions with %d records each at one time", n, each)
		}
	}
	if len(asked) != nodes {
		t.Errorf("%d of %d sessions in four rounds", len(asked), nodes)
	}
}

// All six queues of a link carry their traffic.
func TestAllQueuesAreUsed(t *testing.T) {
	var mu sync.Mutex
	used := map[string]int{}
	b := newTestBus(t, func(c *Config) {
		c.hooks.onQueue = func(direction string, queue int) {
			mu.Lock()
			defer mu.Unlock()
			used[fmt.Sprint(direction, queue)]++
		}
	})
	one, two := b.attach("one"), b.attach("two")
	pub, err := one.Publisher(b.ctx, "a.b")
	if err != nil {
		t.Fatal(err)
	}
	s, err := two.Subscribe(b.ctx, "a.")
	if err != nil {
		t.Fatal(err)
	}
	if err := pub.Publish(b.ctx, make([]byte, 3000)); err != nil {
		t.Fatal(err)
	}
	m, err := s.Receive(b.ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Release(); err != nil {
		t.Fatal(err)
	}
	if _, err := one.Serve(b.ctx, "svc", func(_ ctxT, r *node.Request) ([]byte, error) { return make([]byte, 3000), nil }); err != nil {
		t.Fatal(err)
	}
	reply, err := two.Request(b.ctx, "svc", make([]byte, 3000))
	if err != nil {
		t.Fatal(err)
	}
	if err := reply.Release(); err != nil {
		t.Fatal(err)
	}
	if _, err := two.Procs(b.ctx); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	for _, q := range []string{"up0", "up1", "down0", "down1", "down2", "down3"} {
		if used[q] == 0 {
			t.Errorf("nothing went over queue %s; over the others: %v", q, used)
		}
		delete(used, q)
	}
	if len(used) > 0 {
		t.Errorf("queues that there aren't: %v", used)
	}
}

// The segments of one uid are counted over all its nodes, the refusal names limit and uid, and what goes makes room.
func TestSegmentsPerUID(t *testing.T) {
	cfg := testConfig()
	cfg.Limits.SegmentsPerUID = 3
	m := newMsgRecords(cfg)
	a, b := &nodeRecord{session: 10, uid: 7, pages: newNodePages()}, &nodeRecord{session: 20, uid: 7, pages: newNodePages()}
	other := &nodeRecord{session: 30, uid: 8, pages: newNodePages()}
	for _, n := range []*nodeRecord{a, a, b, other} {
		if err := m.charge(n, 1<<20); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.charge(b, 1<<20); err.GetLimit() != "segments_per_uid" || err.GetWhose() != "uid 7" || err.GetInUse() != 3 || err.GetMax() != 3 {
		t.Error(err)
	}
	m.uncharge(a, 1<<20)
	if err := m.charge(b, 1<<20); err != nil {
		t.Error(err)
	}
	m.unchargeAll(b, 2<<20, 2)
	m.uncharge(a, 1<<20)
	m.uncharge(other, 1<<20)
	if len(m.uids) != 0 || m.bus != 0 {
		t.Errorf("nothing is left, and %v and %d bytes are charged", m.uids, m.bus)
	}
}

// What has been swept costs nothing until something happens; a missed end is found all the same.
func TestSweepRests(t *testing.T) {
	m := newMsgRecords(testConfig())
	n := &nodeRecord{session: 1000, pages: newNodePages()}
	n.pages.add(&dataSegment{base: 256, size: 1 << 20})
	n.pages.add(&dataSegment{base: 1 << 20, size: 1 << 20})
	n.pages.segs[1].dropping = true
	m.nodes[n.session] = n
	m.count(n, 2<<20)
	looks := 0
	sweep := func(second, sessions int) {
		m.sweep(&fakeContext{}, &tick{now: int64(second) * int64(time.Second), sessions: sessions, alive: func(uint64) bool { looks++; return sessions > 0 }})
	}
	sweep(1, 1)
	sweep(2, 1)
	if looks != 1 {
		t.Fatalf("%d looks at a node of which nothing was heard since the first", looks)
	}
	m.Receive(&fakeContext{message: &nodeNamed{}})
	n.pages.segs[1].dropping, n.pages.segs[1].emptySince = false, int64(2*time.Second)
	for second := 3; second <= 7; second++ { // it has been empty for too short a time
		sweep(second, 1)
	}
	if looks != 6 || n.pages.segs[1].dropping {
		t.Fatalf("%d looks until the segment may go, want 6; dropping: %v", looks, n.pages.segs[1].dropping)
	}
	sweep(8, 1)
	sweep(9, 1)
	if looks != 7 || !n.pages.segs[1].dropping {
		t.Fatalf("%d looks when it has gone, want 7; dropping: %v", looks, n.pages.segs[1].dropping)
	}
	m.garbage.Let(1 << 30) // what is let go is collected more than once, whether or not something happens meanwhile
	for second := 10; m.garbage.Due(); second++ {
		if second == 20 {
			t.Fatal("garbage stays")
		}
		sweep(second, 1)
		m.background.Wait()
	}
	if looks != 7 {
		t.Fatalf("%d looks when garbage is collected, want 7", looks)
	}
	sweep(20, 0)
	if len(m.nodes) != 0 {
		t.Error("the end that was missed isn't found")
	}
}
