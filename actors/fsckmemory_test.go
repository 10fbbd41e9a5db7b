package actors

import (
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio"
)

// spoil has a session see another segment in place of a node's: a copy, in which the test has changed something. Nobody can
// change the node's own.
func spoil(t *testing.T, n *nodeSegment, change func(mem []byte)) (heal func()) {
	t.Helper()
	was := n.seg
	fake, err := shmio.HeapSegment(shmio.SegmentSpec{Kind: was.Kind(), Number: was.Number(), Size: was.Size(), Base: was.Base(), Generation: was.Generation()})
	if err != nil {
		t.Error(err)
		return func() {}
	}
	from, err1 := was.Memory(0, was.Size())
	to, err2 := fake.Memory(0, was.Size())
	if err := errors.Join(err1, err2); err != nil {
		t.Error(err)
		return func() {}
	}
	copy(to, from)
	change(to)
	n.seg = fake
	return func() { n.seg = was }
}

// Where the words are in the halves (docs/abi.md section 4).
const (
	offDepth, offTail, offDropTo, offJoined, offRing = 12, 128, 256, 400, 640
	offHead, offClaim                                = 128, 136
)

func TestCheckFindsSpoiltWords(t *testing.T) {
	b := newSickBus(t)
	le := binary.NativeEndian
	var table, slots uint64
	b.writer(func(_ *session, r *sessionRoute) { slots = uint64(r.open.GetSlots()); table = offRing + 8*slots })()
	for _, c := range []struct {
		kind, words string
		reader      bool
		change      func(half []byte)
	}{
		{faultHalf, "the writer half: it is of route 0x7", false, func(m []byte) { le.PutUint64(m, 7) }},
		{faultHalf, "invalid route", false, func(m []byte) { le.PutUint32(m[8:], 3) }},
		{faultHalf, "told were", false, func(m []byte) { le.PutUint32(m[offDepth:], 15) }},
		{faultHalf, "there is none", true, func(m []byte) { le.PutUint64(m, 0) }},
		{faultHalf, "the reader half is of route 0x7", true, func(m []byte) { le.PutUint64(m, 7) }},
		{faultWord, "head", true, func(m []byte) { le.PutUint64(m[offHead:], le.Uint64(m[offHead:])+1000) }},
		{faultWord, "claim", true, func(m []byte) { le.PutUint64(m[offClaim:], le.Uint64(m[offHead:])+1000) }},
		{faultWord, "dropTo", false, func(m []byte) { le.PutUint64(m[offDropTo:], le.Uint64(m[offTail:])+1) }},
		{faultWord, "tail", false, func(m []byte) { le.PutUint64(m[offTail:], le.Uint64(m[offTail:])+2*slots) }},
		{faultWord, "what is out under sequence number", false, func(m []byte) {
			for at := table; ; at += 16 {
				if le.Uint64(m[at:]) != 0 {
					le.PutUint64(m[at+8:], 3) // a command
					return
				}
			}
		}},
		{faultWord, "names a segment that isn't known", false, func(m []byte) {
			for at := table; ; at += 16 {
				if le.Uint64(m[at:]) != 0 {
					le.PutUint64(m[at+8:], uint64(1<<30)<<4)
					return
				}
			}
		}},
		{faultWord, ", at ", false, func(m []byte) {
			for at := uint64(offRing); at < table; at += 8 { // all that was ever pushed
				le.PutUint64(m[at:], 1|7<<1)
			}
		}},
	} {
		var heal func()
		plant := func(s *session, r *sessionRoute) {
			heal = spoil(t, s.control[r.half.GetSegment()], func(mem []byte) { c.change(mem[r.half.GetOffset():]) })
		}
		back := func(*session, *sessionRoute) { heal() }
		if c.reader {
			b.finds(t, c.kind, c.words, b.reader(plant), b.reader(back))
		} else {
			b.finds(t, c.kind, c.words, b.writer(plant), b.writer(back))
		}
	}
	var half *bhomev1.Half
	elsewhere := func(_ *session, r *sessionRoute) { half = r.half; r.half = &bhomev1.Half{Segment: 77, Offset: 4096} }
	back := func(_ *session, r *sessionRoute) { r.half = half }
	b.finds(t, faultHalf, "the writer half is said to be in segment 77", b.writer(elsewhere), b.writer(back))
	b.finds(t, faultHalf, "the reader half is said to be in segment 77", b.reader(elsewhere), b.reader(back))
	// A half that was told long ago, and never taken note of.
	var heal func()
	long := func(_ *session, r *sessionRoute) { r.since -= int64(2 * longAnswered) }
	b.reader(long)()
	b.finds(t, faultHalf, "has never taken note of the reader's half", b.writer(func(s *session, r *sessionRoute) {
		long(s, r)
		heal = spoil(t, s.control[r.half.GetSegment()], func(mem []byte) { le.PutUint64(mem[r.half.GetOffset()+offJoined:], 0) })
	}), b.writer(func(*session, *sessionRoute) { heal() }))
	// The link's queues.
	seg0 := func(change func(s *session, mem []byte)) func(*session, *sessionRoute) {
		return func(s *session, _ *sessionRoute) {
			n := &nodeSegment{seg: s.adm.seg0}
			heal = spoil(t, n, func(mem []byte) { change(s, mem) })
			was := s.adm.seg0
			s.adm.seg0 = n.seg
			heal = func() { s.adm.seg0 = was }
		}
	}
	for words, change := range map[string]func(s *session, mem []byte){
		"up queue 0: shmio: corrupt route": func(s *session, mem []byte) {
			up := mem[s.adm.hello.GetUp()[0].GetOffset():]
			le.PutUint64(up[offTail:], le.Uint64(up[offTail:])+1000)
		},
		"up queue 1, at ": func(s *session, mem []byte) {
			up := mem[s.adm.hello.GetUp()[1].GetOffset():]
			at := le.Uint64(up[offTail:])
			le.PutUint64(up[offRing+8*(at%256):], 1|1<<1) // NodeInitReply: the wrong direction
			le.PutUint64(up[offTail:], at+1)
		},
		"down queue 2: shmio: corrupt route": func(s *session, mem []byte) {
			down := mem[s.adm.hello.GetDown()[2].GetOffset():]
			le.PutUint64(down[offHead:], le.Uint64(down[offHead:])+9)
		},
	} {
		b.finds(t, faultWord, words, b.writer(seg0(change)), b.writer(func(*session, *sessionRoute) { heal() }))
	}
	b.finds(t, faultHalf, "down queue 3", b.writer(seg0(func(s *session, mem []byte) { le.PutUint64(mem[s.adm.hello.GetDown()[3].GetOffset():], 0) })),
		b.writer(func(*session, *sessionRoute) { heal() }))
	b.clean()
}

