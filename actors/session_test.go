package actors

import (
	"errors"
	"fmt"
	"testing"

	"github.com/bhome-bus/bhome/node"
	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/wire"
)

// The seed's handshake, word by word and frame by frame.
func TestHandshake(t *testing.T) {
	b := newTestBus(t)
	r := b.attachRaw("raw")
	if _, err := wire.Session(r.session), wire.Session(r.session).Validate(); err != nil {
		t.Fatal(err)
	}
	// Nothing but NodeInit is understood yet.
	if err := r.common(0, bhomev1.MsgType_MSG_TYPE_REGISTER, &bhomev1.Register{Proc: &bhomev1.ProcInfo{ProcId: "raw"}}); err.GetMessage() != "invalid session." {
		t.Fatal("Register before NodeInit:", err)
	}
	if err := r.common(0, bhomev1.MsgType_MSG_TYPE_HEARTBEAT, nil); err.GetMessage() != "invalid session." {
		t.Fatal("Heartbeat before Register:", err)
	}
	if err := r.common(1, bhomev1.MsgType_MSG_TYPE_SUBSCRIBE, sub(1, "a")); err.GetMessage() != "invalid session." {
		t.Fatal("Subscribe before Register:", err)
	}
	r.push(0, must(wire.NodeInit{Session: r.session + 10}.Encode())) // another's
	r.push(0, must(wire.NodeInit{Session: r.session}.Encode()))
	m, err := wire.DecodeNodeInitReply(r.word(0))
	if err != nil || m.Place == 0 {
		t.Fatalf("%+v %v", m, err)
	}
	if msgs := askCenter[*MsgsReply](b, &QueryMsgs{}); len(msgs.Msgs) != 1 || msgs.Msgs[0].GetClassBytes() != 984 || uint32(msgs.Msgs[0].GetId()) != m.Place {
		t.Fatalf("the NodeInitReply's block: %v", msgs.Msgs)
	}
	r.push(0, must(wire.NodeInit{Session: r.session}.Encode())) // a known session is ignored
	if err := r.common(0, bhomev1.MsgType_MSG_TYPE_REGISTER, &bhomev1.Register{Proc: &bhomev1.ProcInfo{ProcId: "raw"}}); err.GetMessage() != "invalid session." {
		t.Fatal("Register before ProcInit:", err)
	}
	r.frame(0, &bhomev1.Head{Type: uint32(bhomev1.MsgType_MSG_TYPE_PROC_INIT), MsgId: "p", ProcId: "raw"}, &bhomev1.ProcInit{})
	var pi bhomev1.ProcInitReply
	r.reply(0, "p", bhomev1.MsgType_MSG_TYPE_PROC_INIT_REPLY, &pi)
	if pi.GetErrmsg() != nil || pi.GetProcIndex() != 0 || pi.GetRemaining() != 65535 {
		t.Fatal(&pi)
	}
	if err := r.common(0, bhomev1.MsgType_MSG_TYPE_REGISTER, &bhomev1.Register{Proc: &bhomev1.ProcInfo{ProcId: "other"}}); err.GetMessage() != "invalid session." {
		t.Fatal("Register under another name than that of ProcInit:", err)
	}
	if err := r.common(0, bhomev1.MsgType_MSG_TYPE_REGISTER, &bhomev1.Register{Proc: &bhomev1.ProcInfo{ProcId: "raw"}}); err != nil {
		t.Fatal(err)
	}
	r.alive()
	// The NodeInitReply's block goes back like any other.
	r.free(m.ID, m.Place)
	r.alive()
	if msgs := askCenter[*MsgsReply](b, &QueryMsgs{}); len(msgs.Msgs) != 0 || msgs.LateFrees != 0 {
		t.Fatalf("after its Free: %v, %d late frees", msgs.Msgs, msgs.LateFrees)
	}
	if err := r.common(0, bhomev1.MsgType_MSG_TYPE_UNREGISTER, nil); err != nil {
		t.Fatal(err)
	}
	_ = r.conn.Close()
	b.log.wait(t, "gone", "name=raw", "it has left")
	eventually(t, func() string {
		if p := askCenter[*ProcsReply](b, &QueryProcs{}); len(p.Procs) != 0 {
			return fmt.Sprint("still there: ", p.Procs)
		}
		return ""
	})
}

