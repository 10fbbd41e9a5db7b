package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// The example says what it is to say, and leaves no goroutine, descriptor or mapping behind.
func TestRun(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	dir := t.TempDir()
	var out bytes.Buffer
	// Once to let the runtime open what it keeps open: its poller.
	if err := run(ctx, &out, filepath.Join(dir, "warm.sock")); err != nil {
		t.Fatal(err)
	}
	routines, before := goleak.IgnoreCurrent(), open(t)
	out.Reset()
	if err := run(ctx, &out, filepath.Join(dir, "bus.sock")); err != nil {
		t.Fatalf("%v; it said:\n%s", err, &out)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		// The framework keeps a goroutine for a second after a dead letter: ask until it has gone.
		now, leak := open(t), goleak.Find(routines)
		if now == before && leak == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("left: %s, before: %s; %v", now, before, leak)
		}
	}
	round := fmt.Sprintf(`up:   camera, process %[1]d of uid %[2]d
proc:  camera is online, index 0
msg:   10000 bytes on camera.front, owned by camera, held by [camera]
topic: camera.front, from [camera] to [camera]
camera says "hello"
the clerk answers with type 1001: good day, camera
down: camera: it has left
`, os.Getpid(), os.Getuid())
	want := "round 1: bus \"embedded\" listens\n" + round + "round 1: the center has stopped\n" +
		"round 2: bus \"embedded\" listens\n" + round + "round 2: the center has stopped\n" +
		"the host's screen has written 18 lines, and never stopped\n"
	if sorted(out.String()) != sorted(want) {
		t.Errorf("it said:\n%s\nwant, in about this order:\n%s", &out, want)
	}
	if left, err := os.ReadDir(dir); err != nil || strings.Contains(fmt.Sprint(left), "bus.sock]") {
		t.Errorf("left in the socket's folder: %v %v", left, err)
	}
}

// sorted gives lines the same order, whichever answer came first.
func sorted(s string) string {
	lines := strings.Split(s, "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// open says what this process has open: descriptors and mappings of memfds.
func open(t *testing.T) string {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%d descriptors, %d mappings", len(fds), strings.Count(string(maps), "/memfd:"))
}
