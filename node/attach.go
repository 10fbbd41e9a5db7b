package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"time"

	"google.golang.org/protobuf/proto"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio"
	"github.com/bhome-bus/bhome/wire"
)

// dial finds the center's socket: the first candidate that answers.
func dial(ctx context.Context, cfg Config) (*shmio.Conn, error) {
	paths := []string{cfg.Socket}
	if cfg.Socket == "" {
		paths = shmio.SocketCandidates(cfg.Bus)
	}
	var tried []string
	kind := error(ErrNoDaemon)
	for _, p := range paths {
		conn, err := shmio.Dial(ctx, p)
		if err == nil {
			return conn, nil
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("connect to %s: %w", p, context.Cause(ctx))
		}
		why := err.Error()
		switch {
		case errors.Is(err, fs.ErrNotExist):
			why = "no such file"
		case errors.Is(err, syscall.ECONNREFUSED):
			why = "nobody listens"
		case errors.Is(err, fs.ErrPermission):
			why = "permission denied: the daemon belongs to another user or group"
			kind = errMayNotConnect
		}
		tried = append(tried, p+" ("+why+")")
	}
	return nil, fmt.Errorf("bus %q: %w: tried %s; start one with `bhomed`, or name its socket in BHOME_SOCKET", cfg.Bus, kind, strings.Join(tried, ", "))
}

// errMayNotConnect is both: there is a socket, and the kernel doesn't let us use it.
var errMayNotConnect = fmt.Errorf("%w (%w)", ErrNoDaemon, ErrNotAllowed)

// connect attaches to the center that runs now: socket, Hello, Welcome, the link, and (after a loss) the report. The
// handshake in words is the caller's.
func (n *Node) connect(ctx context.Context) (_ *link, err error) {
	conn, err := dial(ctx, n.cfg)
	if err != nil {
		return nil, err
	}
	lk := &link{n: n, conn: conn, began: time.Now(), space: shmio.NewSpace(), down: shmio.NewInbox(shmio.Adaptive), calls: map[string]chan callReply{},
		initReply: make(chan wire.NodeInitReply, 1), progress: newBroadcast(), ready: make(chan struct{}), dead: make(chan struct{}),
		downDone: make(chan struct{}), readDone: make(chan struct{})}
	stop := context.AfterFunc(ctx, func() { conn.Close() }) // unblocks the reads below
	var closers []interface{ Close() error }
	defer func() {
		stop()
		if err != nil {
			conn.Close()
			for _, c := range closers {
				c.Close()
			}
			for _, h := range lk.halves {
				n.mem.freeLink(h)
			}
			if ctx.Err() != nil {
				err = fmt.Errorf("attach: %w", context.Cause(ctx))
			}
		}
	}()
	hello, err := n.hello(lk)
	if err != nil {
		return nil, err
	}
	bellRead, bellWrite, err := shmio.NewBell()
	if err != nil {
		return nil, fmt.Errorf("make the link's bell: %w", err)
	}
	closers = append(closers, bellRead)
	first := n.firstData()
	raw, err := proto.Marshal(hello)
	if err == nil {
		var f []byte
		if f, err = n.frame(uint32(bhomev1.MsgType_MSG_TYPE_HELLO), "", 0, 0, raw); err == nil {
			err = conn.Send(f, n.mem.segment0.FD(), first.FD(), bellWrite)
		}
	}
	bellWrite.Close()
	if err != nil {
		return nil, fmt.Errorf("attach: send Hello: %w: %w", ErrDisconnected, err)
	}
	w, fds, err := readWelcome(conn, n.cfg.Name)
	if err != nil {
		return nil, fmt.Errorf("attach: %w", err)
	}
	for _, fd := range fds {
		closers = append(closers, fd)
	}
	if err := n.adoptWelcome(lk, w, fds, first); err != nil {
		return nil, fmt.Errorf("attach: %w", err)
	}
	closers = append(closers, lk.linkSeg, lk.publicSeg)
	if lk.bellWatch, err = n.reactor.WatchBell(bellRead, lk.onBell); err != nil {
		return nil, fmt.Errorf("attach: watch the bell: %w", err)
	}
	if lk.centerWatch, err = n.reactor.WatchPID(fds[3], func() { lk.onCenterDead() }); err != nil {
		lk.bellWatch.Close()
		return nil, fmt.Errorf("attach: watch the center: %w", err)
	}
	return lk, nil
}

