package shmio

import (
	"bytes"
	"math"
	"slices"
	"testing"

	"github.com/bhome-bus/bhome/wire"
	"pgregory.net/rapid"
)

// modelMsg is a message as the model sees it: a block of size bytes, an inline payload, or a command.
type modelMsg struct {
	id      uint64
	seq     uint64
	block   bool
	size    uint64
	slots   uint64
	payload []byte // inline
}

// routeModel is a route as its users think of it: a list of unread messages, and the blocks that are out.
type routeModel struct {
	spec     RouteSpec
	unread   []modelMsg
	held     []modelMsg // read blocks
	returned []modelMsg // on their way back
	junk     uint64     // invented and double returns on their way back
	tail     uint64
	sent     uint64
	dropped  uint64
	bad      uint64
	back     map[uint64]bool
}

func (m *routeModel) out() (n int, bytes uint64) {
	for _, l := range [][]modelMsg{m.unread, m.held, m.returned} {
		for _, x := range l {
			if x.block {
				n++
				bytes += x.size
			}
		}
	}
	return n, bytes
}

func (m *routeModel) reclaim() {
	for _, x := range m.returned {
		m.back[x.id] = true
	}
	m.returned = nil
	m.bad += m.junk
	m.junk = 0
}

func (m *routeModel) fits(x modelMsg, without []modelMsg) bool {
	slots := uint64(0)
	for _, u := range m.unread {
		slots += u.slots
	}
	n, bytes := m.out()
	for _, u := range without {
		slots -= u.slots
		if u.block {
			n--
			bytes -= u.size
		}
	}
	if len(m.unread)-len(without) >= int(m.spec.Depth) || slots+x.slots > uint64(m.spec.Slots) {
		return false
	}
	return !x.block || n < int(m.spec.Out) && (m.spec.Quota == 0 || n == 0 || bytes+x.size <= m.spec.Quota)
}

// push predicts the outcome of pushing x.
func (m *routeModel) push(x modelMsg) Outcome {
	if !m.fits(x, nil) {
		m.reclaim() // a sender that finds the route full looks at the returns
	}
	if !m.fits(x, nil) {
		switch m.spec.Policy {
		case BlockOnFull:
			return Full
		case DropNewest:
			m.dropped++
			return DroppedNewest
		}
		k := 1
		for k <= len(m.unread) && !m.fits(x, m.unread[:k]) {
			k++
		}
		if k > len(m.unread) {
			m.dropped++
			return DroppedNewest
		}
		for _, d := range m.unread[:k] {
			m.dropped++
			if d.block {
				m.back[d.id] = true
			}
		}
		m.unread = m.unread[k:]
	}
	x.seq = m.tail
	m.tail += x.slots
	m.sent++
	m.unread = append(slices.Clone(m.unread), x)
	return Sent
}

// receivable predicts whether there is something to take.
func (m *routeModel) receivable() bool {
	if len(m.unread) == 0 {
		return false
	}
	limit := m.spec.holdLimit()
	return int64(len(m.held)) < limit || m.spec.Policy != DropOldest && !m.unread[0].block
}

// batchTopic is the topic of messages that were pushed together.
const batchTopic = math.MaxUint32

