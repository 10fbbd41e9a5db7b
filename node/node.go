package node

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/bhome-bus/bhome/shmio"
)

// State is what a node's relation to the center is.
type State int32

// The states of a node.
const (
	StateOnline       State = iota // attached and registered
	StateReconnecting              // the center is away; established routes go on
	StateDisplaced                 // another process has taken the name: over
	StateClosed                    // Close was called, or the center refused the node for good
)

func (s State) String() string {
	return [...]string{"online", "reconnecting", "displaced", "closed"}[s]
}

// Node is this process's place on a bus. All methods are safe for concurrent use. Close it when done.
type Node struct {
	cfg     Config
	log     hclog.Logger
	reactor *shmio.Reactor
	seats   atomic.Int32 // at bells; pairs with itself
	mem     *memory
	mag     *magazine
	replies *replies

	name       atomic.Pointer[string]
	session    atomic.Uint64
	procIndex  atomic.Int32
	maxMessage atomic.Uint64
	msgSeq     atomic.Uint64
	sinkSeq    atomic.Uint64
	state      atomic.Int32
	stats      counters
	garbage    shmio.Garbage // what a burst leaves
	clock      coarseClock
	providers  providerCache

	link    atomic.Pointer[link] // nil while there is no center
	linked  *broadcast           // fires when link changes
	changed *broadcast           // fires when routes come or go

	ctx         context.Context // of the goroutines
	stop        context.CancelFunc
	wg          sync.WaitGroup
	closing     chan struct{} // closed when the node ends, whatever the reason
	over        atomic.Bool   // stored before; pairs with Err, which each send asks
	pokeC       chan struct{}
	newsTimeout time.Duration
	endOnce     sync.Once
	err         error // why it ended; read after closing

	life sync.RWMutex // held for reading while a request looks at the link segment, waits for its place, and is sent, and while a reply is

	mu          sync.Mutex
	peers       map[uint64]*peer
	in          map[uint64]*inRoute
	inSeq       uint64
	out         map[uint64]*outRoute
	outList     atomic.Pointer[[]*outRoute] // of out, copied on write; pairs with outRoutes
	replyRoutes map[replyKey]*outRoute
	pubs        map[string]*topicPub
	clients     map[string]*serviceClient
	lastClient  atomic.Pointer[serviceClient] // of the request before; clients are never forgotten. Pairs with itself
	sinks       map[uint64]queuedSink         // by subscription number
	restored    *link                         // the last that was told what is known
	closed      bool                          // Close was called
	oldLinks    []*shmio.Segment              // of links that are over
	torn        bool                          // no more background work, requests and replies; stored under life, too
	work        sync.WaitGroup                // of background; Add under mu while !torn
}

// Attach joins the bus: it finds the center, makes this process's segments, and registers the name. ctx bounds the
// attaching, not the node. Errors: ErrNoDaemon, ErrNameInUse, ErrTableFull, ErrIncompatibleABI, ErrNotAllowed, ErrTooMany,
// ErrNoMemory (a LimitError says whose, ours or the center's), ErrDisconnected (the center went away meanwhile).
func Attach(ctx context.Context, cfg Config) (*Node, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if err := shmio.Probe(); err != nil {
		return nil, fmt.Errorf("attach: %w", limited(err))
	}
	cfg = cfg.withDefaults()
	n := &Node{cfg: cfg, log: cfg.Logger, linked: newBroadcast(), changed: newBroadcast(), closing: make(chan struct{}),
		pokeC: make(chan struct{}, 1), newsTimeout: newsTimeout, peers: map[uint64]*peer{}, in: map[uint64]*inRoute{}, out: map[uint64]*outRoute{},
		replyRoutes: map[replyKey]*outRoute{}, pubs: map[string]*topicPub{}, clients: map[string]*serviceClient{}, sinks: map[uint64]queuedSink{}}
	n.ctx, n.stop = context.WithCancel(context.Background())
	n.name.Store(&cfg.Name)
	n.procIndex.Store(-1)
	n.outList.Store(&[]*outRoute{})
	n.mag = newMagazine(n, cfg.Magazine)
	n.replies = newReplies(n)
	var err error
	if n.reactor, err = shmio.NewReactor(time.Second); err != nil {
		return nil, fmt.Errorf("attach: %w", err)
	}
	if n.mem, err = newMemory(); err != nil {
		n.reactor.Close()
		return nil, fmt.Errorf("attach: %w", limited(err))
	}
	if _, err = n.mem.addData(firstDataSize, 0, 0, 0, ""); err == nil {
		n.wg.Go(n.housekeep)
		bound, cancel := deadlineContext(ctx, cfg.AttachTimeout)
		err = n.establish(bound)
		cancel()
	}
	if err != nil {
		n.end(err, StateClosed)
		n.teardown()
		return nil, fmt.Errorf("attach to bus %q: %w", cfg.Bus, limited(err))
	}
	n.wg.Go(n.keepLink)
	n.wg.Go(func() { n.replies.receive(n.ctx) })
	cancel := n.reactor.OnBackstop(n.poke)
	context.AfterFunc(n.ctx, cancel)
	return n, nil
}

