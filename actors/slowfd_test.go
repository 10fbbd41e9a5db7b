package actors

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio"
)

// fuseFolder makes this test binary the server of a FUSE file system that is mounted there. It is a process of its own: one
// that dies while it waits for its own file system can't be ended.
const fuseFolder = "BHOME_TEST_FUSE"

// fuseMain mounts, says so, serves, and is silent once it reads something.
func fuseMain() bool {
	dir := os.Getenv(fuseFolder)
	if dir == "" {
		return false
	}
	dev, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err == nil {
		err = unix.Mount("bhome-test", dir, "fuse", unix.MS_NOSUID|unix.MS_NODEV, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", dev))
	}
	if err != nil {
		fmt.Println("no:", err)
		return true
	}
	var silent atomic.Bool
	go func() {
		in := bufio.NewReader(os.Stdin)
		if _, err := in.ReadByte(); err == nil {
			silent.Store(true)
			fmt.Println("silent")
			_, _ = in.ReadByte() // until whoever started us ends
		}
		os.Exit(0)
	}()
	fmt.Println("mounted")
	serveFUSE(dev, &silent)
	return true
}

// silentFile is a file of two pages on a FUSE file system whose server has stopped to answer: whoever asks anything of it, and
// closing it asks, waits for ever. release ends the server, and with it all waiting; says has a line for each who reads it.
// false: this user may mount none.
func silentFile(t *testing.T) (file *shmio.FD, says *bufio.Reader, release func(), ok bool) {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env, cmd.Stderr = append(os.Environ(), fuseFolder+"="+dir), os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	says = bufio.NewReader(out)
	line, _ := says.ReadString('\n') // its end says nothing
	mounted := line == "mounted\n"
	release = sync.OnceFunc(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()         // by the signal
		if err := unix.Unmount(dir, unix.MNT_DETACH); mounted && err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(release) // before the center ends, which waits for what it is closing
	if !mounted {
		t.Log(line)
		return nil, nil, release, false
	}
	n, err := unix.Open(filepath.Join(dir, "file"), unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	if line, err := says.ReadString('\n'); line != "silent\n" {
		t.Fatal(line, err)
	}
	return shmio.NewFD(n), says, release, true
}

// serveFUSE answers what opening one file takes (linux/fuse.h), and nothing once it is silent.
func serveFUSE(dev int, silent *atomic.Bool) {
	const lookup, getattr, open, read, initialize = 1, 3, 14, 15, 26
	buf := make([]byte, 256<<10)
	le := binary.NativeEndian
	for {
		n, err := unix.Read(dev, buf)
		if err == unix.EINTR || err == unix.ENOENT || err == unix.EAGAIN {
			continue
		}
		if err != nil || n < 40 {
			return
		}
		if silent.Load() {
			if le.Uint32(buf[4:]) == read {
				fmt.Println("read")
			}
			continue
		}
		attr := func(b []byte, node, mode uint64) {
			le.PutUint64(b, node)
			le.PutUint64(b[8:], uint64(2*os.Getpagesize()))
			le.PutUint32(b[60:], uint32(mode))
			le.PutUint32(b[64:], 1) // links
		}
		var body []byte
		switch le.Uint32(buf[4:]) {
		case initialize:
			body = make([]byte, 64)
			le.PutUint32(body, 7)
			le.PutUint32(body[4:], 31)
			le.PutUint32(body[20:], 4096) // the most that is written at once
		case lookup:
			body = make([]byte, 128)
			le.PutUint64(body, 2)
			attr(body[40:], 2, unix.S_IFREG|0o666)
		case getattr:
			body = make([]byte, 104)
			attr(body[16:], 1, unix.S_IFDIR|0o777)
		case open:
			body = make([]byte, 16)
		default:
			continue
		}
		out := make([]byte, 16, 16+len(body))
		le.PutUint32(out, uint32(16+len(body)))
		copy(out[8:16], buf[8:16]) // the request's number
		if _, err := unix.Write(dev, append(out, body...)); err != nil {
			return
		}
	}
}

// Descriptors that never let go of whoever looks at them, or closes them: who gives them is refused, or cut off, and named
// at once, and nobody else waits.
func TestDescriptorsThatNeverAnswer(t *testing.T) {
	b := newTestBus(t)
	slow, _, release, ok := silentFile(t)
	if !ok {
		t.Log("no FUSE file system can be mounted here: lingering sockets (bhctl bench hostile) have to do")
		return
	}
	other := b.onlineRaw("other")
	// Each is passed, and what bhomed gets of it is its own to close.
	hello := bhomev1.MsgType_MSG_TYPE_HELLO
	for at, name := range []string{"segment 0", "data segment", "bell"} {
		r, h := rawHello(t, "slow")
		r.dial(b.socket)
		fds := []*shmio.FD{r.seg0.FD(), r.data.FD(), r.bell()}
		fds[at] = slow
		r.send(hello, h, fds...)
		if why := r.refusal(); why.GetCode() != bhomev1.ErrorCode_ERROR_CODE_INVALID_INPUT {
			t.Errorf("%s: %v", name, why)
		}
		r.close()
	}
	b.log.wait(t, "a process is refused", fmt.Sprintf("pid=%d", pidOf(t)))
	r := b.onlineRaw("slow1")
	r.send(bhomev1.MsgType_MSG_TYPE_SEGMENT_ADD, &bhomev1.SegmentAdd{
		Segment: &bhomev1.SegmentRef{Number: 2, Kind: uint32(shmio.KindControl)}, Size: 1 << 16}, slow)
	b.log.wait(t, "a node's link is cut", "name=slow1", fmt.Sprintf("pid=%d", pidOf(t)))
	r = b.onlineRaw("slow2")
	r.send(bhomev1.MsgType_MSG_TYPE_ROUTE_HALF, &bhomev1.RouteHalf{HasBell: true}, slow)
	b.log.wait(t, "a node's link is cut", "name=slow2", "not a bell", fmt.Sprintf("pid=%d", pidOf(t)))
	other.alive()
	b.onlineRaw("late").alive()
	release()
	_ = slow.Close() // its server is gone
}

// A node rings the center's bell from memory whose pages never come, and reads its own into such memory: it waits, in the
// kernel, and nobody with it.
func TestMemoryThatNeverComes(t *testing.T) {
	b := newTestBus(t)
	slow, says, release, ok := silentFile(t)
	if !ok {
		t.Log("no FUSE file system can be mounted here: memory that never comes can't be had")
		return
	}
	page := os.Getpagesize()
	mem, err := unix.Mmap(slow.Int(), 0, 2*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	other, r := b.onlineRaw("other"), b.onlineRaw("slow")
	ended := make(chan error, 2)
	begin := func(f func(fd int, p []byte) (int, error), bell *shmio.FD, p []byte) {
		t.Helper()
		fd := bell.Int()
		go func() {
			_, err := f(fd, p)
			ended <- err
		}()
		if line, err := says.ReadString('\n'); line != "read\n" {
			t.Fatal(line, err)
		}
	}
	begin(unix.Write, r.center, mem[:4])
	r.alive() // rings that bell
	other.alive()
	if _, err := unix.Write(r.rings.Int(), make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	begin(unix.Read, r.hears, mem[page:])
	r.down[0].Arm()
	r.alive() // makes the center ring
	eventually(t, func() string {
		if n, err := unix.IoctlGetInt(r.hears.Int(), unix.SIOCINQ); n <= 4 {
			return fmt.Sprintf("the center hasn't rung: %d, %v", n, err)
		}
		return ""
	})
	other.alive()
	b.onlineRaw("late").alive()
	release()
	for range 2 {
		if err := <-ended; err != unix.EFAULT {
			t.Error(err)
		}
	}
	_ = slow.Close() // its server is gone
	if err := unix.Munmap(mem); err != nil {
		t.Error(err)
	}
}
