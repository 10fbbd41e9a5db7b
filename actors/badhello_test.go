package actors

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio"
	"github.com/bhome-bus/bhome/wire"
)

// own makes a descriptor the node's, to be closed with it.
func (r *rawNode) own(n int, err error) *shmio.FD {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
	fd := shmio.NewFD(n)
	r.toClose = append(r.toClose, func() { closeFDs([]*shmio.FD{fd}) })
	return fd
}

func (r *rawNode) pipe() *shmio.FD {
	r.t.Helper()
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		r.t.Fatal(err)
	}
	r.own(p[0], nil)
	return r.own(p[1], nil)
}

// memfd is a memfd of a size with seals; what write does to it comes before the seals.
func (r *rawNode) memfd(flags int, size int64, seals int, write func(fd int)) *shmio.FD {
	r.t.Helper()
	n, err := unix.MemfdCreate("bad", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|flags)
	fd := r.own(n, err)
	if err := unix.Ftruncate(n, size); err != nil {
		r.t.Skip("no such memfd here:", err)
	}
	if write != nil {
		write(n)
	}
	if _, err := unix.FcntlInt(uintptr(n), unix.F_ADD_SEALS, seals); err != nil {
		r.t.Fatal(err)
	}
	return fd
}

const allSeals = unix.F_SEAL_FUTURE_WRITE | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL

// Each of these is refused with a clear reason; the center goes on and keeps nothing.
func TestBadHello(t *testing.T) {
	invalid := bhomev1.ErrorCode_ERROR_CODE_INVALID_INPUT
	hello := bhomev1.MsgType_MSG_TYPE_HELLO
	good := func(r *rawNode) []*shmio.FD { return []*shmio.FD{r.seg0.FD(), r.data.FD(), r.bell()} }
	with := func(at int, f func(r *rawNode) *shmio.FD) func(r *rawNode, h *bhomev1.Hello) {
		return func(r *rawNode, h *bhomev1.Hello) {
			fds := good(r)
			fds[at] = f(r)
			r.send(hello, h, fds...)
		}
	}
	hellos := func(change func(h *bhomev1.Hello)) func(r *rawNode, h *bhomev1.Hello) {
		return func(r *rawNode, h *bhomev1.Hello) {
			change(h)
			r.send(hello, h, good(r)...)
		}
	}
	raw := func(b []byte) func(r *rawNode, h *bhomev1.Hello) {
		return func(r *rawNode, _ *bhomev1.Hello) {
			if err := r.conn.Send(b, good(r)...); err != nil {
				r.t.Fatal(err)
			}
		}
	}
	segment := func(spec shmio.SegmentSpec) func(r *rawNode) *shmio.FD {
		return func(r *rawNode) *shmio.FD {
			s, err := shmio.CreateSegment("bad", spec)
			if err != nil {
				r.t.Fatal(err)
			}
			r.toClose = append(r.toClose, func() { closeSegment(s) })
			s.Publish(shmio.StateLaidOut)
			return s.FD()
		}
	}
	for _, c := range []struct {
		name string
		send func(r *rawNode, h *bhomev1.Hello)
		code bhomev1.ErrorCode
		text string
	}{
		{"rubbish", raw([]byte("GET / HTTP/1.1\r\n\r\n")), invalid, "frame"},
		{"one byte", raw([]byte{0}), invalid, "frame"},
		{"lengths that lie", raw([]byte{0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4}), invalid, "frame"},
		{"bytes behind the frame", func(r *rawNode, h *bhomev1.Hello) {
			raw(append(must(encodeFrame(&bhomev1.Head{Type: uint32(hello)}, h)), 0))(r, h)
		}, invalid, "frame"},
		{"a head that is none", raw(wire.AppendFrame(nil, []byte{0xff, 0xff}, nil)), invalid, "head"},
		{"a body that is none", raw(wire.AppendFrame(nil, must(marshal(&bhomev1.Head{Type: uint32(hello)})), []byte{0xff, 0xff})), invalid, "frame"},
		{"another type", func(r *rawNode, h *bhomev1.Hello) { r.send(bhomev1.MsgType_MSG_TYPE_REGISTER, h, good(r)...) }, invalid, "message type 10 where Hello"},
		{"an unknown type", func(r *rawNode, h *bhomev1.Hello) { r.send(99999, h, good(r)...) }, invalid, "99999"},
		{"no descriptors", func(r *rawNode, h *bhomev1.Hello) { r.send(hello, h) }, invalid, "0 descriptors"},
		{"two descriptors", func(r *rawNode, h *bhomev1.Hello) { r.send(hello, h, good(r)[:2]...) }, invalid, "2 descriptors"},
		{"eight descriptors", func(r *rawNode, h *bhomev1.Hello) {
			g := good(r)
			r.send(hello, h, g[0], g[1], g[2], g[0], g[1], g[2], g[0], g[1])
		}, invalid, "8 descriptors"},
		{"three halves", hellos(func(h *bhomev1.Hello) { h.Down = h.Down[:3] }), invalid, "3 and 2 queues"},
		{"another ABI", hellos(func(h *bhomev1.Hello) { h.Abi = 7 << 16 }), bhomev1.ErrorCode_ERROR_CODE_INCOMPATIBLE_ABI, "7.0"},
		{"a pipe for segment 0", with(0, (*rawNode).pipe), invalid, "not a memfd"},
		{"a directory for segment 0", with(0, func(r *rawNode) *shmio.FD {
			return r.own(unix.Open(r.t.(*testing.T).TempDir(), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0))
		}), invalid, "not a memfd"},
		{"a file with a name that isn't UTF-8", with(0, func(r *rawNode) *shmio.FD {
			p := filepath.Join(r.t.(*testing.T).TempDir(), "\xff\xfe")
			if err := os.WriteFile(p, make([]byte, 8192), 0o600); err != nil {
				r.t.Fatal(err)
			}
			return r.own(unix.Open(p, unix.O_RDWR|unix.O_CLOEXEC, 0))
		}), invalid, "not a memfd"},
		{"a socket for segment 0", with(0, func(r *rawNode) *shmio.FD {
			return r.own(unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0))
		}), invalid, "not a memfd"},
		{"hugetlb for segment 0", with(0, func(r *rawNode) *shmio.FD { return r.memfd(unix.MFD_HUGETLB, 2<<20, allSeals, nil) }), invalid, "hugetlbfs"},
		{"an unsealed segment 0", with(0, func(r *rawNode) *shmio.FD { return r.memfd(0, 1<<16, 0, nil) }), invalid, "sealed"},
		{"a segment 0 that can grow", with(0, func(r *rawNode) *shmio.FD { return r.memfd(0, 1<<16, allSeals&^unix.F_SEAL_GROW, nil) }), invalid, "sealed"},
		{"an empty segment 0", with(0, func(r *rawNode) *shmio.FD { return r.memfd(0, 0, allSeals, nil) }), invalid, "size"},
		{"a segment 0 of one page", with(0, segment(shmio.SegmentSpec{Kind: shmio.KindProcess, Size: 8192})), invalid, "queue"},
		{"a segment 0 above 4 MiB", with(0, segment(shmio.SegmentSpec{Kind: shmio.KindProcess, Size: 8 << 20})), invalid, "size"},
		{"a segment 0 of zeros", with(0, func(r *rawNode) *shmio.FD { return r.memfd(0, 1<<18, allSeals, nil) }), invalid, "magic"},
		{"a header of another size", with(0, func(r *rawNode) *shmio.FD {
			return r.memfd(0, 1<<17, allSeals, func(fd int) { r.copyHeader(fd) })
		}), invalid, "size"},
		{"a data segment for segment 0", with(0, func(r *rawNode) *shmio.FD { return r.data.FD() }), invalid, "it is a data segment"},
		{"segment 0 for the data segment", with(1, func(r *rawNode) *shmio.FD { return r.seg0.FD() }), invalid, "it is a process segment"},
		{"a pipe for the data segment", with(1, (*rawNode).pipe), invalid, "not a memfd"},
		{"a memfd for the bell", with(2, func(r *rawNode) *shmio.FD { return r.data.FD() }), invalid, "bell"},
		{"a half that isn't aligned", hellos(func(h *bhomev1.Hello) { h.Down[2].Offset += 8 }), invalid, "down queue 2"},
		{"a half outside", hellos(func(h *bhomev1.Hello) { h.Up[1].Offset = 256<<10 - 128 }), invalid, "up queue 1"},
		{"a half far outside", hellos(func(h *bhomev1.Hello) { h.Up[0].Offset = 1<<64 - 128 }), invalid, "up queue 0"},
		{"a half in the header", hellos(func(h *bhomev1.Hello) { h.Down[0].Offset = 0 }), invalid, "down queue 0"},
		{"a half in another segment", hellos(func(h *bhomev1.Hello) { h.Up[0].Segment = 1 }), invalid, "up queue 0"},
		{"a half that isn't there", hellos(func(h *bhomev1.Hello) { h.Up[0].Offset = 128 << 10 }), invalid, "up queue 0"},
		{"two queues on one half", hellos(func(h *bhomev1.Hello) { h.Up[1].Offset = h.Up[0].Offset }), invalid, "up queue 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newTestBus(t)
			before := countResources(t)
			r, h := rawHello(t, "bad")
			r.dial(b.socket)
			c.send(r, h)
			why := r.refusal()
			if why.GetCode() != c.code || !strings.Contains(strings.ToLower(why.GetMessage()), strings.ToLower(c.text)) {
				t.Errorf("refused with %v; want %v, %q", why, c.code, c.text)
			}
			b.log.wait(t, "refused")
			r.close()
			noLeak(t, before)
			eventually(t, func() string {
				if n := b.counter("segment_bytes") + b.counter("sessions"); n != 0 {
					return "something is still counted"
				}
				return ""
			})
			b.onlineRaw("good").alive() // nobody else suffers
		})
	}
}

