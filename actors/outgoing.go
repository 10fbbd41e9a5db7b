package actors

import (
	"fmt"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
)

// outgoing is what waits for a node to read its socket, in order. Whoever has taken it from connection.out may change it, and
// gives it back at once. A goroutine sends while there is something to be sent, and no longer: an idle node costs none.
type outgoing struct {
	frames  []outFrame
	seq     uint64 // of the last frame with descriptors that is sent,
	acked   uint64 // and acknowledged: a node's word beyond that counts as that
	running bool   // the goroutine is there
	broken  bool   // nothing can be sent any more; what waits is still let go of, so that nobody waits for that
	closed  bool   // nothing is taken any more
}

// ready tells whether the first frame can be sent, or let go of: at most maxUnacked of those with descriptors are unacknowledged.
func (o *outgoing) ready() bool {
	if len(o.frames) == 0 {
		return false
	}
	f := &o.frames[0]
	return o.closed || o.broken || f.body == nil || len(f.fds) == 0 || o.seq+1-o.acked <= maxUnacked
}

// start gives o back, and has a goroutine deal with what can be dealt with if none is at it.
func (k *connection) start(o *outgoing) {
	start := !o.running && o.ready()
	o.running = o.running || start
	k.out <- o
	if start {
		go k.write()
	}
}

// send queues a frame; it never blocks for long. The descriptors are the connection's.
func (k *connection) send(f outFrame) {
	k.transit.Add(int64(len(f.fds)))
	o := <-k.out
	if o.closed {
		k.out <- o
		k.letGo(f)
		return
	}
	o.frames = append(o.frames, f)
	waiting := len(o.frames)
	k.start(o)
	if waiting > maxQueued {
		k.deliver(&socketFault{fmt.Errorf("%d frames wait for the node to read its socket", waiting)})
		k.close() // who looks away for so long gets no more, and nobody waits for that
	}
}

// acknowledge hears how many frames with descriptors the node has got.
func (k *connection) acknowledge(upTo uint64) {
	o := <-k.out
	o.acked = max(o.acked, min(upTo, o.seq))
	k.start(o)
}

// close hangs up; the goroutines end.
func (k *connection) close() {
	if k.closed.CompareAndSwap(false, true) {
		close(k.done)
		_ = k.c.Close() // it is over either way
		o := <-k.out
		o.closed = true
		k.start(o) // it lets go of what waits: that can take as long as somebody else likes
	}
}

// write is the goroutine: it sends until there is nothing to be sent.
func (k *connection) write() {
	broken := false
	for {
		o := <-k.out
		o.broken = o.broken || broken
		if !o.ready() {
			o.running = false
			if len(o.frames) == 0 {
				o.frames = nil
			}
			k.out <- o
			return
		}
		f := o.frames[0]
		o.frames[0] = outFrame{}
		o.frames = o.frames[1:]
		skip, n := o.closed || o.broken || f.body == nil, uint64(0)
		if len(f.fds) > 0 && !skip {
			o.seq++ // before it is sent: its acknowledgement may be faster than we are
			n = o.seq
		}
		k.out <- o
		if skip {
			k.letGo(f)
			continue
		}
		b, err := encodeFrame(&bhomev1.Head{Type: uint32(f.typ), Seq: n}, f.body)
		if err == nil {
			err = k.c.Send(b, f.fds...)
		}
		k.letGo(f)
		if err != nil && !k.closed.Load() {
			k.deliver(&socketFault{fmt.Errorf("send %v: %w", f.typ, err)})
		}
		broken = err != nil
	}
}

// letGo closes the descriptors of a frame that was sent, or will not be.
func (k *connection) letGo(f outFrame) {
	closeFDs(f.fds)
	k.transit.Add(-int64(len(f.fds)))
	if f.written != nil {
		f.written()
	}
}
