package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio"
	"github.com/bhome-bus/bhome/wire"
)

// PubOption changes how a publisher sends.
type PubOption func(*bhomev1.Advertise)

// Keep keeps the last n messages (0 to 65,536) for subscribers that come late and ask for History. Their memory stays
// this node's, and is charged to it.
func Keep(n int) PubOption { return func(a *bhomev1.Advertise) { a.Keep = uint32(max(n, 0)) } }

// AllowBlock lets subscribers with the policy Block hold up a Send for d at most; 0, the default: not at all, they lose
// what finds their queue full.
func AllowBlock(d time.Duration) PubOption {
	return func(a *bhomev1.Advertise) { a.BlockNs = int64(max(d, 0)) }
}

// topicPub is one topic that this process publishes; the Publishers of it share the sequence and the routes.
type topicPub struct {
	n      *Node
	topic  string
	routes atomic.Pointer[[]*outRoute] // copied on write under n.mu; pairs with send's load
	adv    atomic.Pointer[advertised]  // replaced whole; pairs with the loads of who sends

	mu         sync.Mutex            // sends, in order
	closed     bool                  // the node is
	disallowed atomic.Pointer[error] // by a center that came later; pairs with who sends
	seq        uint64
	history    []*block
	lent       *lent         // what is being sent of a batch; made at the first
	askFrom    atomic.Uint64 // when the center may be asked for a block to share again; ns of CLOCK_MONOTONIC_COARSE. Pairs with askShared
	asksShared atomic.Bool   // askShared waits for the center; pairs with it
	behind     []behind      // the routes that had no room for what is being sent; empty in between

	users     int         // Publishers; under n.mu
	told      told        // under n.mu
	dueRoutes []*outRoute // wait for the history; under n.mu
	due       atomic.Bool // dueRoutes isn't empty; stored before routes, pairs with send's load after it
	keeps     atomic.Bool // Keep(n): everything goes in blocks
}

// advertised is what the center was told last, and the id that it has given the topic.
type advertised struct {
	*bhomev1.Advertise
	id    uint32
	group *blockGroup
}

// group is where the topic's blocks are from.
func (tp *topicPub) group() *blockGroup { return tp.adv.Load().group }

// Publisher publishes on one topic. Safe for concurrent use; each goroutine's messages keep their order.
type Publisher struct {
	*topicPub
	closed atomic.Bool
}

// topicPub finds or makes the record of a topic; n.mu is held.
func (n *Node) topicPub(topic string) *topicPub {
	tp := n.pubs[topic]
	if tp == nil {
		tp = &topicPub{n: n, topic: topic}
		tp.routes.Store(&[]*outRoute{})
		n.pubs[topic] = tp
	}
	return tp
}

// Publisher announces that this process publishes on topic, an exact one of at most 255 bytes. Close it when done.
func (n *Node) Publisher(ctx context.Context, topic string, opts ...PubOption) (*Publisher, error) {
	if err := wire.ValidateTopic(topic); err != nil {
		return nil, fmt.Errorf("publish: %w", err)
	}
	adv := &bhomev1.Advertise{Topic: topic}
	for _, f := range opts {
		f(adv)
	}
	if adv.Keep > 65536 {
		return nil, fmt.Errorf("publish on %q: %w: Keep(%d), at most 65536", topic, ErrInvalid, adv.Keep)
	}
	n.mu.Lock()
	tp := n.topicPub(topic)
	tp.users++
	n.mu.Unlock()
	if err := n.tell(ctx, &tp.told, func(lk *link) error { return tp.advertise(ctx, lk, adv) }); err != nil {
		n.dropPub(tp)
		return nil, fmt.Errorf("publish on %q: %w", topic, err)
	}
	return &Publisher{topicPub: tp}, nil
}

func (tp *topicPub) advertise(ctx context.Context, lk *link, adv *bhomev1.Advertise) error {
	var r bhomev1.AdvertiseReply
	if err := lk.callInto(ctx, upBus, wire.SocketNode, bhomev1.MsgType_MSG_TYPE_ADVERTISE, adv, &r, tp.topic); err != nil {
		return err
	}
	// Not under mu: a publisher may be waiting for room, and must not keep its node from the center.
	tp.adv.Store(&advertised{Advertise: adv, id: r.GetTopicId(), group: tp.n.mag.group(r.GetAccess())})
	tp.keeps.Store(adv.GetKeep() > 0)
	tp.disallowed.Store(nil)
	return nil
}

