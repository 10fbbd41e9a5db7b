package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bhome-bus/bhome/cmd/internal/exitcode"
)

// A value that can't be is an error with the file, the line, the key and what can be, before anything starts.
func TestWrongValuesSayWhere(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"[limits]\nroutes_per_uid = -5", "F:2: limits.routes_per_uid: -5, must be 1 to "},
		{"[limits]\nsegments_per_node = 1", "F:2: limits.segments_per_node: 1, must be 2 to "}, // the center's own bound
		{"[limits]\n\nsegments_per_uid = 1", "F:3: limits.segments_per_uid: 1, must be 2 to "},
		{"[limits]\nmax_message = 3", "F:2: limits.max_message: 3, at least 64"},
		{"[limits]\nbus = '1KiB'", "F:2: limits.bus: 1KiB, at least 1MiB"},
		{"[limits]\nbus = -5", "F:2: limits.bus: \"-5\" is not a number of bytes"},
		{"[limits]\nbus = '2MiB'\nuid = '4MiB'", "F:3: limits.uid: 4MiB is more than limits.bus"},
		{"[heartbeat]\noffline = '-3s'", "F:2: heartbeat.offline: -3s, must be 100ms to "},
		{"bus = 'a b'", "F:1: bus: "},
		{"socket_mode = 0o660", `F:1: socket_mode: 432 must be an octal mode in quotes, such as "0660"`},
		{"socket_mode = '0060'", "F:1: socket_mode: 060 shuts out its own user"},
		{"[access]\nattach = [1000]", `F:2: access.attach: a number, must be text in quotes, as in "1000"`},
		{"[access]\nattach = 'root'", `F:2: access.attach: text, must be a list`},
		{"[access]\nattach = ['root', 'no such user', '@no such group']", `F:2: access.attach: "no such user": there is no such user on this machine
F:2: access.attach: "@no such group": there is no such group on this machine`},
		{"[access]\nrule = [{name = 'q', topics = ['a..'], subscribe = ['root']}]", `F: access.rule "q": topics: bad topic "a.."`},
		{"[limits]\ntopics = '5'", "F:2: limits.topics: text, must be a whole number without quotes"},
		{"[log]\njson = 'yes'", "F:2: log.json: text, must be true or false"},
	} {
		file := filepath.Join(t.TempDir(), "bhomed.toml")
		if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		status, _, _, stderr := run(t, nil, "--check", "-c", file)
		if want := strings.ReplaceAll(c.want, "F:", file+":"); status != exitcode.Usage || !strings.Contains(stderr, want) {
			t.Errorf("%q: status %d, %q; want %d, %q", c.text, status, stderr, exitcode.Usage, want)
		}
	}
}

// What a flag says isn't the file's: the error doesn't send its reader there.
func TestWrongFlagsAreNotTheFiles(t *testing.T) {
	file := filepath.Join(t.TempDir(), "bhomed.toml")
	if err := os.WriteFile(file, []byte("[heartbeat]\noffline = '15s'\n[limits]\nbus = '1GiB'\nnode = '1MiB'"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ flag, value, key string }{{"offline", "1ns", "heartbeat.offline"}, {"limit-bus", "2KiB", "limits.bus"}} {
		_, _, _, stderr := run(t, nil, "--check", "-c", file, fmt.Sprintf("--%s=%s", c.flag, c.value))
		if !strings.Contains(stderr, c.key) || strings.Contains(stderr, fmt.Sprintf("%s:2: %s", file, c.key)) || strings.Contains(stderr, fmt.Sprintf("%s:4: %s", file, c.key)) {
			t.Errorf("--%s %s: %q", c.flag, c.value, stderr)
		}
	}
}
