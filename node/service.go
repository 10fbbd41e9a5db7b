package node

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio"
	"github.com/bhome-bus/bhome/wire"
)

// DefaultServeDepth is how many requests of each client may wait.
const DefaultServeDepth = 64

// Handler answers one request. What it returns is copied into the reply; an error, or a panic, reaches the caller typed.
// ctx ends when the caller cancels (with one worker up to 40 ms later), the service closes, or the caller dies. The request is
// the handler's until it returns.
type Handler func(ctx context.Context, req *Request) ([]byte, error)

// Request is what a Handler gets.
type Request struct{ m Message }

// Bytes is the payload, valid until the handler returns; see Message.Bytes.
func (r *Request) Bytes() []byte { return r.m.Bytes() }

// Copy is the payload in the handler's own memory.
func (r *Request) Copy() []byte { return r.m.Copy() }

// Topic is the service's topic.
func (r *Request) Topic() string { return r.m.Topic() }

// Client is the name of the process that asks.
func (r *Request) Client() string { return r.m.Publisher() }

// ServeOption changes how a service works.
type ServeOption func(*serveOptions)

type serveOptions struct {
	workers int
	depth   int
	wait    shmio.WaitStrategy
}

// Workers is how many requests are handled at once: 1 to 1,024; 1 by default.
func Workers(n int) ServeOption { return func(o *serveOptions) { o.workers = n } }

// ServeDepth is how many requests of each client its queue takes: 1 to 4,096; DefaultServeDepth. Twice as many may be
// unanswered; then the client waits.
func ServeDepth(n int) ServeOption { return func(o *serveOptions) { o.depth = n } }

// ServeWait is how the service waits for requests; the node's strategy by default.
func ServeWait(s WaitStrategy) ServeOption { return func(o *serveOptions) { o.wait = s } }

// Service is a topic that this process provides.
type Service struct {
	n       *Node
	topic   string
	handler Handler
	msg     *bhomev1.RegisterRPC
	told    told // under n.mu
	inbox   *shmio.Inbox
	slots   slots
	ctx     context.Context // of the handlers
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	closed  atomic.Bool
	served  atomic.Uint64
	workers int

	handover handover

	mu      sync.Mutex
	routes  map[uint64]*inRoute
	jobs    map[jobKey]*job // waiting or in hand of a worker
	here    *job            // in hand of who receives; nil: none is
	waiting []*job          // in order; of each client at most its share, maxUnanswered
	busy    int             // in hand, of at most workers
	ready   sync.Cond       // one waits and may be taken in hand, or none will any more
	over    bool            // none will
}

// Serve provides topic, an exact one. It returns once clients can find it; Close ends it.
func (n *Node) Serve(ctx context.Context, topic string, h Handler, opts ...ServeOption) (*Service, error) {
	if err := wire.ValidateTopic(topic); err != nil {
		return nil, fmt.Errorf("serve: %w", err)
	}
	o := serveOptions{workers: 1, depth: DefaultServeDepth, wait: n.cfg.Wait}
	for _, f := range opts {
		f(&o)
	}
	if h == nil || o.workers < 1 || o.workers > 1024 || o.depth < 1 || o.depth > 4096 {
		return nil, fmt.Errorf("serve %q: %w: it needs a handler, 1 to 1024 workers (%d) and a depth of 1 to 4096 (%d)", topic, ErrInvalid, o.workers, o.depth)
	}
	s := &Service{n: n, topic: topic, handler: h, inbox: shmio.NewInbox(o.wait), workers: o.workers,
		routes: map[uint64]*inRoute{}, jobs: map[jobKey]*job{}}
	s.slots.n = n
	s.ready.L = &s.mu
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.msg = &bhomev1.RegisterRPC{Service: n.sinkSeq.Add(1), Topic: topic, Depth: uint32(o.depth),
		// Never reached by clients that keep to their share, or a cancellation would be stuck behind what waits for a worker:
		// besides the share there are handlers that go on though their callers have given up.
		Hold: uint32(maxUnanswered(o.depth) + o.workers + 1)}
	if err := n.addSink(s.msg.Service, s); err != nil {
		return nil, fmt.Errorf("serve %q: %w", topic, err)
	}
	s.handover.timer = time.AfterFunc(time.Hour, s.watch)
	s.handover.timer.Stop()
	s.wg.Go(s.receive)
	for range o.workers {
		s.wg.Go(s.worker)
	}
	if err := n.tell(ctx, &s.told, func(lk *link) error { return s.register(ctx, lk) }); err != nil {
		s.shut()
		return nil, fmt.Errorf("serve %q: %w", topic, err)
	}
	return s, nil
}

