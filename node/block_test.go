package node

import (
	"reflect"
	"testing"

	"github.com/bhome-bus/bhome/shmio"
)

// Blocks are allocated 128 bytes apart, from where a cache line begins. What sending one and taking it back look at is the first line.
func TestABlockIsTwoLines(t *testing.T) {
	const line = 64
	b := reflect.TypeFor[block]()
	if b.Size() != 2*line {
		t.Errorf("a block takes %d bytes", b.Size())
	}
	for _, name := range []string{"mem", "group", "home", "word", "size", "refs", "gen", "class"} {
		if f, ok := b.FieldByName(name); !ok || f.Offset+f.Type.Size() > line {
			t.Errorf("%s lies at %d", name, f.Offset)
		}
	}
}

// A slot, too; what is written of each message received in a batch is its first line.
func TestASlotIsTwoLines(t *testing.T) {
	const line = 64
	if s := reflect.TypeFor[slot](); s.Size() != 2*line {
		t.Errorf("a slot takes %d bytes", s.Size())
	}
	rec := reflect.TypeFor[shmio.Record]()
	for _, name := range []string{"Seq", "Word", "Head", "Corr", "Payload"} {
		if f, ok := rec.FieldByName(name); !ok || f.Offset+f.Type.Size() > line {
			t.Errorf("%s lies at %d", name, f.Offset)
		}
	}
}
