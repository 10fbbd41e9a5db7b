package hostile

import (
	"context"
	"encoding/binary"
	"time"

	"golang.org/x/sys/unix"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio"
	"github.com/bhome-bus/bhome/wire"
)

func memoryAttacks() []Attack {
	return []Attack{
		{"half-writer", "as a publisher, writes rubbish into its half while it is read: cursors, words, lengths", true, fuzzWriterHalf},
		{"half-reader", "as a subscriber, writes rubbish into its half: cursors, claims, returns", true, fuzzReaderHalf},
		{"payloads", "publishes blocks whose headers, lengths and bytes change while they are read", true, changePayloads},
		{"returns", "returns what it doesn't hold, twice, and never", false, wrongReturns},
		{"headers", "writes rubbish into its segments' headers and counters", false, fuzzHeaders},
	}
}

// put stores 8 bytes of our own memory; the offset is a multiple of 8, so they are stored whole.
func put(mem []byte, at int, v uint64) { binary.NativeEndian.PutUint64(mem[at:], v) }
func get(mem []byte, at int) uint64    { return binary.NativeEndian.Uint64(mem[at:]) }

func fuzzWriterHalf(ctx context.Context, a *attacker) error {
	return a.again(ctx, func(ctx context.Context, r *rawNode) error {
		ro, err := r.publishes(ctx, evilTopic)
		if err != nil {
			return err
		}
		a.ready()
		for i := 0; ctx.Err() == nil && !r.gone(ro); i++ {
			for range a.rand.IntN(8) {
				at := 8 * a.rand.IntN(len(ro.mem)/8)
				if a.rand.IntN(2) == 0 || at < tailAt {
					at = []int{tailAt, 256, 384, 392, ringAt}[a.rand.IntN(5)]
				}
				put(ro.mem, at, a.oddNumber(get(ro.mem, tailAt)))
			}
			if i%8 == 0 { // enough for the victim to look, too few to be cut off for that
				ro.bell.Ring(uint32(ro.open.GetRoute()))
				pause(ctx, 50*time.Microsecond)
			}
			a.count++
		}
		return nil
	})
}

func fuzzReaderHalf(ctx context.Context, a *attacker) error {
	return a.again(ctx, func(ctx context.Context, r *rawNode) error {
		ro, err := r.subscribes(ctx, 1, goodTopic)
		if err != nil {
			return err
		}
		a.ready()
		for ctx.Err() == nil && !r.gone(ro) {
			at := 8 * a.rand.IntN(len(ro.mem)/8)
			if a.rand.IntN(2) == 0 {
				at = []int{128, 136, 144, 256, 384, 512}[a.rand.IntN(6)]
			}
			put(ro.mem, at, a.oddNumber(get(ro.theirs, tailAt)))
			a.count++
			pause(ctx, 20*time.Microsecond)
		}
		return nil
	})
}

// changePayloads publishes real blocks and goes on writing into them.
func changePayloads(ctx context.Context, a *attacker) error {
	return a.again(ctx, func(ctx context.Context, r *rawNode) error {
		const size, blocks = 2000, 16
		var places []uint32
		for i := range uint32(blocks) {
			p, err := r.alloc(ctx, i+1, size)
			if err != nil || p == 0 {
				return err
			}
			places = append(places, p)
		}
		ro, err := r.publishes(ctx, runTopic)
		if err != nil {
			return err
		}
		a.ready()
		var mems [][]byte
		topic := ro.open.GetTopics()[0].GetId()
		good := func(mem []byte) {
			h := wire.Header{Tag: wire.BlockTag, Size: size, Stamp: shmio.CoarseNow(), Seq: uint64(a.count), Topic: topic, Kind: wire.KindPublish, Publisher: r.index}
			_ = h.Put(mem) // it is long enough
		}
		for _, p := range places {
			mem, err := r.data.At(p, wire.HeaderSize+size)
			if err != nil {
				return err
			}
			good(mem)
			mems = append(mems, mem)
		}
		for ctx.Err() == nil && !r.gone(ro) {
			i := a.rand.IntN(blocks)
			good(mems[i])
			var run []shmio.Outgoing // messages that are said to lie in one block: some do, behind one another
			for k := range 1 + a.rand.IntN(4) {
				word, err := wire.Message(places[(i+k*a.rand.IntN(2))%blocks], uint16(r.data.Generation()))
				if err == nil {
					run = append(run, shmio.Outgoing{Word: word.Behind(a.rand.IntN(2) * k * wire.HeaderSize).WithMore()})
				}
			}
			if len(run) > 0 {
				ro.w.PushRun(run, run[0].Word.Alone(), size, nil)
				ro.w.Commit()
			}
			for range 200 { // under the reader's eyes
				mem := mems[a.rand.IntN(blocks)]
				put(mem, wire.HeaderSize+8*a.rand.IntN(size/8), a.rand.Uint64())
				binary.NativeEndian.PutUint32(mem[4:], uint32(a.rand.IntN(size+1))) // another length, that fits
			}
			if a.rand.IntN(64) == 0 { // or doesn't, or is no header at all
				put(mems[i], 8*a.rand.IntN(wire.HeaderSize/8), a.rand.Uint64())
			}
			_, _ = ro.w.Reclaim() // what comes back was ours all the time
			a.count++
		}
		return nil
	})
}