// addRoute lets the topic's messages go to o; n.mu is held. The id is the center's, the same for all routes.
func (tp *topicPub) addRoute(o *outRoute, _ uint32) {
	old := *tp.routes.Load()
	for _, have := range old {
		if have == o {
			return
		}
	}
	if o.open.GetHistory() {
		tp.dueRoutes = append(tp.dueRoutes, o)
		tp.due.Store(true)
	}
	routes := append(append(make([]*outRoute, 0, len(old)+1), old...), o)
	tp.routes.Store(&routes)
}

// removeRoute is addRoute's opposite; n.mu is held.
func (tp *topicPub) removeRoute(o *outRoute) {
	old := *tp.routes.Load()
	routes := make([]*outRoute, 0, len(old))
	for _, have := range old {
		if have != o {
			routes = append(routes, have)
		}
	}
	tp.routes.Store(&routes)
}

// Topic is what this publishes on.
func (p *Publisher) Topic() string { return p.topic }

// Subscribers is how many subscriptions get the messages now.
func (p *Publisher) Subscribers() int { return len(*p.routes.Load()) }

// WaitForSubscribers waits until at least k subscriptions get the messages, and their processes have their ends of the routes.
func (p *Publisher) WaitForSubscribers(ctx context.Context, k int) error {
	for {
		c := p.n.changed.C()
		there := 0
		for _, o := range *p.routes.Load() {
			if o.joined() {
				there++
			}
		}
		if there >= k {
			return nil
		}
		select {
		case <-c:
		case <-ctx.Done():
			return fmt.Errorf("wait for %d subscribers of %q (%d are joined): %w", k, p.topic, there, context.Cause(ctx))
		case <-p.n.closing:
			return fmt.Errorf("wait for subscribers of %q: %w", p.topic, p.n.whyClosed())
		}
	}
}

// Loan takes a block for a message of size bytes, 0 to the bus's limit. Its bytes are what they are: fill them. It waits
// for the center only if the magazine is empty.
func (p *Publisher) Loan(ctx context.Context, size int) (Loan, error) {
	if p.closed.Load() {
		return Loan{}, fmt.Errorf("loan on %q: %w", p.topic, ErrClosed)
	}
	class, err := p.n.classOf(size)
	if err != nil {
		return Loan{}, fmt.Errorf("loan on %q: %w", p.topic, err)
	}
	p.recycle(size)
	b, err := p.n.mag.get(ctx, p.group(), class, wire.SocketNode)
	if err != nil {
		return Loan{}, fmt.Errorf("loan of %d bytes on %q: %w", size, p.topic, err)
	}
	p.n.stats.loans.Add(1)
	return b.loan(size), nil
}

// recycle takes back what readers have returned: the block that comes back is the one the caches know.
func (tp *topicPub) recycle(size int) {
	if size < hotBlock {
		return
	}
	for _, o := range *tp.routes.Load() {
		o.mu.Lock()
		if !o.over && o.w.Out() > 0 {
			_ = o.reclaim() // it has cut the route and said so
		}
		o.mu.Unlock()
	}
}

// hotBlock is from how many bytes on it pays to take back what readers returned before each loan.
const hotBlock = 16 << 10

// classOf is the size class of a payload.
func (n *Node) classOf(size int) (uint8, error) {
	if limit := n.maxMessage.Load(); size < 0 || uint64(size) > limit {
		return 0, &LimitError{Limit: "max_message", Whose: "bus", InUse: uint64(max(size, 0)), Max: limit,
			Message: "split the message or raise the daemon's limit", kind: ErrTooLarge}
	}
	class := wire.CalcAllocIndex(int64(size))
	if class < 0 {
		return 0, fmt.Errorf("%d bytes: %w", size, ErrTooLarge)
	}
	return uint8(class), nil
}

// Send publishes a loan, zero-copy; the loan is no longer the caller's, whatever is returned. Subscribers whose queue is full
// are served by their policy. ErrFull: a Block subscriber that this publisher consents to wait for had no room in time;
// all others have the message.
func (p *Publisher) Send(ctx context.Context, l Loan) error {
	if !l.take() {
		return l.misuse("send")
	}
	m := message{b: l.b, held: 1}
	if l.b.group.mag.n != p.n {
		m.release()
		return fmt.Errorf("send on %q: %w: the loan is another node's", p.topic, ErrInvalid)
	}
	if l.b.group != p.group() { // another topic's, that others may read
		c := message{payload: l.b.mem[wire.HeaderSize : wire.HeaderSize+l.b.size]}
		err := p.blockOf(ctx, c.payload, &c)
		m.release()
		if err != nil {
			return err
		}
		return p.send(ctx, &c)
	}
	return p.send(ctx, &m)
}

