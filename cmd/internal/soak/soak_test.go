package soak

import (
	"errors"
	"testing"
)

func TestPayloadShowsEveryChange(t *testing.T) {
	p := newPattern()
	for _, size := range []int{headBytes, headBytes + 1, 200, 5000} {
		b := make([]byte, size)
		want := head{Member: 3, Slot: 4, Position: 1<<40 + 5, Flags: lossless}
		p.put(b, want)
		if got, err := parse(b); err != nil || got != want {
			t.Fatalf("%+v, %v", got, err)
		}
		for i := range b {
			b[i] ^= 1
			if _, err := parse(b); !errors.Is(err, errPayload) {
				t.Fatalf("%d bytes: a change at %d: %v", size, i, err)
			}
			b[i] ^= 1
		}
		if _, err := parse(b[:headBytes-1]); !errors.Is(err, errPayload) {
			t.Fatal(err)
		}
	}
}

func TestJournal(t *testing.T) {
	dir := t.TempDir()
	j, err := openJournal(dir, 5, true)
	if err != nil {
		t.Fatal(err)
	}
	defer j.close()
	i, s, err := j.add(slotPub, 3)
	if err != nil || i != 0 {
		t.Fatal(i, err)
	}
	s.set(cSent, 1<<50)
	j.setHandled(handledSlots+7, 1, 99)
	j.leave()
	other, err := openJournal(dir, 5, false) // the director's, or a provider's
	if err != nil {
		t.Fatal(err)
	}
	defer other.close()
	o := other.slot(0)
	times, by := other.handled(7)
	if other.slots() != 1 || o.kind() != slotPub || o.spec() != 3 || o.get(cSent) != 1<<50 || times != 1 || by != 99 || !other.exiting() {
		t.Errorf("%d slots, kind %d, spec %d, sent %d, handled %d by %d", other.slots(), o.kind(), o.spec(), o.get(cSent), times, by)
	}
	for err == nil {
		_, _, err = j.add(slotSub, 0)
	}
	if !errors.Is(err, errJournalFull) || j.slots() != maxSlots {
		t.Errorf("%v, %d slots", err, j.slots())
	}
}

// Every stretch of restless rounds is followed by a calm one of the same length, each pair longer than the one before.
func TestCalmStretchesGrow(t *testing.T) {
	got := ""
	for round := range 28 {
		if calm(round) {
			got += "c"
		} else {
			got += "r"
		}
	}
	if want := "rrccrrrrccccrrrrrrrrcccccccc"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