func (s *Service) register(ctx context.Context, lk *link) error {
	return lk.callInto(ctx, upBus, wire.SocketServer, bhomev1.MsgType_MSG_TYPE_REGISTER_RPC, s.msg, &bhomev1.CommonReply{}, s.topic)
}

// Topic is what is served.
func (s *Service) Topic() string { return s.topic }

// Served counts the requests answered.
func (s *Service) Served() uint64 { return s.served.Load() }

func (s *Service) handle(j *job) {
	out, err := s.invoke(j)
	s.served.Add(1)
	s.handled(j)
	if err == nil {
		if err = s.n.replyTo(j.route, j.key.corr, wire.KindReply, out); err == nil {
			return
		}
		err = fmt.Errorf("its reply of %d bytes can't be sent: %w", len(out), err)
	}
	if !errors.Is(err, errRouteOver) {
		err = s.n.replyTo(j.route, j.key.corr, wire.KindErrorReply, s.errorReply(j, err))
	}
	if err != nil && !errors.Is(err, errRouteOver) { // there may be no memory for its text
		err = s.n.replyTo(j.route, j.key.corr, wire.KindErrorReply, nil)
	}
	if err != nil {
		s.n.log.Debug("a reply was not sent", "service", s.topic, "client", j.route.peer.name, "error", err)
	}
}

// invoke runs the handler; a panic becomes an error with its stack in the log.
func (s *Service) invoke(j *job) (out []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			s.n.log.Error("a handler panicked", "service", s.topic, "panic", p, "stack", string(debug.Stack()))
			err = &HandlerError{Topic: s.topic, Message: fmt.Sprint(p), Panic: true}
		}
	}()
	return s.handler(&j.ctx, &j.req)
}

// maxErrorText bounds what of a handler's error travels.
const maxErrorText = 4 << 10

func (s *Service) errorReply(j *job, err error) []byte {
	m := &bhomev1.ErrorMsg{Code: bhomev1.ErrorCode_ERROR_CODE_HANDLER, Message: err.Error()}
	var he *HandlerError
	switch {
	case errors.As(err, &he) && he.Panic:
		m.Code, m.Message = bhomev1.ErrorCode_ERROR_CODE_HANDLER_PANIC, he.Message
	case errors.Is(j.ctx.why(), ErrCancelled):
		m.Code = bhomev1.ErrorCode_ERROR_CODE_CANCELLED
	}
	if len(m.Message) > maxErrorText {
		m.Message = m.Message[:maxErrorText]
	}
	m.Message = validText(m.Message)
	b, err := proto.Marshal(m)
	if err != nil {
		return nil // the caller learns at least that it failed
	}
	return b
}

// replyTo sends an answer to a request that came on r. If there is no room it waits in the route's pending list.
func (n *Node) replyTo(r *inRoute, corr uint64, kind wire.Kind, payload []byte) error {
	find := func() *outRoute {
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.replyRoutes[replyKey{r.peer.session, r.open.GetReplyAccess()}]
	}
	o := r.replies.Load()
	if o == nil || o.hasEnded() {
		o = find()
		r.replies.Store(o)
	}
	if o == nil {
		// The client's route came to us before our route to it: that is on the socket. Or the client is gone.
		if err := n.awaitSocket(func() bool { o = find(); return o != nil || r.gone.Load() || r.ended.Load() }, errRouteOver); err != nil {
			return err
		}
		if o == nil {
			return errRouteOver
		}
	}
	n.life.RLock()
	defer n.life.RUnlock()
	if n.torn {
		return n.whyClosed()
	}
	m, err := n.dataMessage(context.Background(), payload, o, wire.SocketServer, wire.Header{Kind: kind, ID: corr})
	if err != nil {
		return err
	}
	o.pending.send(m, nil)
	return nil
}