// wrongReturns receives as it should and gives back as it should not.
func wrongReturns(ctx context.Context, a *attacker) error {
	return a.again(ctx, func(ctx context.Context, r *rawNode) error {
		ro, err := r.subscribes(ctx, 1, goodTopic)
		if err != nil {
			return err
		}
		a.ready()
		var rec shmio.Record
		for ctx.Err() == nil && !r.gone(ro) {
			ok, err := ro.r.TryReceive(&rec)
			if err != nil {
				return err
			}
			if !ok {
				ro.r.Return(a.rand.Uint64(), get(ro.theirs, tailAt)-uint64(a.rand.IntN(64)))
				pause(ctx, 100*time.Microsecond)
				continue
			}
			a.count++
			if !rec.IsBlock() {
				continue
			}
			switch a.rand.IntN(4) {
			case 0: // never
			case 1:
				ro.r.Return(rec.Seq, rec.Seq, rec.Seq)
			default:
				ro.r.Return(rec.Seq)
			}
		}
		return nil
	})
}

// fuzzHeaders spoils what the center and tools read now and then.
func fuzzHeaders(ctx context.Context, a *attacker) error {
	return a.again(ctx, func(ctx context.Context, r *rawNode) error {
		a.ready()
		for ctx.Err() == nil && !r.isOver() {
			for _, s := range []*shmio.Segment{r.seg0, r.data} {
				mem, err := s.Memory(0, shmio.FirstBlock)
				if err != nil {
					return err
				}
				for range 64 {
					put(mem, 8*a.rand.IntN(len(mem)/8), a.oddNumber(s.Size()))
				}
			}
			var c bhomev1.CommonReply
			if err := r.call(ctx, 0, bhomev1.MsgType_MSG_TYPE_HEARTBEAT, &bhomev1.Heartbeat{}, &c); err != nil {
				return err
			}
			a.count++
		}
		return nil
	})
}

// badFDs are descriptors of every kind that is no segment; the caller closes them. Some of them make their receiver wait, or
// would, or take much.
func badFDs(a *attacker) (fds []*shmio.FD) {
	add := func(n int, err error) int {
		if err == nil {
			fds = append(fds, shmio.NewFD(n))
		}
		return n
	}
	memfd := func(flags int, size int64, seals int) {
		n, err := unix.MemfdCreate("bad", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|flags)
		if err != nil {
			return
		}
		_ = unix.Ftruncate(n, size) // hugetlb may have no pages: its size stays 0, which is as bad
		_, _ = unix.FcntlInt(uintptr(n), unix.F_ADD_SEALS, seals)
		add(n, nil)
	}
	const all = unix.F_SEAL_FUTURE_WRITE | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL
	memfd(0, 1<<20, 0)                  // unsealed: it could be cut under its reader's hands
	memfd(0, 1<<20, unix.F_SEAL_SHRINK) // not enough
	memfd(0, 1<<20, all)                // all zeros
	memfd(0, 16<<40, all)               // sparse
	memfd(0, 4097, all)                 // no page
	memfd(0, 0, all)                    // nothing
	memfd(unix.MFD_HUGETLB, 2<<20, all) // of huge pages
	add(unix.Open("/dev/zero", unix.O_RDWR|unix.O_CLOEXEC, 0))
	add(unix.Open("/dev/full", unix.O_RDWR|unix.O_CLOEXEC, 0))
	add(unix.Open("/proc/self/mem", unix.O_RDWR|unix.O_CLOEXEC, 0))
	add(unix.Open("/", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0))
	add(unix.Open("/etc/passwd", unix.O_RDONLY|unix.O_CLOEXEC, 0))
	add(unix.Eventfd(0, unix.EFD_CLOEXEC))
	add(unix.EpollCreate1(unix.EPOLL_CLOEXEC))
	add(unix.InotifyInit1(unix.IN_CLOEXEC))
	add(unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOCTTY, 0))
	var p [2]int
	if unix.Pipe2(p[:], unix.O_CLOEXEC) == nil {
		add(p[0], nil)
		add(p[1], nil)
	}
	if n := lingering(); n >= 0 {
		add(n, nil)
	}
	a.count += len(fds)
	return fds
}

// lingering is a TCP socket whose last close takes its time: it has unsent bytes, and lingers.
func lingering() int {
	l, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	defer unix.Close(l)
	c, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1
	}
	_ = unix.SetsockoptInt(l, unix.SOL_SOCKET, unix.SO_RCVBUF, 4096)
	loop := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	if unix.Bind(l, loop) != nil || unix.Listen(l, 1) != nil {
		_ = unix.Close(c)
		return -1
	}
	at, err := unix.Getsockname(l)
	if err == nil {
		_ = unix.Connect(c, at) // in progress; nobody accepts
		_ = unix.SetsockoptLinger(c, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 2})
		_, _ = unix.Write(c, make([]byte, 1<<20))
	}
	return c
}