// establish makes a link and brings the node online on it.
func (n *Node) establish(ctx context.Context) error {
	lk, err := n.connect(ctx)
	if err != nil {
		return err
	}
	n.maxMessage.Store(lk.limits.GetMaxMessage())
	go lk.readSocket()
	go lk.receive()
	if lk.resumed {
		err = lk.report()
	}
	if err == nil {
		err = lk.handshake(ctx)
	}
	if err == nil {
		err = n.restore(ctx, lk)
	}
	if err != nil {
		n.link.Store(nil)
		n.mag.dropLink(lk)
		lk.close()
		return err
	}
	n.state.Store(int32(StateOnline))
	close(lk.ready)
	n.linked.Fire()
	n.changed.Fire()
	n.poke()
	return nil
}

// Name is the node's name on the bus; a pooled node's is the one it was given.
func (n *Node) Name() string { return *n.name.Load() }

// Session is the base id of this node's session; the center never gives it to another.
func (n *Node) Session() uint64 { return n.session.Load() }

// ProcIndex is the node's index in the center's proc table; -1 for an inspecting node.
func (n *Node) ProcIndex() int { return int(n.procIndex.Load()) }

// State is the relation to the center now.
func (n *Node) State() State { return State(n.state.Load()) }

// Done is closed when the node has ended: closed, displaced, or refused by the center for good.
func (n *Node) Done() <-chan struct{} { return n.closing }

// Err says why the node ended; nil while it has not.
func (n *Node) Err() error {
	if !n.over.Load() {
		return nil
	}
	select {
	case <-n.closing:
		return n.err
	default:
		return nil
	}
}

func (n *Node) whyClosed() error {
	if err := n.Err(); err != nil {
		return err
	}
	return ErrClosed
}

// orClosed is err, or why the node is closed if err is only what comes of that: a question was on its way to the center.
func (n *Node) orClosed(err error) error {
	select {
	case <-n.closing:
		if errors.Is(err, ErrDisconnected) {
			return n.whyClosed()
		}
	default:
	}
	return err
}

func (n *Node) publisherID() uint16 { return uint16(n.procIndex.Load()) }

// awaitLink waits for a center.
func (n *Node) awaitLink(ctx context.Context) (*link, error) {
	for {
		c := n.linked.C()
		if n.Err() != nil {
			return nil, n.whyClosed()
		}
		if lk := n.link.Load(); lk != nil {
			return lk, nil
		}
		select {
		case <-c:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", ErrDisconnected, context.Cause(ctx))
		case <-n.closing:
			return nil, n.whyClosed()
		}
	}
}

// readyLink is the link to a center that knows this node; nil: there is none now.
func (n *Node) readyLink() *link {
	if lk := n.link.Load(); lk != nil {
		select {
		case <-lk.ready:
			return lk
		default:
		}
	}
	return nil
}

