package node

import (
	"errors"
	"fmt"

	"github.com/bhome-bus/bhome/shmio"
	"github.com/bhome-bus/bhome/wire"
)

// received is one message, once resolve has looked at it: its bytes are in the sender's memory or in the record.
type received struct {
	rec shmio.Record // Head, Corr and Payload are a block's, too, but that Head.Meta is its stamp: ns of CLOCK_MONOTONIC_COARSE
	seq uint64       // the publisher's
}

// unresolve has a block looked up anew.
func (m *received) unresolve() {
	if m.rec.IsBlock() {
		m.rec.Payload = nil
	}
}

// resolve finds the bytes of a record. An error means that the sender sent rubbish; what must be returned was. Or it is
// for setAside.
func (r *inRoute) resolve(m *received) error {
	if m.rec.IsInline() {
		return nil
	}
	return r.resolveBlock(m)
}

// resolveBlock is resolve for what isn't inline.
func (r *inRoute) resolveBlock(m *received) error {
	rec := &m.rec
	if rec.Word.IsCommand() {
		return fmt.Errorf("%w: command %d on a data route", wire.ErrBadWord, rec.Word.Cmd())
	}
	mem := rec.Payload
	if mem == nil { // else Space.LookUp has found it
		var err error
		if mem, err = r.peer.space.Memory(rec.Word); err != nil {
			return r.unresolved(rec, err)
		}
	}
	size, topic, id, stamp, seq, kind, ok := wire.Glance(mem)
	if !ok {
		return r.unresolved(rec, shmio.BadHeader(rec.Word))
	}
	payload, ok := shmio.Payload(mem, size)
	if !ok {
		return r.unresolved(rec, shmio.BadSize(rec.Word))
	}
	m.found(payload, topic, id, stamp, seq, kind)
	return nil
}

// found notes what a block's header says.
func (m *received) found(payload []byte, topic uint32, id, stamp, seq uint64, kind wire.Kind) {
	m.rec.Head, m.rec.Corr, m.rec.Payload, m.seq = wire.NewInlineHead(kind, topic, 0, 0), id, payload, seq
	m.rec.Head.Meta = stamp // whole: what a topic keeps may be older than an inline record's stamp can say
}

// quick is read of a message on t that is inline, or whose block was looked up. false: it is on another, or rubbish, as read finds out, for
// which nothing has changed.
func (m *received) quick(t *topicName) bool {
	if m.rec.IsInline() {
		if m.rec.Head.Topic() != t.id {
			return false
		}
		t.has(m)
		return true
	}
	mem := m.rec.Payload
	if mem == nil {
		return false
	}
	size, of, id, stamp, seq, kind, ok := wire.Glance(mem)
	if !ok || of != t.id {
		return false
	}
	payload, ok := shmio.Payload(mem, size)
	if !ok {
		return false
	}
	m.found(payload, t.id, id, stamp, seq, kind)
	t.saw(seq)
	return true
}

// unresolved gives back a block that can't be read, unless what it needs may still be told.
func (r *inRoute) unresolved(rec *shmio.Record, err error) error {
	if isUnknownSegment(err) {
		if err = r.notYet(rec, err); errors.Is(err, errNotYet) {
			return err
		}
	}
	r.r.ReturnRecord(rec)
	return err
}