// Publish copies payload and publishes it. See Send.
func (p *Publisher) Publish(ctx context.Context, payload []byte) error {
	if len(payload) <= p.inlineLimit(*p.routes.Load()) {
		return p.send(ctx, &message{payload: payload})
	}
	if p.closed.Load() {
		return fmt.Errorf("send on %q: %w", p.topic, ErrClosed)
	}
	p.recycle(len(payload))
	var m message
	if err := p.blockOf(ctx, payload, &m); err != nil {
		return err
	}
	return p.send(ctx, &m)
}

// inlineLimit is how many bytes may go inline over all routes; -1: not even none.
func (tp *topicPub) inlineLimit(routes []*outRoute) int {
	if tp.keeps.Load() {
		return -1
	}
	limit := wire.MaxInline
	for _, o := range routes {
		limit = min(limit, o.inline)
	}
	return limit
}

// send numbers a message and pushes it to every route. It takes over the caller's reference to a block.
func (p *Publisher) send(ctx context.Context, m *message) error {
	routes, err := p.begin(ctx)
	if err != nil {
		m.release()
		return err
	}
	tp := p.topicPub
	defer tp.unlock()
	if m.b == nil && len(m.payload) > p.inlineLimit(routes) { // a route that came just now takes less
		if err := tp.blockOf(ctx, m.payload, m); err != nil {
			return err
		}
	}
	tp.number(m, tp.n.clock.stamp(tp.n, tp.seq))
	takers := tp.takers(routes)
	m.reserve(takers)
	var full error
	rest := tp.behind[:0]
	for _, o := range routes {
		out, err := o.push(m, false)
		switch {
		case err == nil && out != shmio.Full:
		case errors.Is(err, errRouteOver):
		case err == nil, errors.Is(err, errOtherGroup):
			rest = append(rest, behind{o: o})
		default:
			full = errors.Join(full, err)
		}
	}
	if len(rest) > 0 {
		tp.behind = rest
		for _, r := range rest {
			if err := tp.pushWaiting(ctx, r.o, m); err != nil {
				full = errors.Join(full, err)
			}
		}
		clear(rest)
	}
	m.sent(tp, takers, len(routes))
	if full != nil {
		return fmt.Errorf("send on %q: %w", tp.topic, full)
	}
	return nil
}

// begin starts a send: it returns with tp.mu held, and the routes that get what is sent now.
func (p *Publisher) begin(ctx context.Context) ([]*outRoute, error) {
	tp := p.topicPub
	n := tp.n
	if p.closed.Load() {
		return nil, fmt.Errorf("send on %q: %w", tp.topic, ErrClosed)
	}
	tp.mu.Lock()
	if tp.closed || n.Err() != nil {
		tp.unlock()
		return nil, fmt.Errorf("send on %q: %w", tp.topic, n.whyClosed())
	}
	if why := tp.disallowed.Load(); why != nil {
		tp.unlock()
		return nil, fmt.Errorf("send on %q: %w", tp.topic, *why)
	}
	// What the center told before now is adopted before this message goes: whoever's Subscribe has returned gets it.
	if lk := n.link.Load(); lk != nil && !lk.current() {
		if err := lk.adopt(ctx); err != nil {
			tp.unlock()
			return nil, fmt.Errorf("send on %q: adopt routes: %w", tp.topic, err)
		}
	}
	routes := *tp.routes.Load()
	for tp.due.Load() {
		tp.serveHistory()
		routes = *tp.routes.Load()
	}
	return routes, nil
}

// pushCopy pushes a message to a route of another access group than its block's: the rules have changed with a new center,
// which has not yet said so of the topic. tp.mu is held.
func (tp *topicPub) pushCopy(ctx context.Context, o *outRoute, m *message) error {
	mem := m.b.mem
	if m.run != nil {
		mem = mem[m.b.offset(m.run[0].Word.Alone()):]
	}
	var h wire.Header
	if err := h.Decode(mem); err != nil {
		panic(fmt.Sprintf("bhome: header of an own block: %v", err)) // number has made it
	}
	size := int(h.Size)
	class, err := tp.n.classOf(size)
	if err != nil {
		return err
	}
	b, err := tp.n.mag.get(ctx, o.group, class, wire.SocketNode)
	if err != nil {
		return fmt.Errorf("a block of access group %q: %w", o.group.access, err)
	}
	c := message{b: b, held: 1}
	b.fill(mem[wire.HeaderSize:wire.HeaderSize+size], 1)
	h.ID = blockID(b)
	b.putHeader(&h)
	defer c.release()
	out, err := o.push(&c, false)
	if err == nil && out == shmio.Full {
		err = tp.block(ctx, o, &c)
	}
	return err
}

