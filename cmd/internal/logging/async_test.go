package logging

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

func TestAsyncKeepsOrderAndFlushes(t *testing.T) {
	var buf bytes.Buffer
	a := NewAsync(&buf, 1<<20)
	var want strings.Builder
	for i := range 1000 {
		fmt.Fprintf(a, "line %d\n", i)
		fmt.Fprintf(&want, "line %d\n", i)
	}
	a.Close(nil)
	if buf.String() != want.String() {
		t.Errorf("%d bytes, want %d", buf.Len(), want.Len())
	}
}

func TestAsyncNeverWaitsForItsReader(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	a := NewAsync(w, 4<<10)
	line := []byte(strings.Repeat("x", 99) + "\n")
	for range 5000 { // a pipe holds 64 KiB: this would block for ever
		if n, err := a.Write(line); n != len(line) || err != nil {
			t.Fatal(n, err)
		}
	}
	giveUp := make(chan struct{})
	close(giveUp)
	a.Close(giveUp) // nor does Close
	got := make(chan string)
	go func() {
		var b bytes.Buffer
		_, _ = b.ReadFrom(r)
		got <- b.String()
	}()
	select {
	case <-a.done:
	case <-time.After(20 * time.Second):
		t.Fatal("the writer goes on although its reader reads")
	}
	w.Close()
	if text := <-got; !strings.Contains(text, "lines of the log were dropped") {
		t.Errorf("%d bytes and no word of what was dropped", len(text))
	}
	r.Close()
}
