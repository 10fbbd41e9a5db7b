package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/wire"
)

// The rows of the listings are the protocol's own messages; fields that are a node's word say so there.
type (
	ProcRow    = bhomev1.ProcRow
	MsgRow     = bhomev1.MsgRow
	TopicRow   = bhomev1.TopicRow
	FaultRow   = bhomev1.FaultRow
	Provider   = bhomev1.Provider
	CenterInfo = bhomev1.QueryCenterReply
)

// MsgTotals are the sums over all granted blocks.
type MsgTotals struct {
	Blocks, Bytes, LateFrees uint64
}

type answer interface {
	proto.Message
	GetErrmsg() *bhomev1.ErrorMsg
}

func (n *Node) query(ctx context.Context, typ bhomev1.MsgType, body proto.Message, reply answer) error {
	for {
		lk, err := n.awaitReady(ctx)
		if err != nil {
			return err
		}
		err = lk.callInto(ctx, upCenter, wire.SocketClient, typ, body, reply, n.Name())
		if !errors.Is(err, ErrDisconnected) || n.cfg.NoReconnect {
			return err
		}
	}
}

// Procs lists the processes that the center knows.
func (n *Node) Procs(ctx context.Context) ([]*ProcRow, error) {
	var rows []*ProcRow
	for offset := uint64(0); ; {
		var r bhomev1.QueryProcsReply
		if err := n.query(ctx, bhomev1.MsgType_MSG_TYPE_QUERY_PROCS, &bhomev1.QueryProcs{Offset: offset}, &r); err != nil {
			return nil, fmt.Errorf("query procs: %w", err)
		}
		rows = append(rows, r.GetProcs()...)
		if offset = r.GetNext(); offset == 0 {
			return rows, nil
		}
	}
}

// Msgs lists the granted blocks. The list is made page by page: blocks come and go meanwhile.
func (n *Node) Msgs(ctx context.Context) ([]*MsgRow, MsgTotals, error) {
	var rows []*MsgRow
	for offset := uint64(0); ; {
		var r bhomev1.QueryMsgsReply
		if err := n.query(ctx, bhomev1.MsgType_MSG_TYPE_QUERY_MSGS, &bhomev1.QueryMsgs{Offset: offset}, &r); err != nil {
			return nil, MsgTotals{}, fmt.Errorf("query msgs: %w", err)
		}
		rows = append(rows, r.GetMsgs()...)
		if offset = r.GetNext(); offset == 0 {
			return rows, MsgTotals{Blocks: r.GetGrantedBlocks(), Bytes: r.GetGrantedBytes(), LateFrees: r.GetLateFrees()}, nil
		}
	}
}

// Topics lists the topics and services.
func (n *Node) Topics(ctx context.Context) ([]*TopicRow, error) {
	var rows []*TopicRow
	for offset := uint64(0); ; {
		var r bhomev1.QueryTopicsReply
		if err := n.query(ctx, bhomev1.MsgType_MSG_TYPE_QUERY_TOPICS, &bhomev1.QueryTopics{Offset: offset}, &r); err != nil {
			return nil, fmt.Errorf("query topics: %w", err)
		}
		rows = append(rows, r.GetTopics()...)
		if offset = r.GetNext(); offset == 0 {
			return rows, nil
		}
	}
}

// Center tells about the daemon: its bus, pid, counters and limits.
func (n *Node) Center(ctx context.Context) (*CenterInfo, error) {
	var r bhomev1.QueryCenterReply
	if err := n.query(ctx, bhomev1.MsgType_MSG_TYPE_QUERY_CENTER, &bhomev1.QueryCenter{}, &r); err != nil {
		return nil, fmt.Errorf("query the center: %w", err)
	}
	return &r, nil
}

// Check is what a check of the bus has found.
type Check struct {
	Faults  []*FaultRow       // none: the bus is clean
	Looks   int               // how often the center has looked: what passed between two looks isn't wrong
	Checked map[string]uint64 // how many of what it looked at
}

// Check has the center check its records, the words in the nodes' memory and its own descriptors. That takes milliseconds
// where all is well, and up to some seconds where something is suspected: only what stays so is a fault. The bus isn't held
// up by it.
func (n *Node) Check(ctx context.Context) (*Check, error) {
	c := &Check{}
	for offset := uint64(0); ; {
		var r bhomev1.QueryFaultsReply
		if err := n.query(ctx, bhomev1.MsgType_MSG_TYPE_QUERY_FAULTS, &bhomev1.QueryFaults{Offset: offset}, &r); err != nil {
			return nil, fmt.Errorf("check the bus: %w", err)
		}
		c.Faults = append(c.Faults, r.GetFaults()...)
		c.Looks, c.Checked = int(r.GetLooks()), r.GetChecked()
		if offset = r.GetNext(); offset == 0 {
			return c, nil
		}
	}
}

// providerCacheAge is how old an answer of Providers may be.
const providerCacheAge = time.Second

// providerCache remembers who provides what for a moment (the seed's TopicQueryCache).
type providerCache struct {
	mu      sync.Mutex
	entries map[string]cachedProviders
}

type cachedProviders struct {
	at   time.Time
	rows []*Provider
}

// Providers lists who serves topic; an answer may be a second old.
func (n *Node) Providers(ctx context.Context, topic string) ([]*Provider, error) {
	n.providers.mu.Lock()
	e, ok := n.providers.entries[topic]
	n.providers.mu.Unlock()
	if ok && time.Since(e.at) < providerCacheAge {
		return e.rows, nil
	}
	var r bhomev1.QueryTopicReply
	if err := n.query(ctx, bhomev1.MsgType_MSG_TYPE_QUERY_TOPIC, &bhomev1.QueryTopic{Topic: topic}, &r); err != nil {
		return nil, fmt.Errorf("query the providers of %q: %w", topic, err)
	}
	n.providers.mu.Lock()
	defer n.providers.mu.Unlock()
	if len(n.providers.entries) >= 1024 || n.providers.entries == nil {
		n.providers.entries = map[string]cachedProviders{}
	}
	n.providers.entries[topic] = cachedProviders{time.Now(), r.GetProviders()}
	return r.GetProviders(), nil
}

// CenterRequest asks the program that embeds the center: typ is one of its own message types, 1000 or above. It returns
// the type and body of the answer.
func (n *Node) CenterRequest(ctx context.Context, typ uint32, body []byte) (uint32, []byte, error) {
	if typ < uint32(bhomev1.MsgType_MSG_TYPE_USER) {
		return 0, nil, fmt.Errorf("ask the embedding program: %w: message type %d is bhome's own; yours begin at 1000", ErrInvalid, typ)
	}
	lk, err := n.awaitReady(ctx)
	if err != nil {
		return 0, nil, err
	}
	r, err := lk.callRaw(ctx, upCenter, wire.SocketClient, typ, body, nil)
	if err != nil {
		return 0, nil, err
	}
	if r.typ == uint32(bhomev1.MsgType_MSG_TYPE_COMMON_REPLY) {
		return r.typ, nil, r.into(&bhomev1.CommonReply{}, n.Name())
	}
	return r.typ, r.body, nil
}