// hello makes the six halves of the link and the message that names them.
func (n *Node) hello(lk *link) (*bhomev1.Hello, error) {
	h := &bhomev1.Hello{Abi: wire.ABIVersion, Name: n.cfg.Name, Resume: n.session.Load()}
	for q := range 4 {
		spec := shmio.LinkSpec(q)
		hf, err := n.mem.allocLink(spec.ReaderSize())
		if err != nil {
			return nil, err
		}
		lk.halves = append(lk.halves, hf)
		h.Down = append(h.Down, hf.proto())
		if lk.downR[q], err = shmio.NewReader(hf.mem, spec); err != nil {
			return nil, err
		}
	}
	for i := range lk.up {
		spec := shmio.LinkSpec(shmio.FirstUpQueue + i)
		hf, err := n.mem.allocLink(spec.WriterSize())
		if err != nil {
			return nil, err
		}
		lk.halves = append(lk.halves, hf)
		h.Up = append(h.Up, hf.proto())
		if lk.up[i].w, err = shmio.NewWriter(hf.mem, spec); err != nil {
			return nil, err
		}
		lk.up[i].gate = make(chan struct{}, 1)
	}
	if h.Resume != 0 {
		d := n.firstData()
		h.Base, h.Generation = d.Base(), d.Generation()
		h.NextSegment = n.mem.next
	}
	return h, nil
}

func (n *Node) firstData() *shmio.Segment { return (*n.mem.data.Load())[0] }

// readWelcome waits for the center's answer to Hello.
func readWelcome(conn *shmio.Conn, name string) (*bhomev1.Welcome, []*shmio.FD, error) {
	msg, fds, err := conn.ReceiveMessage(wire.MaxFrame)
	if err != nil {
		return nil, nil, fmt.Errorf("wait for Welcome: %w: %w", ErrDisconnected, err)
	}
	fail := func(err error) (*bhomev1.Welcome, []*shmio.FD, error) {
		for _, fd := range fds {
			fd.Close()
		}
		return nil, nil, err
	}
	head, body, err := splitFrame(msg)
	if err != nil {
		return fail(fmt.Errorf("the center's answer: %w", err))
	}
	switch bhomev1.MsgType(head.GetType()) {
	case bhomev1.MsgType_MSG_TYPE_WELCOME:
	case bhomev1.MsgType_MSG_TYPE_COMMON_REPLY:
		var c bhomev1.CommonReply
		if err := proto.Unmarshal(body, &c); err != nil {
			return fail(fmt.Errorf("the center's answer: %w: %w", ErrRemote, err))
		}
		if err := fromErrorMsg(c.GetErrmsg(), name); err != nil {
			return fail(err)
		}
		fallthrough
	default:
		return fail(fmt.Errorf("%w: it answered Hello with message type %d", ErrRemote, head.GetType()))
	}
	var w bhomev1.Welcome
	if err := proto.Unmarshal(body, &w); err != nil {
		return fail(fmt.Errorf("the center's Welcome: %w: %w", ErrRemote, err))
	}
	if len(fds) != 4 || len(w.GetDown()) != 4 || len(w.GetUp()) != 2 {
		return fail(fmt.Errorf("%w: Welcome with %d descriptors, %d and %d queues; want 4, 4 and 2", ErrRemote, len(fds), len(w.GetDown()), len(w.GetUp())))
	}
	return &w, fds, nil
}

// adoptWelcome maps the center's side and joins the six queues.
func (n *Node) adoptWelcome(lk *link, w *bhomev1.Welcome, fds []*shmio.FD, first *shmio.Segment) (err error) {
	lk.session, lk.limits, lk.resumed = w.GetSession(), w.GetLimits(), w.GetResumed()
	if lk.linkSeg, err = shmio.OpenSegment(fds[0], shmio.Want{Kinds: []shmio.Kind{shmio.KindLink}, MaxSize: 64 << 20, CloseFD: true}); err != nil {
		return fmt.Errorf("the link segment: %w", err)
	}
	if lk.publicSeg, err = shmio.OpenSegment(fds[1], shmio.Want{Kinds: []shmio.Kind{shmio.KindPublic}, MaxSize: 64 << 20, CloseFD: true}); err != nil {
		lk.linkSeg.Close()
		return fmt.Errorf("the public segment: %w", err)
	}
	defer func() {
		if err != nil {
			lk.linkSeg.Close()
			lk.publicSeg.Close()
		}
	}()
	if lk.bell, err = shmio.OpenBell(fds[2]); err != nil {
		return fmt.Errorf("the center's bell: %w", err)
	}
	if err = lk.space.Add(lk.linkSeg); err != nil {
		return fmt.Errorf("the link segment: %w", err)
	}
	lk.generation = lk.linkSeg.RouteGeneration()
	lk.adopted.Store(lk.generation.Load())
	ringer := shmio.LinkRinger(lk.bell)
	for q, h := range w.GetDown() {
		mem, err := lk.linkSeg.Memory(h.GetOffset(), shmio.LinkSpec(q).WriterSize())
		if err == nil {
			err = lk.downR[q].Join(mem, ringer)
		}
		if err != nil {
			return fmt.Errorf("down queue %d: %w", q, err)
		}
		lk.down.Add(lk.downR[q])
	}
	for i, h := range w.GetUp() {
		mem, err := lk.linkSeg.Memory(h.GetOffset(), shmio.LinkSpec(shmio.FirstUpQueue+i).ReaderSize())
		if err == nil {
			err = lk.up[i].w.Join(mem, ringer)
		}
		if err != nil {
			return fmt.Errorf("up queue %d: %w", i, err)
		}
	}
	if n.session.Load() == 0 {
		first.SetBase(w.GetBase(), w.GetGeneration())
	}
	n.session.Store(lk.session)
	control, data := n.mem.segments()
	for _, s := range append(append([]*shmio.Segment{n.mem.segment0}, control...), data...) {
		s.SetSession(lk.session)
		s.SetState(shmio.StateAttached)
	}
	return nil
}

