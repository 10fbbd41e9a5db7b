package shmio

import (
	"testing"

	"github.com/bhome-bus/bhome/wire"
)

// anotherWriter makes another route of the memory of p's writer half, with messages in it.
func (p *pair) anotherWriter(t *testing.T) {
	t.Helper()
	spec := p.w.spec
	spec.ID++
	w, err := NewWriter(p.wmem, spec)
	noErr(t, err)
	noErr(t, w.Join(halfPair(t, spec).rmem, nil))
	for range spec.Depth {
		if o := w.Push(blockWord(7), 1, nil); o != Sent {
			t.Fatal(o)
		}
	}
	w.Commit()
}

// A writer that never came to know the reader lets go of its half in the end, and makes another route of it. If its process dies
// then, the reader takes nothing of that one.
func TestWhatADeadWriterHadLetGoOfIsNotRead(t *testing.T) {
	for name, spec := range endSpecs() {
		t.Run(name, func(t *testing.T) {
			p := halfPair(t, spec)
			noErr(t, p.r.Join(p.wmem, nil))
			p.w.End()
			p.w.Close()
			p.anotherWriter(t)
			p.r.SetPeerDead()
			if n, _ := p.readAll(t); n != 0 || !p.r.Arm() {
				t.Errorf("%d messages of another route are read", n)
			}
			if !p.r.WriterOver() || !p.r.WriterClosed() {
				t.Error("the route isn't over")
			}
		})
	}
}

// A reader that gives a route up lets go of its half at once, and makes another route of it: what that one has read and
// returned is not this one's, and the writer can let go too.
func TestWhatAReaderHasLetGoOfIsNotBelieved(t *testing.T) {
	for name, spec := range endSpecs() {
		for what, look := range map[string]func(p *pair) bool{
			"push": func(p *pair) bool { // there is room if the other's cursor is this one's
				for range 4 * p.w.spec.Slots {
					if p.w.Push(blockWord(3), 1, nil) == Ended {
						return true
					}
				}
				return false
			},
			"reclaim": func(p *pair) bool { n, err := p.w.Reclaim(); return n == 0 && err == nil },
			"unread":  func(p *pair) bool { return p.w.Unread() == int(p.w.spec.Depth) },
			"wait":    func(p *pair) bool { return !p.w.ArmSpace() },
		} {
			t.Run(name+" "+what, func(t *testing.T) {
				p := newPair(t, spec)
				p.fill(t)
				p.w.Commit()
				p.w.Reclaim()
				p.r.Close()
				other := spec
				other.ID, other.First = p.w.spec.ID+1, spec.First
				next := halfPair(t, other)
				r, err := NewReader(p.rmem, other)
				noErr(t, err)
				noErr(t, r.Join(next.wmem, nil))
				noErr(t, next.w.Join(p.rmem, nil))
				for range spec.Depth { // as many more, so that what is read there is beyond what was sent here
					for range 2 {
						next.w.Push(blockWord(5), 1, nil)
						next.w.PushInline(wire.Inline{}, nil)
						next.w.Commit()
						var rec Record
						for {
							ok, err := r.TryReceive(&rec)
							noErr(t, err)
							if !ok {
								break
							}
							if rec.IsBlock() {
								r.Return(rec.Seq)
							}
						}
						next.w.Reclaim()
					}
				}
				if !look(p) {
					t.Errorf("the other route's words are believed (%v)", p.w.Err())
				}
				if p.w.Err() != nil || p.w.BadReturns() != 0 || p.w.Out() == 0 {
					t.Errorf("%v, %d bad returns, %d out", p.w.Err(), p.w.BadReturns(), p.w.Out())
				}
				if !p.w.ReaderLeft() {
					t.Error("the writer keeps its half")
				}
			})
		}
	}
}