// TestRouteIsItsModel does random things to a route and to its model.
func TestRouteIsItsModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		slots := uint32(1) << rapid.IntRange(0, 6).Draw(t, "log2 slots")
		depth := rapid.Uint32Range(1, slots).Draw(t, "depth")
		spec := RouteSpec{
			ID: 7, Slots: slots, Depth: depth,
			Out:    max(1, depth+rapid.Uint32Range(0, 8).Draw(t, "hold")-rapid.Uint32Range(0, 1).Draw(t, "tight")),
			Policy: Policy(rapid.Uint32Range(0, 2).Draw(t, "policy")),
			Quota:  rapid.SampledFrom([]uint64{0, 1, 100, 1000}).Draw(t, "quota"),
			First:  rapid.SampledFrom([]uint64{0, 1, 1 << 63, math.MaxUint64, math.MaxUint64 - 30}).Draw(t, "first"),
		}
		p := newPair(t, spec)
		if rapid.Bool().Draw(t, "returns together") {
			returnTogether(p.w)
		}
		m := &routeModel{spec: spec, tail: spec.First, back: map[uint64]bool{}}
		back := map[uint64]bool{}
		id := uint64(0)
		push := func(x modelMsg, do func() Outcome) {
			x.id = id
			id++
			want := m.push(x)
			if got := do(); got != want {
				t.Fatalf("pushing %+v: %v, want %v", x, got, want)
			}
		}
		held := func(n uint64) Held {
			return heldFunc(func(uint64) {
				if back[n] {
					t.Fatalf("block %d came back twice", n)
				}
				back[n] = true
			})
		}
		var gone []uint64 // sequence numbers that were returned
		t.Repeat(map[string]func(*rapid.T){
			"push block": func(t *rapid.T) {
				n := id
				size := rapid.Uint64Range(0, 200).Draw(t, "size")
				push(modelMsg{block: true, size: size, slots: 1}, func() Outcome {
					return p.w.Push(blockWord(n), size, held(n))
				})
			},
			"push blocks": func(t *rapid.T) {
				var ms []Outgoing
				for i, size := range rapid.SliceOfN(rapid.Uint64Range(0, 200), 1, 6).Draw(t, "sizes") {
					n := id + uint64(i)
					ms = append(ms, Outgoing{Held: held(n), Word: blockWord(n), Size: size})
				}
				for len(ms) > 0 { // those for which there is room, then one as it comes
					k := p.w.PushBlocks(ms)
					for _, x := range ms[:k] {
						push(modelMsg{block: true, size: x.Size, slots: 1}, func() Outcome { return Sent })
					}
					if ms = ms[k:]; len(ms) > 0 {
						x := ms[0]
						push(modelMsg{block: true, size: x.Size, slots: 1}, func() Outcome { return p.w.Push(x.Word, x.Size, x.Held) })
						ms = ms[1:]
					}
				}
			},
			"push inline batch": func(t *rapid.T) {
				room := 8 * (int(spec.recordLimit()) - 2)
				if room < 0 {
					return
				}
				payloads := rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 0, min(room, 20)), 1, 5).Draw(t, "payloads")
				want := 0
				first := uint32(id)
				for _, payload := range payloads {
					if o := m.push(modelMsg{id: id, payload: payload, slots: 2 + uint64(len(payload)+7)/8}); o != Sent && o != DroppedNewest {
						break
					}
					id++
					want++
				}
				// The topic is the same for all: the number says which it is.
				n, o := p.w.PushInlineBatch(wire.Inline{Topic: batchTopic, Seq: first}, payloads)
				if n != want || (o == Sent) != (n == len(payloads)) {
					t.Fatalf("pushed %d of %d, %v; want %d", n, len(payloads), o, want)
				}
			},
			"push inline": func(t *rapid.T) {
				in := wire.Inline{Topic: uint32(id), Seq: uint32(id), HasCorr: rapid.Bool().Draw(t, "corr"), HasTrace: rapid.Bool().Draw(t, "trace")}
				payload := rapid.SliceOfN(rapid.Byte(), 0, wire.MaxInline).Draw(t, "payload")
				in.Len = len(payload)
				extra := 8 * (in.HeadWords() - 2)
				if rapid.Bool().Draw(t, "fit it") {
					payload = payload[:min(len(payload), max(0, spec.InlineLimit()-extra))]
					in.Len = len(payload)
				}
				if in.Slots() > 2+spec.InlineLimit()/8 || in.Slots() > int(spec.Slots) || (spec.Out > spec.Depth && in.Slots() > int(spec.Slots/spec.Depth)) {
					if o := p.w.PushInline(in, payload); o != TooLarge {
						t.Fatalf("%d slots of %d: %v", in.Slots(), spec.Slots, o)
					}
					return
				}
				push(modelMsg{payload: payload, slots: uint64(in.Slots())}, func() Outcome { return p.w.PushInline(in, payload) })
			},
			"push command": func(t *rapid.T) {
				n := id
				push(modelMsg{slots: 1}, func() Outcome { return p.w.PushCommand(cmdWord(n)) })
			},
			"receive": func(t *rapid.T) {
				p.w.Commit()
				recs := []*Record{{}, {}, {}}[:rapid.IntRange(1, 3).Draw(t, "batch")]
				n, err := 1, error(nil)
				if len(recs) == 1 {
					var ok bool
					if ok, err = p.r.TryReceive(recs[0]); !ok {
						n = 0
					} else if recs[0].End() != p.r.Head() {
						t.Fatalf("message %#x ends at %#x, and the head is %#x", recs[0].Seq, recs[0].End(), p.r.Head())
					}
				} else {
					n, err = p.r.TryReceiveBatch(recs)
				}
				if err != nil {
					t.Fatal(err)
				}
				for k, rec := range recs {
					if want := m.receivable(); want != (k < n) {
						t.Fatalf("received %d of %d; message %d: want %v; %d unread, %d held", n, len(recs), k, want, len(m.unread), len(m.held))
					}
					if k == n {
						return
					}
					x := m.unread[0]
					m.unread = m.unread[1:]
					if rec.Seq != x.seq {
						t.Fatalf("received %#x, want %#x", rec.Seq, x.seq)
					}
					switch {
					case x.block:
						if rec.Word != blockWord(x.id) {
							t.Fatalf("received %#x, want block %d", rec.Word, x.id)
						}
						m.held = append(slices.Clone(m.held), x)
					case x.payload != nil || rec.IsInline():
						if rec.Head.Topic() == batchTopic && rec.Head.Seq() != uint32(x.id) || rec.Head.Topic() != batchTopic && rec.Head.Topic() != uint32(x.id) || !bytes.Equal(rec.Payload, x.payload) {
							t.Fatalf("received %+v %x, want %d %x", rec.Head, rec.Payload, x.id, x.payload)
						}
					case rec.Word != cmdWord(x.id):
						t.Fatalf("received %#x, want command %d", rec.Word, x.id)
					}
				}
			},
			"return": func(t *rapid.T) {
				if len(m.held) == 0 {
					t.Skip()
				}
				k := rapid.IntRange(0, len(m.held)-1).Draw(t, "which")
				x := m.held[k]
				m.held = slices.Delete(slices.Clone(m.held), k, k+1)
				m.returned = append(m.returned, x)
				gone = append(gone, x.seq)
				p.r.Return(x.seq)
				p.keepRoom(m)
			},
			"return wrongly": func(t *rapid.T) {
				// Through the ring alone: Return itself trusts its own process to count.
				seq := m.tail + 1000 + rapid.Uint64Range(0, 5).Draw(t, "invented")
				if len(gone) > 0 && rapid.Bool().Draw(t, "double") {
					seq = rapid.SampledFrom(gone).Draw(t, "seq")
				}
				p.r.giveBack(seq)
				m.junk++
				p.keepRoom(m)
			},
			"reclaim": func(t *rapid.T) {
				want := len(m.returned)
				m.reclaim()
				if n, err := p.w.Reclaim(); n != want || err != nil {
					t.Fatalf("reclaimed %d %v, want %d", n, err, want)
				}
			},
			"": func(t *rapid.T) {
				m.checkAgainst(t, p, back)
			},
		})
	})
}

