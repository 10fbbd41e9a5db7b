package pump

import (
	"sync"
	"sync/atomic"

	"github.com/bhome-bus/bhome/wire"
)

// Item is one word of a link's queue.
type Item struct {
	Queue uint8     // index in Config.Queues
	Word  wire.Word // as it stood in the ring
	Frame []byte    // of a control frame, inline or in a block: its bytes, valid until Batch.Done; nil for command words
}

// Batch is what a target gets: items in the order in which they lay in their queues. The target owns it until Done.
type Batch struct {
	Generation uint64 // of the pump: rises with each start
	Items      []Item

	free   *batches
	arena  []byte // what the frames of Items point into
	frames int
	out    atomic.Bool // not free
}

// batches is the batches of a link that are free. The one used last goes next: most links need one, and the others are not made.
// Safe for concurrent use.
type batches struct {
	credits chan struct{} // one for each that is free, made or not
	mu      sync.Mutex
	made    []*Batch
}

func newBatches(credits int) *batches {
	bs := &batches{credits: make(chan struct{}, credits)}
	for range credits {
		bs.credits <- struct{}{}
	}
	return bs
}

// take is for who has taken a credit.
func (bs *batches) take() *Batch {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	n := len(bs.made)
	if n == 0 {
		return &Batch{free: bs}
	}
	b := bs.made[n-1]
	bs.made = bs.made[:n-1]
	return b
}

func (bs *batches) put(b *Batch) {
	bs.mu.Lock()
	bs.made = append(bs.made, b)
	bs.mu.Unlock()
	bs.credits <- struct{}{} // never blocks: there is room for all there are
}

// keepArena is how many bytes of an idle batch's arena are kept for the next time.
const keepArena = 16 << 10

// Done gives the batch back, and with it the credit to drain as much again. Items and their frames must not be used
// afterwards. Done is called once for each batch; a second call before the batch is used again does nothing.
func (b *Batch) Done() {
	if b.out.CompareAndSwap(true, false) {
		b.reset()
		b.free.put(b)
	}
}

// recycle is Done of a batch that nobody got.
func (b *Batch) recycle() {
	b.out.Store(false)
	b.reset()
	b.free.put(b)
}

func (b *Batch) reset() {
	clear(b.Items)
	b.Items = b.Items[:0]
	b.frames = 0
	if cap(b.arena) > keepArena {
		b.arena = nil
	}
	b.arena = b.arena[:0]
}

// add appends a command word.
func (b *Batch) add(queue int, w wire.Word) {
	b.Items = append(b.Items, Item{Queue: uint8(queue), Word: w})
}

// addFrame appends a frame, copied. Where the arena has to grow, earlier frames stay where they are.
func (b *Batch) addFrame(queue int, w wire.Word, frame []byte) {
	from := len(b.arena)
	b.arena = append(b.arena, frame...)
	b.Items = append(b.Items, Item{Queue: uint8(queue), Word: w, Frame: b.arena[from:len(b.arena):len(b.arena)]})
	b.frames++
}