func TestProcTableFullReachesTheNode(t *testing.T) {
	b := newTestBus(t, func(c *Config) { c.Limits.Procs = 1 })
	b.attach("one")
	_, err := node.Attach(b.ctx, node.Config{Name: "two", Socket: b.socket, AttachTimeout: patience})
	if !errors.Is(err, node.ErrTableFull) {
		t.Fatal("a new name in a full table:", err)
	}
	b.log.wait(t, "a process gets no index", "name=two")
	// All steps are undone: nothing of it remains.
	eventually(t, func() string {
		if p := askCenter[*ProcsReply](b, &QueryProcs{}); len(p.Procs) != 1 || b.counter("granted_blocks") != p.Procs[0].GetGrantedBlocks() {
			return fmt.Sprint("left of the refused node: ", p.Procs, b.counter("granted_blocks"))
		}
		return ""
	})
}

func TestNames(t *testing.T) {
	b := newTestBus(t)
	first := b.attach("cam")
	_, err := node.Attach(b.ctx, node.Config{Name: "cam", Socket: b.socket})
	var inUse *node.NameInUseError
	if !errors.Is(err, node.ErrNameInUse) || !errors.As(err, &inUse) || int(inUse.PID) != pidOf(t) {
		t.Fatal("a name in use:", err)
	}
	second, err := node.Attach(b.ctx, node.Config{Name: "cam", Socket: b.socket, Takeover: true})
	if err != nil {
		t.Fatal("takeover:", err)
	}
	defer second.Close(b.ctx)
	select {
	case <-first.Done():
	case <-b.ctx.Done():
		t.Fatal("the displaced node doesn't hear of it")
	}
	if err := first.Err(); !errors.Is(err, node.ErrDisplaced) {
		t.Fatal("the displaced node learns:", err)
	}
	if second.ProcIndex() != first.ProcIndex() {
		t.Errorf("index %d, was %d: an index stays with its name", second.ProcIndex(), first.ProcIndex())
	}
	if err := first.Close(b.ctx); err != nil {
		t.Error(err)
	}
	// The end of the displaced session leaves the name with its successor.
	b.log.wait(t, "gone", fmt.Sprint("session=", first.Session()))
	if _, err := node.Attach(b.ctx, node.Config{Name: "cam", Socket: b.socket}); !errors.Is(err, node.ErrNameInUse) {
		t.Fatal("the name after the displaced one's end:", err)
	}
}

func TestSessionsPerUID(t *testing.T) {
	b := newTestBus(t, func(c *Config) { c.Limits.SessionsPerUID = 2 })
	one := b.attach("one")
	b.attach("two")
	_, err := node.Attach(b.ctx, node.Config{Name: "three", Socket: b.socket})
	var limit *node.LimitError
	if !errors.As(err, &limit) || !errors.Is(err, node.ErrTooMany) || limit.Limit != "sessions_per_uid" || limit.InUse != 2 || limit.Max != 2 {
		t.Fatal("a third session:", err)
	}
	if n := b.counter("refused_attaches"); n != 1 {
		t.Errorf("%d attaches were counted as refused, want 1", n)
	}
	if err := one.Close(b.ctx); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string {
		n, err := node.Attach(b.ctx, node.Config{Name: "three", Socket: b.socket})
		if err != nil {
			return "a place became free: " + err.Error()
		}
		if err := n.Close(b.ctx); err != nil {
			t.Error(err)
		}
		return ""
	})
}