// dataMessage makes what carries payload over o: inline if it fits, else a block whose one reference is the caller's. Of h it
// takes kind, id (the correlation id) and topic.
func (n *Node) dataMessage(ctx context.Context, payload []byte, o *outRoute, socket wire.Socket, h wire.Header) (message, error) {
	now := n.clock.stamp(n, 0)
	if len(payload)+8 <= o.inline {
		return message{payload: payload, in: wire.Inline{Len: len(payload), Kind: h.Kind, Topic: h.Topic, Stamp: uint32(now / 1e6), HasCorr: true, Corr: h.ID}}, nil
	}
	class, err := n.classOf(len(payload))
	if err != nil {
		return message{}, err
	}
	b, err := n.mag.get(ctx, o.group, class, socket)
	if err != nil {
		return message{}, fmt.Errorf("a block for %d bytes: %w", len(payload), err)
	}
	b.fill(payload, 1)
	h.Size, h.Stamp, h.Publisher, h.Socket = uint32(len(payload)), now, n.publisherID(), uint8(socket)
	b.putHeader(&h)
	return message{b: b, held: 1}, nil
}

// Close ends the service: no new requests; those in hand see their context end and are answered.
func (s *Service) Close(ctx context.Context) error {
	var err error
	if lk := s.n.link.Load(); lk != nil && !s.closed.Load() {
		if err = lk.settle(ctx); err == nil {
			err = lk.callInto(ctx, upBus, wire.SocketServer, bhomev1.MsgType_MSG_TYPE_UNREGISTER_RPC,
				&bhomev1.UnregisterRPC{Service: s.msg.GetService()}, &bhomev1.CommonReply{}, s.topic)
		}
		if errors.Is(err, ErrDisconnected) || s.closed.Load() { // by another Close, or the node's
			err = nil
		}
	}
	s.shut()
	if err != nil {
		return fmt.Errorf("stop serving %q: %w", s.topic, err)
	}
	return nil
}

// shut is Close within this process. It waits for the handlers, whoever else does: the node's memory goes after it.
func (s *Service) shut() {
	if !s.closed.CompareAndSwap(false, true) {
		s.wg.Wait()
		return
	}
	s.cancel()
	s.inbox.Close()
	s.wg.Wait()
	s.handover.timer.Stop()
	s.n.removeSink(s.msg.GetService()) // not before: the node waits for those that it finds there
	s.mu.Lock()
	routes := make([]*inRoute, 0, len(s.routes))
	for _, r := range s.routes {
		routes = append(routes, r)
	}
	s.mu.Unlock()
	for _, r := range routes {
		r.abandon()
	}
}

func (s *Service) queue() *shmio.Inbox { return s.inbox }

func (s *Service) places() *slots { return &s.slots }

func (s *Service) received() uint64 { return s.served.Load() }

// refused answers a request that came when nobody takes requests any more.
func (s *Service) refused(r *inRoute, m *received) {
	if m.rec.Head.Kind() == wire.KindRequest {
		s.refuse(r, m.rec.Corr, bhomev1.ErrorCode_ERROR_CODE_NO_PROVIDER, closedBefore)
	}
}

const closedBefore = "the service was closed before it took the request"

// refuse answers a request that no handler has seen.
func (s *Service) refuse(r *inRoute, corr uint64, code bhomev1.ErrorCode, why string) {
	b, err := proto.Marshal(&bhomev1.ErrorMsg{Code: code, Message: why})
	if err == nil {
		err = s.n.replyTo(r, corr, wire.KindErrorReply, b)
	}
	if err != nil {
		s.n.log.Debug("a refusal was not sent", "service", s.topic, "client", r.peer.name, "error", err)
	}
}

func (s *Service) routeAdded(r *inRoute) {
	s.mu.Lock()
	s.routes[r.id] = r
	s.mu.Unlock()
	if s.closed.Load() {
		r.abandon()
	}
}

// routeOver hears that a client is gone: its requests in hand are cancelled.
func (s *Service) routeOver(r *inRoute) {
	s.mu.Lock()
	if s.routes[r.id] == r {
		delete(s.routes, r.id)
	}
	var keys []jobKey
	if r.gone.Load() {
		for k := range s.jobs {
			if k.session == r.peer.session {
				keys = append(keys, k)
			}
		}
		if s.here != nil && s.here.key.session == r.peer.session {
			keys = append(keys, s.here.key)
		}
	}
	s.mu.Unlock()
	for _, k := range keys {
		s.cancelJob(k, errCallerGone)
	}
}
