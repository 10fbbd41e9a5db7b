// Package tables says which columns the listings of processes, message blocks and topics have.
package tables

import (
	"strconv"
	"time"

	"github.com/bhome-bus/bhome/cmd/internal/listing"
	"github.com/bhome-bus/bhome/cmd/internal/units"
	"github.com/bhome-bus/bhome/node"
)

// The rows of the listings are the protocol's.
type (
	procColumn  = listing.Column[*node.ProcRow]
	msgColumn   = listing.Column[*node.MsgRow]
	topicColumn = listing.Column[*node.TopicRow]
)

func hex(n uint64) string { return strconv.FormatUint(n, 16) }

// stampFormat is RFC 3339 with all digits, so that it sorts as text.
const stampFormat = "2006-01-02T15:04:05.000000000Z"

// Procs lists processes; now is for their ages.
func Procs(now func() time.Time) listing.Listing[*node.ProcRow] {
	return listing.Listing[*node.ProcRow]{
		Name: "procs", Sort: "name",
		ID: func(r *node.ProcRow) string { return r.GetName() },
		Columns: []procColumn{
			{Key: "name", Value: func(r *node.ProcRow) any { return r.GetName() }},
			{Key: "pid", Right: true, Value: func(r *node.ProcRow) any { return r.GetPid() }},
			{Key: "uid", Right: true, Value: func(r *node.ProcRow) any { return r.GetUid() }},
			{Key: "state", Value: func(r *node.ProcRow) any { return r.GetState() }},
			{Key: "since", Right: true,
				Value: func(r *node.ProcRow) any { return time.Unix(0, r.GetSinceUnixNs()).UTC().Format(stampFormat) },
				Text: func(r *node.ProcRow) string {
					return units.HumanAge(now().Sub(time.Unix(0, r.GetSinceUnixNs())))
				}},
			{Key: "session", Right: true, Value: func(r *node.ProcRow) any { return r.GetSession() }, Text: func(r *node.ProcRow) string { return hex(r.GetSession()) }},
			{Key: "proc_index", JSONOnly: true, Value: func(r *node.ProcRow) any { return r.GetProcIndex() }},
			{Key: "segment_bytes", Header: "memory", Right: true, Value: func(r *node.ProcRow) any { return r.GetSegmentBytes() },
				Text: func(r *node.ProcRow) string { return units.HumanBytes(r.GetSegmentBytes()) }},
			{Key: "granted_blocks", Header: "blocks", Right: true, Value: func(r *node.ProcRow) any { return r.GetGrantedBlocks() }},
			{Key: "granted_bytes", Header: "in blocks", Right: true, Value: func(r *node.ProcRow) any { return r.GetGrantedBytes() },
				Text: func(r *node.ProcRow) string { return units.HumanBytes(r.GetGrantedBytes()) }},
			{Key: "routes", Right: true, Value: func(r *node.ProcRow) any { return r.GetRoutes() }},
			{Key: "faults", Right: true, Value: func(r *node.ProcRow) any { return r.GetFaults() }},
			{Key: "sent", Right: true, Claimed: true, Value: func(r *node.ProcRow) any { return r.GetSent() }},
			{Key: "received", Right: true, Claimed: true, Value: func(r *node.ProcRow) any { return r.GetReceived() }},
			{Key: "dropped", Right: true, Claimed: true, Value: func(r *node.ProcRow) any { return r.GetDropped() }},
		},
	}
}

// Msgs lists granted blocks.
func Msgs() listing.Listing[*node.MsgRow] {
	return listing.Listing[*node.MsgRow]{
		Name: "msgs", Sort: "-age_ns",
		ID: func(r *node.MsgRow) string { return hex(r.GetOwnerSession()) + ":" + hex(r.GetId()) },
		Columns: []msgColumn{
			{Key: "id", Right: true, Value: func(r *node.MsgRow) any { return r.GetId() }, Text: func(r *node.MsgRow) string { return hex(r.GetId()) }},
			{Key: "class", Right: true, Value: func(r *node.MsgRow) any { return r.GetClass() }},
			{Key: "class_bytes", Header: "class size", Right: true, Value: func(r *node.MsgRow) any { return r.GetClassBytes() }},
			{Key: "size", Right: true, Claimed: true, Value: func(r *node.MsgRow) any { return r.GetSize() }},
			{Key: "owner", Value: func(r *node.MsgRow) any { return r.GetOwner() }},
			{Key: "owner_session", JSONOnly: true, Value: func(r *node.MsgRow) any { return r.GetOwnerSession() }},
			{Key: "holders", Claimed: true, Value: func(r *node.MsgRow) any { return r.GetHolders() }},
			{Key: "age_ns", Header: "age", Right: true, Value: func(r *node.MsgRow) any { return r.GetAgeNs() },
				Text: func(r *node.MsgRow) string { return units.HumanAge(time.Duration(r.GetAgeNs())) }},
			{Key: "topic", Claimed: true, Value: func(r *node.MsgRow) any { return r.GetTopic() }},
			{Key: "sent_age_ns", Header: "sent", Right: true, Claimed: true, Value: func(r *node.MsgRow) any { return r.GetSentAgeNs() },
				Text: func(r *node.MsgRow) string {
					if r.GetSentAgeNs() == 0 {
						return ""
					}
					return units.HumanAge(time.Duration(r.GetSentAgeNs()))
				}},
		},
	}
}

// MsgTotals is what goes below Msgs.
func MsgTotals(t node.MsgTotals) []listing.Extra {
	return []listing.Extra{
		{Key: "granted_blocks", Value: t.Blocks, Text: units.HumanCount(t.Blocks) + " blocks, " + units.HumanBytes(t.Bytes) +
			" granted, " + units.HumanCount(t.LateFrees) + " late frees"},
		{Key: "granted_bytes", Value: t.Bytes},
		{Key: "late_frees", Value: t.LateFrees},
	}
}

// Topics lists topics and services.
func Topics() listing.Listing[*node.TopicRow] {
	return listing.Listing[*node.TopicRow]{
		Name: "topics", Sort: "topic",
		ID: func(r *node.TopicRow) string { return r.GetTopic() },
		Columns: []topicColumn{
			{Key: "topic", Value: func(r *node.TopicRow) any { return r.GetTopic() }},
			{Key: "kind", Value: func(r *node.TopicRow) any { return r.GetKind() }},
			{Key: "topic_id", JSONOnly: true, Value: func(r *node.TopicRow) any { return r.GetTopicId() }},
			{Key: "publishers", Value: func(r *node.TopicRow) any { return r.GetPublishers() }},
			{Key: "subscribers", Value: func(r *node.TopicRow) any { return r.GetSubscribers() }},
			{Key: "providers", Value: func(r *node.TopicRow) any { return r.GetProviders() }},
			{Key: "rate", Right: true, Claimed: true, Value: func(r *node.TopicRow) any { return r.GetRate() }},
			{Key: "depth", Right: true, Value: func(r *node.TopicRow) any { return r.GetDepth() }},
			{Key: "drops", Right: true, Value: func(r *node.TopicRow) any { return r.GetDrops() }},
			{Key: "sent", Right: true, Claimed: true, Value: func(r *node.TopicRow) any { return r.GetSent() }},
		},
	}
}
