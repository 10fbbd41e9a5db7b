package node

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bhome-bus/bhome/shmio"
	"github.com/bhome-bus/bhome/wire"
)

const (
	maxClassBytes   = 64 << 20  // idle bytes kept per class at most
	batchBytes      = 256 << 10 // a batch grant asks for about this much
	pairBytes       = 4 << 20   // and for two blocks at least, as long as one is no larger than this
	maxBatchLog2    = 6
	initBlockClass  = 34      // that of 900 bytes, as the handshake has it
	maxAllocPending = 1 << 28 // request ids
)

// magazine keeps the idle blocks of a node per size class, asks the center for more and gives
// surplus back. Safe for concurrent use.
type magazine struct {
	n      *Node
	limit  int // blocks per class; 0: none are kept
	open   *blockGroup
	loaned atomic.Int64 // loans that are neither sent nor released; pairs with Close

	mu      sync.Mutex
	grants  map[wire.Grant]*block // all that this node holds, wherever it is
	most    int                   // of them since the map was made
	surplus []*block              // to be given back by the housekeeper
	waiting map[uint32]*allocCall
	nextID  uint32
	groups  map[string]*blockGroup // by access group; they stay
}

// allocCall is one request for blocks, until all of them or a refusal have come.
type allocCall struct {
	group *blockGroup
	class uint8
	want  int
	got   []*block
	err   error
	done  chan struct{}
	lk    *link
	left  bool // nobody waits any more: what comes goes to the magazine
}

func newMagazine(n *Node, limit int) *magazine {
	open := &blockGroup{}
	open.mag = &magazine{n: n, limit: max(limit, 0), open: open, groups: map[string]*blockGroup{"": open}, grants: map[wire.Grant]*block{}, waiting: map[uint32]*allocCall{}}
	return open.mag
}

// group finds or makes what there is of an access group.
func (m *magazine) group(access string) *blockGroup {
	m.mu.Lock()
	defer m.mu.Unlock()
	g := m.groups[access]
	if g == nil {
		g = &blockGroup{mag: m, access: access}
		m.groups[access] = g
	}
	return g
}

// allGroups lists them.
func (m *magazine) allGroups() []*blockGroup {
	m.mu.Lock()
	defer m.mu.Unlock()
	groups := make([]*blockGroup, 0, len(m.groups))
	for _, g := range m.groups {
		groups = append(groups, g)
	}
	return groups
}

// put takes a block that nobody refers to.
func (m *magazine) put(b *block) {
	b.home.mu.Lock()
	kept := b.home.drop(b, 0)
	b.home.mu.Unlock()
	if !kept {
		m.giveBack(b)
	}
}

// takeBack takes the references of blocks that a route gives back, with one lock for each run of the same class.
func (m *magazine) takeBack(hs []shmio.Held) {
	for len(hs) > 0 {
		c := hs[0].(*block).home
		c.mu.Lock()
		n, kept := c.takeBack(hs)
		c.mu.Unlock()
		if hs = hs[n:]; !kept {
			m.giveBack(hs[0].(*block))
			hs = hs[1:]
		}
	}
}

func (m *magazine) giveBack(blocks ...*block) {
	m.mu.Lock()
	m.surplus = append(m.surplus, blocks...)
	m.mu.Unlock()
	m.n.poke()
}

// get takes a block of the class and access group: from the stack, from what readers have returned meanwhile, or from the center.
func (m *magazine) get(ctx context.Context, g *blockGroup, class uint8, socket wire.Socket) (*block, error) {
	if b := g.pop(class); b != nil {
		return b, nil
	}
	return m.getBy(ctx, g, class, socket, func() *block { return g.pop(class) })
}

// getBy is get of whatever look finds idle, or else of a block of the class.
func (m *magazine) getBy(ctx context.Context, g *blockGroup, class uint8, socket wire.Socket, look func() *block) (*block, error) {
	returned := func() *block { // returns ring no bell: look for them
		m.n.reclaimRoutes()
		return look()
	}
	if m.limit > 0 {
		if b := returned(); b != nil {
			return b, nil
		}
	}
	for wait := time.Millisecond; ; {
		lk, err := m.n.link.Load(), error(nil)
		if lk == nil && m.limit == 0 {
			if lk, err = m.n.awaitLink(ctx); err != nil {
				return nil, err
			}
		}
		if lk != nil {
			var b *block
			if b, err = m.ask(ctx, lk, g, class, socket); err == nil {
				return b, nil
			}
		}
		// Without a center, or where it grants no more, what readers return goes round all the same.
		if b := returned(); b != nil {
			return b, nil
		}
		// The center may go away with the question in hand: then the next one is asked.
		if err != nil && (!errors.Is(err, ErrDisconnected) || m.n.cfg.NoReconnect || ctx.Err() != nil) {
			return nil, err
		}
		c := m.n.linked.C()
		if next := m.n.link.Load(); next != nil && next != lk {
			continue
		}
		select {
		case <-c:
		case <-time.After(wait):
			wait = min(2*wait, 20*time.Millisecond)
		case <-ctx.Done():
			return nil, fmt.Errorf("a block of class %d: %w: %w", class, ErrDisconnected, context.Cause(ctx))
		case <-m.n.closing:
			return nil, m.n.whyClosed()
		}
	}
}

