package node

import (
	"testing"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/wire"
)

// An inline record has the low half of its sequence number; the other is that of the topic's messages near it, alone or in a batch,
// whatever the numbers of other topics on the same route are.
func TestSequenceNumbersAreExtendedByTopic(t *testing.T) {
	r := &inRoute{topics: map[uint32]*topicName{}}
	told := []*bhomev1.TopicID{{Id: 1, Name: "old"}, {Id: 2, Name: "new"}}
	r.addTopics(told)
	message := func(topic uint32, seq uint64) *slot {
		sl := &slot{}
		sl.rec.Head = wire.NewInlineHead(wire.KindPublish, topic, uint32(seq), 0)
		sl.rec.Word = sl.rec.Head.First
		return sl
	}
	block := &slot{}
	block.found(nil, 1, 0, 0, 5<<32-10, wire.KindPublish) // all 64 bits
	block.rec.Word = 64 << 4
	r.topic(1).has(&block.received)
	for i := range uint64(20) { // over the end of the low half
		for topic, seq := range map[uint32]uint64{1: 5<<32 - 9 + i, 2: 1 + i} {
			sl := message(topic, seq)
			r.topic(topic).has(&sl.received)
			if sl.seq != seq {
				t.Errorf("topic %d: number %#x, want %#x", topic, sl.seq, seq)
			}
		}
		r.addTopics(told) // told again
	}
	for _, seq := range []uint64{5, 1<<31 - 1, 1<<31 + 5, 1<<32 - 1} { // the first that comes
		r := &inRoute{topics: map[uint32]*topicName{}}
		r.addTopics(told)
		sl := message(1, seq)
		if r.topic(1).has(&sl.received); sl.seq != seq {
			t.Errorf("number %#x, want %#x", sl.seq, seq)
		}
	}
	r.addTopics([]*bhomev1.TopicID{{Id: 2, Name: "another"}})
	if name := r.topic(2).name; name != "another" {
		t.Errorf("topic 2 is called %q", name)
	}
	r.addTopics(told[1:])
	var sls []*slot
	for i := range uint64(8) {
		sls = append(sls, message(1, 5<<32+11+i))
	}
	sls = append(sls, message(2, 21))
	if n := r.topic(1).hasAll(sls); n != 8 {
		t.Errorf("%d of 8 are on the topic", n)
	}
	for i, sl := range sls[:8] {
		if want := uint64(5<<32 + 11 + i); sl.seq != want || *sl.topic != "old" {
			t.Errorf("number %#x on %q, want %#x", sl.seq, *sl.topic, want)
		}
	}
	if n := r.topic(2).hasAll(sls); n != 0 {
		t.Errorf("%d are on a topic of which none is", n)
	}
}
