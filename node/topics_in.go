package node

import (
	"sync/atomic"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio"
	"github.com/bhome-bus/bhome/wire"
)

// topicName is a topic that comes on a route.
type topicName struct {
	id   uint32
	name string
	late atomic.Uint64 // a late sequence number of the publisher's, to extend the inline records' 32 bits
}

func newTopicName(t *bhomev1.TopicID) *topicName { return &topicName{id: t.GetId(), name: t.GetName()} }

// saw notes a sequence number. Any of late does, and a store for each message costs as much as the rest.
func (t *topicName) saw(seq uint64) {
	if seq-t.late.Load() >= 1<<20 {
		t.late.Store(seq)
	}
}

// extend is the sequence number of which low is the low half, the one nearest to late. Before anything has come that is 0, and the
// numbers from 2^32 on can't be told from the first ones until a message in a block says which they are.
func extend(late uint64, low uint32) uint64 {
	seq := late + uint64(int64(int32(low-uint32(late))))
	if int64(seq) < 0 {
		seq += 1 << 32
	}
	return seq
}

// has makes m a message on t.
func (t *topicName) has(m *received) {
	if m.rec.IsInline() {
		m.seq = extend(t.late.Load(), m.rec.Head.Seq())
	}
	t.saw(m.seq)
}

// hasAll is has, and more, of the messages at the start of sls that are inline and on t, one as the other; it returns how many those are.
func (t *topicName) hasAll(sls []*slot) (n int) {
	first := sls[0].rec.Word
	if !first.IsInline() || sls[0].rec.Head.Topic() != t.id {
		return 0
	}
	late := t.late.Load()
	for _, sl := range sls {
		if !sl.rec.Word.InlineAs(first) {
			break
		}
		sl.seq, sl.topic = extend(late, sl.rec.Head.Seq()), &t.name
		n++
	}
	t.saw(sls[n-1].seq)
	return n
}

// readAll reads messages of a run that lie in view; false: one of them doesn't, isn't on t, or is rubbish.
func (t *topicName) readAll(run *shmio.Run, view *shmio.View, sls []*slot) bool {
	head := wire.NewInlineHead(wire.KindPublish, t.id, 0, 0)
	for _, sl := range sls {
		if sl.rec.Run() != run {
			return false
		}
		mem := view.Memory(sl.rec.Word)
		size, topic, _, stamp, seq, kind, ok := wire.Glance(mem)
		if !ok || topic != t.id || kind != wire.KindPublish {
			return false
		}
		payload, ok := shmio.Payload(mem, size)
		if !ok {
			return false
		}
		head.Meta = stamp // see found
		sl.rec.Head, sl.rec.Payload, sl.seq, sl.topic = head, payload, seq, &t.name
	}
	t.saw(sls[0].seq)
	return true
}

// addTopics takes topics that come on r. Those that go stay readable: messages of them may still wait.
func (r *inRoute) addTopics(added []*bhomev1.TopicID) {
	r.topicsMu.Lock()
	defer r.topicsMu.Unlock()
	for _, t := range added {
		have := r.topics[t.GetId()]
		if have != nil && have.name == t.GetName() {
			continue // it knows how far it has come
		}
		r.topics[t.GetId()] = newTopicName(t)
		r.last.CompareAndSwap(have, nil)
	}
}

// topic is the topic of an id; nil: what we weren't told yet is on the socket.
func (r *inRoute) topic(id uint32) *topicName {
	if t := r.last.Load(); t != nil && t.id == id {
		return t
	}
	return r.findTopic(id)
}

func (r *inRoute) findTopic(id uint32) *topicName {
	r.topicsMu.RLock()
	defer r.topicsMu.RUnlock() // not before last is stored: addTopics may replace t
	t := r.topics[id]
	if t != nil {
		r.last.Store(t)
	}
	return t
}
