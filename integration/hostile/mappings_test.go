package hostile

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/bhome-bus/bhome/actors"
	"github.com/bhome-bus/bhome/node"
)

// eatMappings takes all mappings that this process may still have: pages of alternating protection are one each. Before, it
// sees to it that there is heap enough: a program in Go that can't map more ends, whatever library it uses.
func eatMappings() (giveBack func() error, err error) {
	const heap = 128 << 20
	spare := make([]byte, heap)
	for i := 0; i < heap; i += 4096 {
		spare[i] = 1
	}
	runtime.KeepAlive(spare)
	spare = nil
	runtime.GC()
	stripes := func(pages int) ([]byte, error) {
		page := os.Getpagesize()
		mem, err := unix.Mmap(-1, 0, pages*page, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
		for i := page; err == nil && i+page < len(mem); i += 2 * page {
			err = unix.Mprotect(mem[i:i+page], unix.PROT_READ)
		}
		return mem, err
	}
	// A few go back once there are no more: this binary may be built with cgo, and then ends when it can't map a new thread's
	// stack. Segments leave twice as many.
	few, err := stripes(32)
	if err != nil {
		return nil, err
	}
	all, err := stripes(1 << 20) // more than anybody's limit
	if all == nil || !errors.Is(err, unix.ENOMEM) {
		return nil, fmt.Errorf("there is no end of mappings: %w", err)
	}
	if err := unix.Munmap(few); err != nil {
		return nil, err
	}
	return func() error { return unix.Munmap(all) }, nil
}

// logLines is a log that can be waited for.
type logLines struct{ *logBook }

func newLogLines() logLines { return logLines{&logBook{changed: make(chan struct{})}} }

func (l logLines) await(words ...string) string {
	for {
		l.mu.Lock()
		text, changed := l.text.String(), l.changed
		l.mu.Unlock()
		for line := range strings.Lines(text) {
			has := true
			for _, w := range words {
				has = has && strings.Contains(line, w)
			}
			if has {
				return strings.TrimSpace(line)
			}
		}
		<-changed // whoever started us ends us if it never comes
	}
}

// mappingsRole is a node that has a subscription and no mapping left; a line for each thing that it comes to.
func mappingsRole() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	log := newLogLines()
	context.AfterFunc(ctx, func() {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) { // what it waits for in the log never came
			fmt.Printf("too late; its log: %q\n", log)
			os.Exit(1)
		}
	})
	n, err := node.Attach(ctx, node.Config{Name: "mappings", Logger: hclog.New(&hclog.LoggerOptions{Output: log})})
	if err != nil {
		return err
	}
	news, err := n.Subscribe(ctx, "news", node.OnFull(node.Block))
	if err != nil {
		return err
	}
	pub, err := n.Publisher(ctx, "own")
	if err != nil {
		return err
	}
	receive := func(s *node.Subscription) error {
		m, err := s.Receive(ctx)
		if err != nil {
			return err
		}
		fmt.Printf("received %d %x\n", len(m.Bytes()), m.Bytes()[len(m.Bytes())-1])
		return m.Release()
	}
	fmt.Println("ready")
	if err := receive(news); err != nil { // its publisher is known
		return err
	}
	giveBack, err := eatMappings()
	if err != nil {
		return err
	}
	fmt.Println("eaten")
	refused := func(what string, err error) {
		var le *node.LimitError
		if !errors.As(err, &le) {
			fmt.Printf("%s: %v\n", what, err)
			return
		}
		fmt.Printf("%s: limit %s: %v: %v\n", what, le.Limit, errors.Is(err, node.ErrNoMemory), err)
	}
	_, err = node.Attach(ctx, node.Config{Name: "second"})
	refused("attach", err)
	_, err = pub.Loan(ctx, 16<<20)
	refused("loan", err)
	in := bufio.NewScanner(os.Stdin)
	late, err := n.Subscribe(ctx, "late") // of a node that we have nothing of yet
	fmt.Println("subscribe:", err)
	fmt.Println("subscribed, and told:", log.await("can't be followed", "ROUTE_PEER", "max_map_count"))
	if err := pub.Publish(ctx, []byte("it goes on")); err != nil {
		return err
	}
	if err := receive(news); err != nil { // small: it needs no new memory
		return err
	}
	fmt.Println("goes on")
	in.Scan() // a message is under way in a segment that we can't map
	fmt.Println("told:", log.await("ROUTE_SEGMENTS", "max_map_count"))
	if err := giveBack(); err != nil {
		return err
	}
	if err := receive(news); err != nil { // it was kept
		return err
	}
	if err := late.Close(ctx); err != nil {
		return err
	}
	if late, err = n.Subscribe(ctx, "late"); err != nil {
		return err
	}
	fmt.Println("subscribed")
	if err := receive(late); err != nil {
		return err
	}
	l, err := pub.Loan(ctx, 16<<20)
	if err == nil {
		err = l.Release()
	}
	if err != nil {
		return err
	}
	fmt.Println("all works")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// A node that has no mapping left is told so wherever it needs one, goes on with what needs none, and gets what was sent to it
