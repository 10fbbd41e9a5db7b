package child

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain is the child, when asked to be.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "child" {
		if err := Run(context.Background(), os.Stdin, os.Stdout, testRole); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

type testConfig struct {
	Greeting string
	Fail     bool
}

func testRole(ctx context.Context, s *Session) error {
	var cfg testConfig
	if err := s.Config(&cfg); err != nil {
		return err
	}
	if cfg.Fail {
		return errors.New("told to fail")
	}
	if err := s.Emit("noise", 1); err != nil {
		return err
	}
	if err := s.Emit("ready", cfg.Greeting); err != nil {
		return err
	}
	var n int
	if err := s.Await(ctx, "double", &n); err != nil {
		return err
	}
	if err := s.Emit("doubled", 2*n); err != nil {
		return err
	}
	<-ctx.Done()
	if errors.Is(context.Cause(ctx), ErrParentGone) {
		return nil
	}
	return context.Cause(ctx)
}

func startChild(t *testing.T, cfg testConfig) *Process {
	t.Helper()
	p, err := Start("test child", os.Args[0], []string{"child"}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return p
}

func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestConversation(t *testing.T) {
	p, ctx := startChild(t, testConfig{Greeting: "hi"}), bounded(t)
	var greeting string
	if err := p.Await(ctx, "ready", &greeting); err != nil || greeting != "hi" {
		t.Fatalf("%q, %v", greeting, err)
	}
	if err := p.Send("double", 21); err != nil {
		t.Fatal(err)
	}
	var n int
	if err := p.Await(ctx, "doubled", &n); err != nil || n != 42 {
		t.Fatalf("%d, %v", n, err)
	}
	if err := p.Wait(ctx); err != nil { // closes its input: it ends
		t.Fatal(err)
	}
}

func TestFailureIsToldWithItsText(t *testing.T) {
	p, ctx := startChild(t, testConfig{Fail: true}), bounded(t)
	if err := p.Await(ctx, "ready", nil); err == nil || !strings.Contains(err.Error(), "told to fail") {
		t.Errorf("got %v", err)
	}
	if err := p.Wait(ctx); err == nil {
		t.Error("a child that failed ended well")
	}
}

func TestKilledChildIsNoticed(t *testing.T) {
	p, ctx := startChild(t, testConfig{}), bounded(t)
	if err := p.Await(ctx, "ready", nil); err != nil {
		t.Fatal(err)
	}
	p.Signal(syscall.SIGKILL)
	if err := p.Await(ctx, "never", nil); !errors.Is(err, ErrEnded) || !strings.Contains(err.Error(), "killed") {
		t.Errorf("got %v", err)
	}
}

func TestSpawnKeepsStderr(t *testing.T) {
	p, err := Spawn("sh", "/bin/sh", []string{"-c", "echo $GREETING >&2; exit 3"}, "GREETING=hello")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(bounded(t)); err == nil || !strings.Contains(err.Error(), "hello") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("got %v", err)
	}
	if _, err := Spawn("nothing", "/nonexistent", nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestRunWithoutParent(t *testing.T) {
	err := Run(t.Context(), strings.NewReader(""), io.Discard, testRole)
	if err == nil || !strings.Contains(err.Error(), "own use") {
		t.Errorf("got %v", err)
	}
}

func TestTail(t *testing.T) {
	var tl tail
	for i := range 3 * tailBytes / 10 {
		fmt.Fprintf(&tl, "%09d\n", i)
	}
	s := tl.String()
	if len(s) != tailBytes || !strings.HasSuffix(s, fmt.Sprintf("%09d\n", 3*tailBytes/10-1)) {
		t.Errorf("%d bytes, ends in %q", len(s), s[len(s)-12:])
	}
}

// TestLastWordsCount: what the parent said right before it closed the pipe is heard.
func TestLastWordsCount(t *testing.T) {
	for range 200 {
		in := `{"command":"start","data":null}` + "\n" + `{"command":"close"}` + "\n"
		err := Run(t.Context(), strings.NewReader(in), io.Discard, func(ctx context.Context, s *Session) error {
			return s.Await(ctx, "close", nil)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