// A process of the center's alone accounts for what it has open and mapped; the node is another process.
func TestCheckAccountsForDescriptorsAndMappings(t *testing.T) {
	b := newTestBus(t, withPatients, func(c *Config) { c.Alone = true })
	_, childID := b.child()
	pid := b.sessionPID(childID)
	alone := func(x *check) { x.alone = true }
	var baseline map[shmio.Inode]bool
	var public shmio.Inode
	operate(b, b.pid, func(c *center) {
		baseline = map[shmio.Inode]bool{}
		for id := range c.checks.baseline {
			baseline[id] = true
		}
		public, _ = c.public.FD().Inode()
	})
	// The pipes to the child, the bells, and what other tests keep, are the test's.
	for _, d := range must(shmio.Descriptors()) {
		if d.Number > 2 && (strings.HasPrefix(d.Target, "pipe:") || strings.HasPrefix(d.Target, "socket:")) {
			baseline[d.Inode] = true
		}
	}
	operate(b, pid, func(s *session) { // but not the session's
		for _, id := range []shmio.Inode{must(s.hears.Inode()), must(s.adm.bell.Inode())} {
			delete(baseline, id)
		}
	})
	look := func() *FaultsReply {
		return b.check(alone, func(x *check) { x.baseline, x.public = baseline, public })
	}
	eventually(t, func() string { return faultText(look()) })
	expect := func(kind string, words ...string) {
		t.Helper()
		r := look()
		for _, w := range words {
			found := false
			for _, f := range r.Faults {
				found = found || f.GetKind() == kind && strings.Contains(f.GetWhat(), w)
			}
			if !found {
				t.Errorf("no %s fault with %q; found:\n%s", kind, w, faultText(r))
			}
		}
	}
	stray := must(shmio.CreateSegment("stray", shmio.SegmentSpec{Kind: shmio.KindData, Number: 9, Size: 64 << 10}))
	expect(faultMapping, "/memfd:stray")
	expect(faultDescriptor, "memfd:stray")
	closeSegment(stray)
	read, write := must2(shmio.NewBell())
	expect(faultDescriptor, "socket:")
	closeFDs([]*shmio.FD{read, write})
	other := must(shmio.PidfdOpen(os.Getppid()))
	expect(faultDescriptor, "a pidfd of process")
	closeFDs([]*shmio.FD{other})
	pair := must(unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0))
	expect(faultDescriptor, "socket:")
	closeFDs([]*shmio.FD{shmio.NewFD(pair[0]), shmio.NewFD(pair[1])})
	// Too much of what is known, and too little.
	var dup *shmio.FD
	var again *shmio.Segment
	operate(b, pid, func(s *session) {
		dup = must(s.control[0].fd.Dup())
		again = must(shmio.OpenSegment(must(s.control[0].fd.Dup()), shmio.Want{Kinds: []shmio.Kind{shmio.KindProcess}, MaxSize: 4 << 20, CloseFD: true}))
	})
	expect(faultDescriptor, "control segment 0 of child")
	expect(faultMapping, "is mapped 2 times; its records imply 1")
	closeFDs([]*shmio.FD{dup})
	closeSegment(again)
	operate(b, pid, func(s *session) { s.dropped = append(s.dropped, s.control[0]) })
	expect(faultDescriptor, "is open 1 times; its records imply 2")
	expect(faultMapping, "is mapped 1 times; its records imply 2")
	operate(b, pid, func(s *session) { s.dropped = nil })
	var fd *shmio.FD
	operate(b, pid, func(s *session) {
		fd = s.control[0].fd
		closed := must(fd.Dup())
		closeFDs([]*shmio.FD{closed})
		s.control[0].fd = closed
	})
	expect(faultDescriptor, "control segment 0: look at a descriptor")
	operate(b, pid, func(s *session) { s.control[0].fd = fd })
	if text := faultText(look()); text != "" {
		t.Errorf("faults are left:\n%s", text)
	}
}

func must2[A, B any](a A, b B, err error) (A, B) {
	if err != nil {
		panic(err)
	}
	return a, b
}