// meanwhile once it has some.
func TestNodeWithoutMappings(t *testing.T) {
	d := startDaemon(t)
	a, b := attach(t, d, "a"), attach(t, d, "b")
	pub, err := a.Publisher(t.Context(), "news", node.AllowBlock(patience))
	if err != nil {
		t.Fatal(err)
	}
	l := startLimited(t, d, "mappings")
	l.line("ready")
	send := func(p *node.Publisher, b []byte) {
		t.Helper()
		if err := p.Publish(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	late, err := b.Publisher(t.Context(), "late")
	if err != nil {
		t.Fatal(err)
	}
	send(pub, []byte{1})
	l.line("received 1 1")
	l.line("eaten")
	if text := l.line("attach: limit mappings: true"); !strings.Contains(text, "vm.max_map_count") {
		t.Error(text)
	}
	if text := l.line("loan: limit mappings: true"); !strings.Contains(text, "vm.max_map_count") {
		t.Error(text)
	}
	l.line("subscribe: ")
	l.line("subscribed, and told: ")
	d.log.wait(t, "a node closes a route", "mappings", "vm.max_map_count", fmt.Sprintf("pid=%d ", l.cmd.Process.Pid))
	send(pub, []byte{2})
	l.line("received 1 2")
	l.line("goes on")
	works(t, a, b, "t", 10, 1000, 4<<20) // the others know nothing of it
	big := bytes.Repeat([]byte{3}, 16<<20)
	send(pub, big)
	fmt.Fprintln(l.in, "go")
	l.line("told: ")
	l.line(fmt.Sprintf("received %d 3", len(big)))
	l.line("subscribed")
	send(late, []byte{4})
	l.line("received 1 4")
	l.line("all works")
	_ = l.in.Close()
	if err := l.cmd.Wait(); err != nil {
		t.Errorf("the node ended with %v", err)
	}
	d.stop(t)
}

// centerRole is a center, as bhomed has it, that eats its mappings and gives them back as it is told.
func centerRole() error {
	system := actor.NewActorSystem(actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger { return slog.New(slog.DiscardHandler) }))
	defer system.Shutdown()
	cfg := actors.DefaultConfig()
	cfg.Socket, cfg.Logger = os.Getenv("BHOME_SOCKET"), slog.New(slog.NewTextHandler(os.Stderr, nil))
	pid, _, err := actors.Spawn(system.Root, "center", cfg)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	in := bufio.NewScanner(os.Stdin)
	in.Scan()
	giveBack, err := eatMappings()
	if err != nil {
		return err
	}
	fmt.Println("eaten")
	in.Scan()
	if err := giveBack(); err != nil {
		return err
	}
	fmt.Println("given back")
	in.Scan()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return actors.Stop(ctx, system, pid)
}

// A center that has no mapping left refuses newcomers and new segments by that limit, ends nobody's link for it, and takes them
// again once it has some.
func TestCenterWithoutMappings(t *testing.T) {
	d := &daemon{socket: filepath.Join(t.TempDir(), "s"), log: newLogLines().logBook}
	l := startLimitedLogging(t, d, "center", d.log)
	l.line("ready")
	a, b := attach(t, d, "a"), attach(t, d, "b")
	works(t, a, b, "t", 10, 1000)
	pub, err := a.Publisher(t.Context(), "big")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(l.in, "eat")
	l.line("eaten")
	wantLimit := func(err error) {
		t.Helper()
		var le *node.LimitError
		if !errors.As(err, &le) || !errors.Is(err, node.ErrNoMemory) || le.Limit != "mappings" || !strings.Contains(le.Whose, "bhomed") ||
			!strings.Contains(err.Error(), "vm.max_map_count") {
			t.Errorf("%v, want the limit of bhomed's mappings", err)
		}
	}
	for range 3 {
		_, err = node.Attach(t.Context(), node.Config{Name: "late", Socket: d.socket})
		wantLimit(err)
		_, err = pub.Loan(t.Context(), 16<<20)
		wantLimit(err)
	}
	d.log.wait(t, "a process is refused", "limit=mappings", fmt.Sprintf("pid=%d ", os.Getpid()))
	d.log.wait(t, "there is no room for a node's segment", "name=a", "limit=mappings")
	works(t, a, b, "t2", 10, 1000)
	fmt.Fprintln(l.in, "give back")
	l.line("given back")
	works(t, a, b, "t3", 10, 1000, 16<<20)
	works(t, attach(t, d, "late"), b, "t4", 10, 1000, 16<<20)
	if err := a.Err(); err != nil {
		t.Error(err)
	}
	if strings.Contains(d.log.String(), "link is cut") {
		t.Errorf("a link was cut:\n%s", d.log)
	}
}