// number gives a message its place in the topic's sequence; tp.mu is held.
func (tp *topicPub) number(m *message, now uint64) {
	if m.b != nil {
		h := tp.header(now)
		tp.numberBlock(m.b, &h)
	} else {
		tp.seq++
		m.in = tp.inline(tp.seq, now)
	}
}

// inline is the head of a message that is sent now and goes inline.
func (tp *topicPub) inline(seq, now uint64) wire.Inline {
	return wire.Inline{Kind: wire.KindPublish, Topic: tp.adv.Load().id, Seq: uint32(seq), Stamp: uint32(now / 1e6)}
}

// header is what the headers of all messages that are sent now have.
func (tp *topicPub) header(now uint64) wire.Header {
	return wire.Header{Tag: wire.BlockTag, Stamp: now, Topic: tp.adv.Load().id, Publisher: tp.n.publisherID()}
}

// numberBlock is number for a block; h, of header, is its header then.
func (tp *topicPub) numberBlock(b *block, h *wire.Header) {
	tp.seq++
	h.Size, h.ID, h.Seq = uint32(b.size), blockID(b), tp.seq
	b.putHeader(h)
}

// block waits for room at a Block subscriber, as long as the publisher consents to.
func (tp *topicPub) block(ctx context.Context, o *outRoute, m *message) error {
	consent := time.Duration(tp.adv.Load().GetBlockNs())
	if consent <= 0 {
		o.countDrop()
		return nil
	}
	err := o.wait(ctx, m, consent)
	if err == nil || errors.Is(err, errRouteOver) {
		return nil
	}
	o.countDrop()
	if errors.Is(err, errConsent) {
		return fmt.Errorf("%w: %q has not made room for %v", ErrFull, o.peer.name, consent)
	}
	return fmt.Errorf("%w: %q has not made room: %w", ErrFull, o.peer.name, err)
}

var errConsent = errors.New("the publisher's consent to wait is used up")

// blockOf makes m a message of a block with a copy of payload, which is the caller's to send or release.
func (tp *topicPub) blockOf(ctx context.Context, payload []byte, m *message) error {
	class, err := tp.n.classOf(len(payload))
	if err != nil {
		return err
	}
	b, err := tp.n.mag.get(ctx, tp.group(), class, wire.SocketNode)
	if err != nil {
		return fmt.Errorf("a block for %d bytes on %q: %w", len(payload), tp.topic, err)
	}
	tp.n.stats.loans.Add(1)
	m.fill(b, payload, tp.takers(*tp.routes.Load())) // as far as is known now
	return nil
}

// fill makes m a message of b, with references for so many takers. In place: see wire.Header.Decode.
func (m *message) fill(b *block, payload []byte, takers int) {
	m.b, m.held, m.payload = b, int32(max(1, takers)), nil
	b.fill(payload, m.held)
}

// Close ends the publishing: what was sent is still delivered; kept history is gone.
func (p *Publisher) Close(ctx context.Context) error {
	if !p.closed.CompareAndSwap(false, true) {
		return nil
	}
	n := p.n
	if !n.dropPub(p.topicPub) {
		return nil
	}
	p.mu.Lock()
	p.forget()
	p.mu.Unlock()
	lk := n.link.Load()
	if lk == nil {
		return nil
	}
	err := lk.settle(ctx)
	if err == nil {
		err = lk.callInto(ctx, upBus, wire.SocketNode, bhomev1.MsgType_MSG_TYPE_UNADVERTISE, &bhomev1.Unadvertise{Topic: p.topic},
			&bhomev1.CommonReply{}, p.topic)
	}
	if err != nil && !errors.Is(err, ErrDisconnected) {
		return fmt.Errorf("stop publishing on %q: %w", p.topic, err)
	}
	return nil
}

// dropPub takes one user from a topic; true if it was the last.
func (n *Node) dropPub(tp *topicPub) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	tp.users--
	if tp.users > 0 {
		return false
	}
	if n.pubs[tp.topic] == tp {
		delete(n.pubs, tp.topic)
	}
	return true
}
