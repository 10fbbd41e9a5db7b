package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio"
	"github.com/bhome-bus/bhome/wire"
)

// serviceClient is this process as a client of one service: the routes to its providers.
type serviceClient struct {
	n      *Node
	topic  string
	routes atomic.Pointer[[]clientRoute] // copied on write under n.mu; pairs with pick's load
	next   atomic.Uint64

	connectMu sync.Mutex
	connected atomic.Pointer[link] // the link on which the center knows that we are a client
}

type clientRoute struct {
	o       *outRoute
	topicID uint32
}

// serviceClient finds or makes the record of a service; n.mu is held.
func (n *Node) serviceClient(topic string) *serviceClient {
	sc := n.clients[topic]
	if sc == nil {
		sc = &serviceClient{n: n, topic: topic}
		sc.routes.Store(&[]clientRoute{})
		n.clients[topic] = sc
	}
	return sc
}

// addRoute and removeRoute are called with n.mu held.
func (sc *serviceClient) addRoute(o *outRoute, id uint32) {
	old := *sc.routes.Load()
	routes := append(append(make([]clientRoute, 0, len(old)+1), old...), clientRoute{o, id})
	sc.routes.Store(&routes)
}

func (sc *serviceClient) removeRoute(o *outRoute) {
	var routes []clientRoute
	for _, r := range *sc.routes.Load() {
		if r.o != o {
			routes = append(routes, r)
		}
	}
	sc.routes.Store(&routes)
}

// connect makes the center open routes to the providers, once per link. It returns the link whose routes have to be adopted before
// one is picked; nil: there is none now, but there are routes that go on.
func (sc *serviceClient) connect(ctx context.Context) (*link, error) {
	if lk := sc.n.readyLink(); lk != nil && sc.connected.Load() == lk {
		return lk, nil
	}
	if len(*sc.routes.Load()) > 0 && sc.n.readyLink() == nil {
		return nil, nil
	}
	sc.connectMu.Lock()
	defer sc.connectMu.Unlock()
	lk, err := sc.n.awaitReady(ctx)
	if err != nil {
		return nil, err
	}
	if sc.connected.Load() == lk {
		return lk, nil
	}
	var r bhomev1.ConnectServiceReply
	if err := lk.callInto(ctx, upBus, wire.SocketClient, bhomev1.MsgType_MSG_TYPE_CONNECT_SERVICE,
		&bhomev1.ConnectService{Topic: sc.topic}, &r, sc.topic); err != nil {
		return nil, err
	}
	sc.connected.Store(lk)
	return lk, nil
}

// known is connect and adopt.
func (sc *serviceClient) known(ctx context.Context) error {
	lk, err := sc.connect(ctx)
	if err != nil {
		return err
	}
	sc.n.life.RLock()
	defer sc.n.life.RUnlock()
	return sc.adopt(ctx, lk)
}

// adopt waits until the routes that lk's center told of are there; lk may be nil. n.life is held, for reading.
func (sc *serviceClient) adopt(ctx context.Context, lk *link) error {
	switch {
	case sc.n.Err() != nil:
		return sc.n.whyClosed()
	case lk == nil || lk.current():
		return nil
	}
	return lk.adopt(ctx)
}

// pick takes the providers in turn.
func (sc *serviceClient) pick() (clientRoute, bool) {
	routes := *sc.routes.Load()
	switch len(routes) {
	case 0:
		return clientRoute{}, false
	case 1:
		return routes[0], true
	}
	return routes[sc.next.Add(1)%uint64(len(routes))], true
}

// pendingCall is one request whose reply is awaited. Its end is told once.
type pendingCall struct {
	o     *outRoute // to the provider; the call has a place in its calls
	topic *string
	done  func(*Reply, error) // of a call for which nobody waits in await; else nil:
	came  chan replied        // holds one
}

// finish tells how the call ended. The caller has taken it out of the calls, and doesn't use it any more.
func (c *pendingCall) finish(a replied) {
	if c.done != nil {
		c.done(a.r, a.err)
	} else {
		c.came <- a
	}
}

func (c *pendingCall) session() uint64 { return c.o.peer.session }

// over gives the call's place to another; the provider counts it as answered, or soon will.
func (c *pendingCall) over() { c.o.calls.leave() }

// begin takes a place for a request, waiting until there is one.
func (o *outRoute) begin(ctx context.Context) error {
	if o.calls.try() {
		return nil
	}
	defer o.calls.done()
	if o.calls.await() {
		return nil
	}
	select {
	case <-o.calls.handed:
		return nil
	case <-o.ended:
		return errRouteOver
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-o.n.closing:
		return o.n.whyClosed()
	}
}

// Reply is an answer, the caller's until Release.
type Reply struct{ m Message }

// Bytes is the payload, valid until Release; see Message.Bytes.
func (r *Reply) Bytes() []byte { return r.m.Bytes() }

// Copy is the payload in memory of the caller's own.
func (r *Reply) Copy() []byte { return r.m.Copy() }

// Provider is the name of the process that answered.
func (r *Reply) Provider() string { return r.m.Publisher() }

// Release gives the reply back. The second time is refused with ErrReleased and counted.
func (r *Reply) Release() error { return r.m.Release() }