// ask requests a batch (one block without a magazine) of the center at the other end of lk, keeps the surplus and returns one block.
func (m *magazine) ask(ctx context.Context, lk *link, g *blockGroup, class uint8, socket wire.Socket) (_ *block, err error) {
	if m.n.Err() != nil {
		return nil, m.n.whyClosed()
	}
	if m.n.procIndex.Load() < 0 {
		return nil, fmt.Errorf("loan: %w: a node attached for inspection has no place in the proc table", ErrNotAllowed)
	}
	req := wire.AllocRequest{Proc: uint16(m.n.procIndex.Load()), Socket: uint8(socket), Class: class}
	want := 1
	if m.limit > 0 {
		per := batchBytes / wire.BlockSize(class)
		if per < 2 && wire.BlockSize(class) <= pairBytes {
			per = 2
		}
		if per > 1 {
			req.Log2 = uint8(min(maxBatchLog2, bits.Len64(per)-1))
			want = 1 << req.Log2
			req.Batch = true
		}
	}
	m.n.stats.asked.Add(1)
	call := &allocCall{group: g, class: class, want: want, done: make(chan struct{}), lk: lk}
	if req.ID, err = m.register(call); err != nil {
		return nil, err
	}
	if g == m.open {
		var word wire.Word
		if word, err = req.Encode(); err == nil {
			err = lk.sendWord(ctx, upCenter, word)
		}
	} else {
		err = lk.sendAlloc(ctx, req, g.access)
	}
	if err != nil {
		m.forget(req.ID)
		return nil, fmt.Errorf("ask the center for a block of class %d: %w", class, err)
	}
	select {
	case <-call.done:
	case <-ctx.Done():
		return nil, m.abandon(call, context.Cause(ctx))
	case <-lk.dead:
		return nil, m.abandon(call, ErrDisconnected)
	}
	if len(call.got) == 0 {
		return nil, call.err
	}
	first := call.got[0]
	for _, b := range call.got[1:] {
		m.put(b)
	}
	return first, nil
}

// register gives call an id that no unanswered request has; ids wrap at 2^28.
func (m *magazine) register(call *allocCall) (uint32, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.waiting) >= 1<<16 {
		return 0, fmt.Errorf("ask the center for a block: %w: %d requests are unanswered", ErrTooMany, len(m.waiting))
	}
	for {
		m.nextID = (m.nextID + 1) % maxAllocPending
		if _, taken := m.waiting[m.nextID]; !taken && m.nextID != 0 {
			m.waiting[m.nextID] = call
			return m.nextID, nil
		}
	}
}

func (m *magazine) forget(id uint32) {
	m.mu.Lock()
	delete(m.waiting, id)
	m.mu.Unlock()
}

// abandon leaves a call to answer itself: blocks that come later go to the magazine, or back to the center.
func (m *magazine) abandon(call *allocCall, why error) error {
	m.mu.Lock()
	overtaken := false
	select {
	case <-call.done: // the answer overtook us
		overtaken = true
	default:
		call.left = true
	}
	m.mu.Unlock()
	if overtaken {
		for _, b := range call.got {
			m.put(b)
		}
	}
	return fmt.Errorf("ask the center for a block of class %d: %w", call.class, why)
}