// copyHeader writes segment 0's header to another file.
func (r *rawNode) copyHeader(fd int) {
	r.t.Helper()
	mem, err := r.seg0.Memory(0, 4096)
	if err != nil {
		r.t.Fatal(err)
	}
	if _, err := unix.Pwrite(fd, mem, 0); err != nil {
		r.t.Fatal(err)
	}
}

// Whoever connects and says nothing, or hangs up, costs nothing.
func TestSilentConnections(t *testing.T) {
	b := newTestBus(t, func(c *Config) { c.Limits.SessionsPerUID = 8 })
	b.counter("procs")
	before := countResources(t)
	for range 3 {
		var rs []*rawNode
		for range 8 {
			r, _ := rawHello(t, "silent")
			r.dial(b.socket)
			rs = append(rs, r)
		}
		for _, r := range rs {
			r.close()
		}
		eventually(t, func() string { // their places are free again
			r, h := rawHello(t, "next")
			defer r.close()
			r.dial(b.socket)
			r.send(bhomev1.MsgType_MSG_TYPE_HELLO, h, r.seg0.FD(), r.data.FD(), r.bell())
			if head, _, _, err := r.receive(); err != nil || head.GetType() != uint32(bhomev1.MsgType_MSG_TYPE_WELCOME) {
				return "no Welcome after the silent ones have gone"
			}
			return ""
		})
	}
	noLeak(t, before)
}