// Request asks a provider of topic and waits for its reply. ctx bounds it; when it ends the handler is told. Errors:
// ErrNoProvider, ErrProviderGone (it died with the request in hand; it may have acted on it, so it is not asked again),
// *HandlerError, ErrTooLarge, ErrNoMemory.
func (n *Node) Request(ctx context.Context, topic string, payload []byte) (*Reply, error) {
	c := n.replies.call()
	corr, err := n.ask(ctx, topic, payload, c)
	if err != nil {
		return nil, err
	}
	a, ok := n.replies.await(ctx, c)
	if !ok {
		if n.replies.cancel(corr) {
			return nil, fmt.Errorf("request %q: %w", topic, context.Cause(ctx))
		}
		a = <-c.came // it came at the same moment
	}
	n.replies.spare.Store(c) // nobody else has it any more
	return a.r, a.err
}

// RequestAsync asks like Request and returns once the request is on its way; done hears the reply, or why there is none,
// once, on a goroutine that must not be held up: it takes in all replies, so nothing that waits for one can be called there,
// nor this while as many requests are unanswered as the provider takes (ServeDepth). ctx bounds the sending and the waiting.
func (n *Node) RequestAsync(ctx context.Context, topic string, payload []byte, done func(*Reply, error)) error {
	// The reply can come before ask returns; whoever comes second stops the watch on ctx.
	var stop atomic.Pointer[func() bool]
	var over atomic.Bool
	corr, err := n.ask(ctx, topic, payload, &pendingCall{done: func(r *Reply, err error) {
		over.Store(true)
		if f := stop.Load(); f != nil {
			(*f)()
		}
		done(r, err)
	}})
	if err != nil {
		return err
	}
	f := context.AfterFunc(ctx, func() {
		if n.replies.cancel(corr) {
			done(nil, fmt.Errorf("request %q: %w", topic, context.Cause(ctx)))
		}
	})
	stop.Store(&f)
	if over.Load() {
		f()
	}
	return nil
}

// ask sends a request; c hears once what came of it, unless cancel takes the call first.
func (n *Node) ask(ctx context.Context, topic string, payload []byte, c *pendingCall) (uint64, error) {
	sc := n.lastClient.Load()
	if sc == nil || sc.topic != topic {
		n.mu.Lock()
		sc = n.clients[topic]
		n.mu.Unlock()
		if sc == nil {
			if err := wire.ValidateTopic(topic); err != nil {
				return 0, fmt.Errorf("request: %w", err)
			}
			n.mu.Lock()
			sc = n.serviceClient(topic)
			n.mu.Unlock()
		}
		n.lastClient.Store(sc)
	}
	lk, err := sc.connect(ctx)
	if err != nil {
		return 0, fmt.Errorf("request %q: %w", topic, err)
	}
	n.life.RLock()
	defer n.life.RUnlock()
	if err := sc.adopt(ctx, lk); err != nil {
		return 0, fmt.Errorf("request %q: %w", topic, err)
	}
	for {
		cr, ok := sc.pick()
		if n.Err() != nil || n.torn {
			return 0, fmt.Errorf("request %q: %w", topic, n.whyClosed())
		}
		if !ok {
			return 0, fmt.Errorf("request %q: %w: nobody serves it now (WaitForService waits)", topic, ErrNoProvider)
		}
		err := cr.o.begin(ctx)
		if err == nil {
			c.o, c.topic = cr.o, &sc.topic
			corr := n.replies.register(c)
			if err = n.sendRequest(ctx, cr, corr, payload); err == nil {
				return corr, nil
			}
			if n.replies.take(corr) == nil {
				return corr, nil // it has heard that the provider died
			}
			c.over()
		}
		if !errors.Is(err, errRouteOver) {
			return 0, fmt.Errorf("request %q to %q: %w", topic, cr.o.peer.name, err)
		}
		// It was gone before the request reached its queue: the next one is asked.
		n.mu.Lock()
		sc.removeRoute(cr.o)
		n.mu.Unlock()
	}
}

// sendRequest pushes a request; n.life is held, for reading.
func (n *Node) sendRequest(ctx context.Context, to clientRoute, corr uint64, payload []byte) error {
	m, err := n.dataMessage(ctx, payload, to.o, wire.SocketClient, wire.Header{Kind: wire.KindRequest, ID: corr, Topic: to.topicID})
	if err != nil {
		return err
	}
	defer m.release()
	out, err := to.o.push(&m, false)
	if err == nil && out == shmio.Full {
		err = to.o.wait(ctx, &m, 0)
	}
	return err
}

// WaitForService waits until somebody provides topic.
func (n *Node) WaitForService(ctx context.Context, topic string) error {
	if err := wire.ValidateTopic(topic); err != nil {
		return fmt.Errorf("wait for service: %w", err)
	}
	n.mu.Lock()
	sc := n.serviceClient(topic)
	n.mu.Unlock()
	for {
		c := n.changed.C()
		if err := sc.known(ctx); err != nil {
			return fmt.Errorf("wait for service %q: %w", topic, n.orClosed(err))
		}
		if len(*sc.routes.Load()) > 0 {
			return nil
		}
		select {
		case <-c:
		case <-ctx.Done():
			return fmt.Errorf("wait for service %q: %w: %w", topic, ErrNoProvider, context.Cause(ctx))
		case <-n.closing:
			return fmt.Errorf("wait for service %q: %w", topic, n.whyClosed())
		}
	}
}

// providerGone fails the requests that a dead peer has in hand, unless replies of it wait: those go first.
func (n *Node) providerGone(p *peer) {
	n.changed.Fire()
	n.mu.Lock()
	for _, r := range p.in {
		if r.kind == bhomev1.RouteKind_ROUTE_KIND_REPLY && !r.done.Load() {
			n.mu.Unlock()
			return // routeOver follows when it is drained
		}
	}
	n.mu.Unlock()
	n.replies.failAll(p)
}