// awaitReady waits for a center that knows this node.
func (n *Node) awaitReady(ctx context.Context) (*link, error) {
	for {
		lk, err := n.awaitLink(ctx)
		if err != nil {
			return nil, err
		}
		select {
		case <-lk.ready:
			return lk, nil
		case <-lk.dead:
			runtime.Gosched() // whoever replaces it is at it
		case <-n.closing:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", ErrDisconnected, context.Cause(ctx))
		}
	}
}

// told is what centers know of something that this node publishes, subscribes to or serves.
type told struct {
	asked    bool // one was told, and may have opened routes before it answered
	known    bool // the one that is there knows, and restore tells each further one
	restored bool // restore told one what no center had answered
}

// tell has the center know something of this node, until it does; t is under n.mu.
func (n *Node) tell(ctx context.Context, t *told, call func(lk *link) error) error {
	for {
		lk, err := n.awaitReady(ctx)
		if err != nil {
			return err
		}
		n.mu.Lock()
		t.asked = true
		ok := t.restored
		n.mu.Unlock()
		if ok {
			return nil
		}
		if err = call(lk); err == nil {
			n.mu.Lock()
			t.known = t.known || n.restored == lk
			ok := t.known
			n.mu.Unlock()
			if ok {
				return nil
			}
			continue // the next one may not have been told of this
		}
		if !errors.Is(err, ErrDisconnected) || n.cfg.NoReconnect {
			return err
		}
	}
}

// socketTimeout is how long is waited for news that must be on the socket already.
const socketTimeout = time.Second

// awaitSocket waits until the socket's goroutine has made cond true; otherwise after socketTimeout, or when there is no
// center, it returns err.
func (n *Node) awaitSocket(cond func() bool, err error) error {
	timeout := time.NewTimer(socketTimeout)
	defer timeout.Stop()
	for {
		lk := n.link.Load()
		if lk == nil {
			if cond() {
				return nil
			}
			return err
		}
		c := lk.progress.C()
		if cond() {
			return nil
		}
		select {
		case <-c:
		case <-lk.readDone:
			if cond() {
				return nil
			}
			return err
		case <-timeout.C:
			return err
		case <-n.closing:
			return err
		}
	}
}

// addSink makes a subscription or service known under its number, before the center hears of it.
func (n *Node) addSink(number uint64, s queuedSink) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return ErrClosed
	}
	n.sinks[number] = s
	return nil
}

func (n *Node) removeSink(number uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if s := n.sinks[number]; s != nil {
		n.stats.pastReceived.Add(s.received())
		delete(n.sinks, number)
	}
}

// poke has the housekeeper look around.
func (n *Node) poke() {
	select {
	case n.pokeC <- struct{}{}:
	default:
	}
}

// background runs f on a goroutine; the node lets go of no memory until it has ended. Once that begins, f isn't run.
func (n *Node) background(f func(ctx context.Context)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.torn {
		n.work.Go(func() { f(n.ctx) })
	}
}

// badWord counts and logs rubbish that another process gave us.
func (n *Node) badWord(what string, err error) {
	if n.stats.badWords.Add(1) <= maxRubbishLogged {
		n.log.Warn("rubbish is ignored", "what", what, "error", err)
	}
}

// maxRubbishLogged bounds what a hostile peer can write into our log; the count goes on in Stats.
const maxRubbishLogged = 100

// end makes the node's end known; the first reason stays.
func (n *Node) end(err error, state State) {
	n.endOnce.Do(func() {
		n.err = err
		n.state.Store(int32(state))
		n.over.Store(true)
		close(n.closing)
	})
}

// fail ends the node for a reason that is not the program's wish. What it received stays readable until Close.
func (n *Node) fail(err error, state State) {
	n.log.Error("the node has ended", "name", n.Name(), "error", err)
	n.end(err, state)
	n.mu.Lock()
	sinks := make([]queuedSink, 0, len(n.sinks))
	for _, s := range n.sinks {
		sinks = append(sinks, s)
	}
	n.mu.Unlock()
	for _, s := range sinks {
		s.queue().Close()
	}
}

// validText makes text fit for protobuf.
func validText(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

func isUnknownSegment(err error) bool { return errors.Is(err, shmio.ErrUnknownSegment) }