// handshake is the conversation in words and frames that makes the node online: NodeInit → NodeInitReply → ProcInit →
// ProcInitReply → Register → CommonReply.
func (lk *link) handshake(ctx context.Context) error {
	n := lk.n
	word, err := wire.NodeInit{Session: lk.session}.Encode()
	if err == nil {
		err = lk.sendWord(ctx, upCenter, word)
	}
	if err != nil {
		return fmt.Errorf("NodeInit: %w", err)
	}
	var init wire.NodeInitReply
	select {
	case init = <-lk.initReply:
	case <-lk.dead:
		return fmt.Errorf("NodeInit: %w", lk.cause)
	case <-ctx.Done():
		return fmt.Errorf("NodeInit: %w", context.Cause(ctx))
	}
	n.mag.mu.Lock()
	b, err := n.mag.adopt(wire.NewGrant(init.ID, init.Place), n.mag.open, initBlockClass)
	n.mag.mu.Unlock()
	if err != nil {
		return fmt.Errorf("NodeInitReply: %w", err)
	}
	pr, err := lk.procInit(ctx, b)
	if err != nil {
		return err
	}
	n.procIndex.Store(pr.GetProcIndex())
	if pr.GetProcId() != "" {
		n.name.Store(ptr(pr.GetProcId()))
	}
	n.link.Store(lk) // from here on blocks can be had
	var done bhomev1.CommonReply
	err = lk.callInto(ctx, upCenter, wire.SocketNode, bhomev1.MsgType_MSG_TYPE_REGISTER, &bhomev1.Register{
		Proc:     &bhomev1.ProcInfo{ProcId: n.Name(), Name: n.Name(), PublicInfo: n.cfg.PublicInfo},
		Takeover: n.cfg.Takeover, Inspect: n.cfg.Inspect,
	}, &done, n.Name())
	if err != nil {
		return fmt.Errorf("register %q: %w", n.Name(), err)
	}
	n.mem.segment0.SetState(shmio.StateRegistered)
	return nil
}

// procInit sends ProcInit in the block of NodeInitReply, as the seed does.
func (lk *link) procInit(ctx context.Context, b *block) (*bhomev1.ProcInitReply, error) {
	n := lk.n
	// Who attaches again keeps the name that the pool gave.
	raw, err := proto.Marshal(&bhomev1.ProcInit{Inspect: n.cfg.Inspect, Pooled: n.cfg.Pooled && n.Name() == n.cfg.Name})
	if err != nil {
		return nil, fmt.Errorf("proc init: %w", err)
	}
	r, err := lk.callRaw(ctx, upCenter, wire.SocketNode, uint32(bhomev1.MsgType_MSG_TYPE_PROC_INIT), raw, b)
	var pr bhomev1.ProcInitReply
	if err == nil {
		err = r.into(&pr, n.cfg.Name)
	}
	if err != nil {
		return nil, fmt.Errorf("proc init of %q: %w", n.cfg.Name, err)
	}
	if i := pr.GetProcIndex(); i > 65535 || i < 0 && !n.cfg.Inspect {
		return nil, fmt.Errorf("proc init of %q: %w: proc index %d", n.cfg.Name, ErrRemote, i)
	}
	return &pr, nil
}

func (lk *link) onBell(uint32) {
	for _, r := range lk.downR {
		lk.down.Wake(r)
	}
	for i := range lk.up {
		lk.up[i].w.WakeSpace()
	}
}

func (lk *link) onCenterDead() {
	go lk.centerDied()
}

func ptr[T any](v T) *T { return &v }
