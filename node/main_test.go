package node_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// eventually waits until f says nothing any more; what it says last is the failure.
func eventually(t testing.TB, f func() string) {
	t.Helper()
	end := time.Now().Add(20 * time.Second)
	for {
		what := f()
		if what == "" {
			return
		}
		if time.Now().After(end) {
			t.Fatal(what)
		}
		time.Sleep(time.Millisecond)
	}
}

// noLeak fails a test that ends with more descriptors, or mappings of memfds, than it began with. Call it first.
func noLeak(t testing.TB) {
	t.Helper()
	count := func() (fds, maps int) {
		d, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		m, err := os.ReadFile("/proc/self/maps")
		if err != nil {
			t.Fatal(err)
		}
		return len(d), strings.Count(string(m), "/memfd:")
	}
	if r, w, err := os.Pipe(); err == nil { // the runtime's own poller is there from now on
		r.Close()
		w.Close()
	}
	fds, maps := count()
	t.Cleanup(func() {
		eventually(t, func() string {
			if f, m := count(); f > fds || m > maps {
				return fmt.Sprintf("%d descriptors and %d mappings before, %d and %d after", fds, maps, f, m)
			}
			return ""
		})
	})
}
