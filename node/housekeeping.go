package node

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"time"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio"
	"github.com/bhome-bus/bhome/wire"
)

const (
	retryFirst = 5 * time.Millisecond // for routes and segments that are about to be let go
	retryMost  = 500 * time.Millisecond
	beatUsual  = 5 * time.Second
)

// housekeep is the goroutine that gives surplus back, takes back what readers returned after the last send, frees routes
// that are over, and says that we live. It sleeps while there is nothing to do but that.
func (n *Node) housekeep() {
	every, last := n.beatEvery(), time.Now()
	beat := time.NewTimer(every)
	defer beat.Stop()
	retry := time.NewTimer(time.Hour)
	defer retry.Stop()
	wait := retryFirst
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-n.pokeC:
			wait = retryFirst
		case <-retry.C:
			wait = min(2*wait, retryMost)
		case <-beat.C:
			last = n.heartbeat(last)
			n.endClosedPeers()
			n.mag.trimIdle()
			n.trimSlots()
			n.clearSeats(seatIdle)
			n.mapLate()
			beat.Reset(every)
		}
		if e := n.beatEvery(); e != every { // another center has another wish, and the first makes itself known after our start
			every = e
			beat.Reset(every)
		}
		emptied := n.reclaimRoutes()
		n.backstopInboxes()
		n.giveSurplusBack()
		n.mag.shrink()
		reaped, unmapped := n.reap(), n.unmapRetired()
		n.exportCounters()
		n.garbage.Collect()
		if !emptied || !reaped || !unmapped {
			retry.Reset(wait)
		} else {
			retry.Reset(time.Hour)
		}
	}
}

func (n *Node) beatEvery() time.Duration {
	if lk := n.link.Load(); lk != nil && lk.limits.GetHeartbeatNs() > 0 {
		return time.Duration(lk.limits.GetHeartbeatNs())
	}
	return beatUsual
}

// backstopInboxes looks at every cold route once: a wake-up that was stolen is late, never lost.
func (n *Node) backstopInboxes() {
	n.mu.Lock()
	inboxes := make([]*shmio.Inbox, 0, len(n.sinks)+2)
	for _, s := range n.sinks {
		inboxes = append(inboxes, s.queue())
	}
	n.mu.Unlock()
	inboxes = append(inboxes, n.replies.inbox)
	n.replies.look()
	if lk := n.link.Load(); lk != nil {
		inboxes = append(inboxes, lk.down)
		for i := range lk.up {
			lk.up[i].w.WakeSpace()
		}
	}
	for _, in := range inboxes {
		in.Backstop()
	}
	for _, o := range n.outRoutes() {
		if len(o.gate) > 0 {
			o.w.WakeSpace()
		}
	}
}

// trimSlots lets go of what many messages held at once have left.
func (n *Node) trimSlots() {
	n.mu.Lock()
	places := make([]*slots, 0, len(n.sinks)+1)
	for _, s := range n.sinks {
		places = append(places, s.places())
	}
	n.mu.Unlock()
	for _, s := range append(places, &n.replies.slots) {
		s.trim()
	}
}

// heartbeat says that we live, where the center looks now and then. After a pause that was too long (we were stopped) it is
// told, so that it needn't look. It returns when this was; last is when the one before was.
func (n *Node) heartbeat(last time.Time) time.Time {
	n.mem.segment0.Counter(shmio.CounterBeats).Add(1) // pairs with the center's load
	now, lk := time.Now(), n.link.Load()
	if lk == nil || now.Sub(last) < 2*n.beatEvery() {
		return now
	}
	f, err := n.frame(uint32(bhomev1.MsgType_MSG_TYPE_HEARTBEAT), "", lk.session, 0, nil)
	if err == nil {
		// If the queue is full the center hears enough of us; a dead link is keepLink's business.
		ctx, cancel := context.WithTimeout(n.ctx, time.Second)
		err = lk.sendFrame(ctx, upCenter, wire.SocketNode, f)
		cancel()
	}
	if err != nil {
		n.log.Debug("no heartbeat was sent", "error", err)
	}
	return now
}

// giveSurplusBack sends Free for blocks that this node doesn't keep.
func (n *Node) giveSurplusBack() {
	lk := n.link.Load()
	if lk == nil {
		return // they are in the report to the next center, and freed then
	}
	blocks := n.mag.takeSurplus()
	for i, b := range blocks {
		if err := n.free(lk, b); err != nil {
			n.mag.mu.Lock()
			n.mag.surplus = append(n.mag.surplus, blocks[i:]...)
			n.mag.mu.Unlock()
			return
		}
	}
}

func (n *Node) free(lk *link, b *block) error {
	word, err := wire.Free{Grant: b.grant}.Encode()
	if err != nil {
		return fmt.Errorf("free a block: %w", err)
	}
	// Forgotten first: once the center knows, the place may be granted again or its segment dropped.
	n.mag.freed(b)
	if err := lk.sendWord(n.ctx, upCenter, word); err != nil {
		n.mag.mu.Lock()
		n.mag.grants[b.grant] = b
		n.mag.mu.Unlock()
		return err
	}
	return nil
}

// freeUnknown gives back a grant that we have no use for.
func (n *Node) freeUnknown(g wire.Grant) {
	lk := n.link.Load()
	word, err := wire.Free{Grant: g}.Encode()
	if lk == nil || err != nil {
		return
	}
	n.background(func(ctx context.Context) {
		_ = lk.sendWord(ctx, upCenter, word) // a dead link has forgotten the grant too
	})
}

// callers is where the program called us from, for Config.Debug.
func callers() string {
	var pcs [16]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])])
	var b strings.Builder
	for {
		f, more := frames.Next()
		if !strings.Contains(f.Function, "bhome/node.") && f.Function != "" {
			if b.Len() > 0 {
				b.WriteString(" < ")
			}
			fmt.Fprintf(&b, "%s:%d", f.File, f.Line)
		}
		if !more || b.Len() > 400 {
			return b.String()
		}
	}
}
