package daemon

import (
	"errors"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/BurntSushi/toml"

	"github.com/bhome-bus/bhome/cmd/internal/logging"
	"github.com/bhome-bus/bhome/cmd/internal/units"
)

const example = "../../../bhomed.example.toml"

func TestExampleNamesEveryKeyWithItsDefault(t *testing.T) {
	c := Default()
	if err := Load(example, &c); err != nil {
		t.Fatal(err)
	}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	// These two are the center's defaults, spelled out for the reader.
	want := Default()
	want.Limits.DefaultQuota, want.Limits.Procs = 32<<20, 65536
	c.at = nil
	if !reflect.DeepEqual(c, want) {
		t.Errorf("the example changes defaults:\n got %+v\nwant %+v", c, want)
	}
	var tree map[string]any
	md, err := toml.DecodeFile(example, &tree)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range Keys() {
		if !md.IsDefined(strings.Split(k, ".")...) {
			t.Errorf("the example doesn't mention %s", k)
		}
	}
}

func TestUnknownKeys(t *testing.T) {
	for _, tc := range []struct{ text, key, nearest, at string }{
		{"bus = \"a\"\nsoket = \"/x\"\n", "soket", "socket", "f.toml:2"},
		{"[limits]\n\nnoed = 1\n", "limits.noed", "limits.node", "f.toml:3"},
		{"[heartbeat]\noffline = \"1s\"\nLevel = 1\n", "heartbeat.Level", "log.level", "f.toml:3"},
		{"limits.max_mesage = 5\n", "limits.max_mesage", "limits.max_message", "f.toml:1"},
		{"# a\n[logs]\nlevel = \"info\"\njson = true\n", "logs", "log", "f.toml:2"},
		{"[wholly.unheard]\nof = 1\n", "wholly.unheard", "", "f.toml:1"},
	} {
		c := Default()
		err := Parse("f.toml", []byte(tc.text), &c)
		if !errors.Is(err, ErrUnknownKey) {
			t.Errorf("%q: %v, want ErrUnknownKey", tc.text, err)
			continue
		}
		e := (*UnknownKeyError)(nil)
		if !errors.As(err, &e) || e.Key != tc.key || !strings.HasPrefix(err.Error(), tc.at+": ") {
			t.Errorf("%q: %v, want key %q at %s", tc.text, err, tc.key, tc.at)
		}
		if e.Nearest != tc.nearest {
			t.Errorf("%q: nearest is %q, want %q", tc.text, e.Nearest, tc.nearest)
		}
		if strings.Count(err.Error(), "unknown key") != 1 {
			t.Errorf("%q: told more than once: %v", tc.text, err)
		}
		if !reflect.DeepEqual(c, Default()) {
			t.Errorf("%q: a refused file was applied: %+v", tc.text, c)
		}
	}
}

func TestBadValuesNameTheLine(t *testing.T) {
	for text, want := range map[string]string{
		"\n[heartbeat]\noffline = 15\n":       "f.toml:3",
		"[limits]\nbus = \"many\"\n":          "f.toml:2",
		"bus = \"x\nsocket = 1\n":             "f.toml:1",
		"[log]\nlevel = \"verbose\"\n":        "f.toml:2",
		"[log]\njson = \"yes\"\n":             "f.toml:2",
		"socket_mode = \"rw\"\n":              "f.toml:1",
		"bus = \"a\"\nbus = \"b\"\n":          "f.toml:2",
		"[limits]\nprocs = 1\n[limits]\n":     "f.toml:3",
		"[limits]\nprocs = \"65536 maybe\"\n": "f.toml:2",
	} {
		c := Default()
		if err := Parse("f.toml", []byte(text), &c); err == nil || !strings.HasPrefix(err.Error(), want+": ") {
			t.Errorf("%q: %v, want an error at %s", text, err, want)
		}
	}
}

func TestLoadMissingFile(t *testing.T) {
	c := Default()
	if err := Load(t.TempDir()+"/none.toml", &c); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestValidateNamesEachKey(t *testing.T) {
	c := Default()
	if err := c.Validate(); err != nil {
		t.Fatalf("defaults: %v", err)
	}
	for key, spoil := range map[string]func(*Config){
		"bus":                    func(c *Config) { c.Bus = "../etc" },
		"socket":                 func(c *Config) { c.Socket = "/" + strings.Repeat("x", 107) },
		"socket_mode":            func(c *Config) { c.SocketMode = 0o066 },
		"heartbeat.offline":      func(c *Config) { c.Heartbeat.Offline = 0 },
		"heartbeat.kill":         func(c *Config) { c.Heartbeat.Kill = units.Duration(time.Second) },
		"log.level":              func(c *Config) { c.Log.Level = logging.Level(9) },
		"limits.procs":           func(c *Config) { c.Limits.Procs = 65537 },
		"limits.uid":             func(c *Config) { c.Limits.Bus, c.Limits.UID = 1<<20, 2<<20 },
		"limits.node":            func(c *Config) { c.Limits.UID, c.Limits.Node = 1<<20, 2<<20 },
		"limits.max_message":     func(c *Config) { c.Limits.MaxMessage = 4 << 30 },
		"limits.routes_per_node": func(c *Config) { c.Limits.RoutesPerNode = -1 },
	} {
		c := Default()
		spoil(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), key+": ") {
			t.Errorf("%s: %v", key, err)
		}
	}
}

func TestKeys(t *testing.T) {
	keys := Keys()
	for _, k := range []string{"bus", "limits.node", "heartbeat.kill_unresponsive", "log.json"} {
		if !slices.Contains(keys, k) {
			t.Errorf("%s is missing from %v", k, keys)
		}
	}
}