// keepRoom has the writer take returns before their ring is full, so that the model needs none.
func (p *pair) keepRoom(m *routeModel) {
	if p.r.retTail-p.w.retHead >= uint64(len(p.w.rets)) {
		m.reclaim()
		p.w.Reclaim()
	}
}

func (m *routeModel) checkAgainst(t *rapid.T, p *pair, back map[uint64]bool) {
	if got := p.w.Unread(); got != len(m.unread) { // Unread looks at the returns, too
		t.Fatalf("%d unread, want %d", got, len(m.unread))
	}
	m.reclaim()
	n, bytes := m.out()
	if p.w.Out() != n || p.w.OutBytes() != bytes || p.r.HeldCount() != len(m.held) {
		t.Fatalf("%d out with %d bytes, %d held; want %d, %d, %d", p.w.Out(), p.w.OutBytes(), p.r.HeldCount(), n, bytes, len(m.held))
	}
	if p.w.Sent() != m.sent || p.w.Dropped() != m.dropped || p.w.BadReturns() != m.bad {
		t.Fatalf("sent %d, dropped %d, bad %d; want %d, %d, %d", p.w.Sent(), p.w.Dropped(), p.w.BadReturns(), m.sent, m.dropped, m.bad)
	}
	if len(back) != len(m.back) {
		t.Fatalf("%d blocks came back, want %d", len(back), len(m.back))
	}
	p.w.Commit()
	shown := map[uint64]wire.Word{}
	if v, err := ScanOut(p.wmem, func(seq uint64, w wire.Word) { shown[seq] = w }); err != nil || v.Sent != m.sent || v.Dropped != m.dropped || v.BytesOut != bytes {
		t.Fatalf("the half shows %+v %v", v, err)
	}
	for _, l := range [][]modelMsg{m.unread, m.held} {
		for _, x := range l {
			if x.block && x.seq != math.MaxUint64 && shown[x.seq] != blockWord(x.id) {
				t.Fatalf("block %d at %#x isn't shown", x.id, x.seq)
			}
			delete(shown, x.seq)
		}
	}
	if len(shown) != 0 {
		t.Fatalf("%v are shown to be out", shown)
	}
}