// onReply takes one AllocReply0 from the center. Runs on the link's receiving goroutine.
func (m *magazine) onReply(r wire.AllocReply) {
	m.mu.Lock()
	call := m.waiting[r.ID]
	if call == nil {
		m.mu.Unlock()
		if r.Place != 0 { // nobody asked, as far as we know: the block is not ours to keep
			m.n.log.Warn("the center granted what was not asked for", "id", r.ID, "place", r.Place)
			m.n.freeUnknown(wire.NewGrant(r.ID, r.Place))
		}
		return
	}
	if r.Place == 0 {
		if len(call.got) > 0 { // the end of a batch that is smaller than asked for
			m.finish(r.ID, call, nil)
		}
		m.mu.Unlock() // otherwise the reason follows
		return
	}
	b, err := m.adopt(wire.NewGrant(r.ID, r.Place), call.group, call.class)
	if err != nil {
		m.finish(r.ID, call, err)
		m.mu.Unlock()
		m.n.log.Error("the center granted an impossible block", "error", err)
		return
	}
	call.got = append(call.got, b)
	if len(call.got) == call.want {
		m.finish(r.ID, call, nil)
	}
	m.mu.Unlock()
}

// onRefusal takes the reason that follows a reply with place 0.
func (m *magazine) onRefusal(id uint32, reason error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if call := m.waiting[id]; call != nil {
		m.finish(id, call, fmt.Errorf("loan of class %d (%d bytes): %w", call.class, wire.GetAllocSize(int(call.class)), reason))
	}
}

// finish ends a call; m.mu is held.
func (m *magazine) finish(id uint32, call *allocCall, err error) {
	delete(m.waiting, id)
	call.err = err
	close(call.done)
	if call.left {
		go func() { // rare; put locks a class and may wake the housekeeper
			for _, b := range call.got {
				m.put(b)
			}
		}()
	}
}

// adopt makes the block of a grant; m.mu is held.
func (m *magazine) adopt(g wire.Grant, group *blockGroup, class uint8) (*block, error) {
	mem, gen, err := m.n.ownBlock(g.Place(), wire.BlockSize(class))
	if err != nil {
		return nil, err
	}
	word, err := wire.Message(g.Place(), gen)
	if err != nil {
		return nil, fmt.Errorf("a granted block at place %#x, generation %d: %w", g.Place(), gen, err)
	}
	b := &block{grant: g, gen: gen, class: class, group: group, home: group.class(class), word: word, mem: mem}
	m.grants[g] = b
	m.most = max(m.most, len(m.grants))
	return b, nil
}

// dropLink fails the calls that went with a link. Grants that come after are not in our report, so they are nobody's.
func (m *magazine) dropLink(lk *link) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, call := range m.waiting {
		if call.lk == lk {
			m.finish(id, call, ErrDisconnected)
		}
	}
}

// takeSurplus hands the housekeeper what is to be freed.
func (m *magazine) takeSurplus() []*block {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.surplus
	m.surplus = nil
	return s
}

// freed forgets blocks whose Free words have been sent.
func (m *magazine) freed(b *block) {
	m.mu.Lock()
	delete(m.grants, b.grant)
	m.mu.Unlock()
	m.n.garbage.Let(blockGarbage)
}

// report lists every grant this node holds.
func (m *magazine) report(f func(g wire.Grant, class uint8)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for g, b := range m.grants {
		f(g, b.class)
	}
}

// trim gives back idle blocks until at most maxBytes lie idle in all; big blocks go first.
func (m *magazine) trim(maxBytes uint64) {
	var idle uint64
	groups := m.allGroups()
	for _, g := range groups {
		for class := range g.classes {
			c := g.known(class)
			if c == nil {
				continue
			}
			c.mu.Lock()
			idle += uint64(c.idle.len()) * wire.BlockSize(uint8(class))
			c.mu.Unlock()
		}
	}
	for class := 255; class >= 0; class-- {
		for _, g := range groups {
			if idle <= maxBytes {
				return
			}
			if g.known(class) == nil {
				continue
			}
			n := int((idle - maxBytes + wire.BlockSize(uint8(class)) - 1) / wire.BlockSize(uint8(class)))
			idle -= uint64(m.cut(g, uint8(class), n)) * wire.BlockSize(uint8(class))
		}
	}
}

// cut gives up to n blocks of a class back, the coldest first, and returns how many.
func (m *magazine) cut(g *blockGroup, class uint8, n int) int {
	c := g.class(class)
	c.mu.Lock()
	floor := 0
	if class == initBlockClass && g == m.open {
		floor = 1 // frames to the center need one even when no memory is left
	}
	n = max(0, min(n, c.idle.len()-floor))
	if n == 0 {
		c.mu.Unlock()
		return 0
	}
	all := c.idle.all()
	cold := all[:n]
	c.idle.set(all[n:])
	c.low = min(c.low, len(all)-n)
	c.mu.Unlock()
	m.giveBack(cold...)
	return n
}
