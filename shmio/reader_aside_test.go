package shmio

import (
	"fmt"
	"testing"

	"github.com/bhome-bus/bhome/wire"
)

// What was put back comes again as it was, whatever its receiver did with the record meanwhile.
func TestPutBackKeepsThePayload(t *testing.T) {
	p := newPair(t, RouteSpec{ID: 1, Slots: 64, Depth: 4, Out: 4})
	for i := range 2 {
		if o := p.w.PushInline(wire.Inline{Topic: uint32(i)}, fmt.Appendf(nil, "payload %d", i)); o != Sent {
			t.Fatal(o)
		}
	}
	p.w.Commit()
	var rec Record
	receive := func(want string) {
		t.Helper()
		if ok, err := p.r.TryReceive(&rec); !ok || err != nil || string(rec.Payload) != want {
			t.Fatalf("%v, %v: %q, want %q", ok, err, rec.Payload, want)
		}
	}
	receive("payload 0")
	p.r.PutBack(&rec)
	clear(rec.Payload) // the record is used for something else
	p.r.Resume()
	receive("payload 0")
	receive("payload 1")
}

// It comes in another record, which stays its caller's, and says nothing of what came behind it then.
func TestPutBackComesInAnotherRecord(t *testing.T) {
	p := newPair(t, RouteSpec{ID: 1, Slots: 64, Depth: 4, Out: 4})
	if o := p.w.PushInline(wire.Inline{}, []byte("payload")); o != Sent {
		t.Fatal(o)
	}
	p.w.Commit()
	first, second := Record{Tag: "first"}, Record{Tag: "second"}
	if ok, err := p.r.TryReceive(&first); !ok || err != nil || !first.Last {
		t.Fatal(ok, err, first.Last)
	}
	p.r.PutBack(&first)
	p.r.Resume()
	if ok, err := p.r.TryReceive(&second); !ok || err != nil || second.Tag != "second" || first.Tag != "first" || second.Last || second.Next != 0 {
		t.Errorf("%v, %v: tags %v and %v, last %v, next %v", ok, err, first.Tag, second.Tag, second.Last, second.Next)
	}
}
