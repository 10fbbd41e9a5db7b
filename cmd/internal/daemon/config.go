// Package daemon is bhomed without its main: the configuration with its file and flags, and running the center as a
// daemon. It owns the process (signals, the logger, the actor system) and never reaches into the center.
package daemon

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/bhome-bus/bhome/cmd/internal/logging"
	"github.com/bhome-bus/bhome/cmd/internal/units"
)

// Config is what bhomed can be told, by defaults, then the file, then flags. For every limit 0 stands for the center's
// own default, which bhomed prints when it is ready.
type Config struct {
	// Bus is the bus's name: 1 to 64 letters, digits, '-', '_' and '.', not beginning with '.'.
	Bus string `toml:"bus"`
	// Socket is the path to listen on; "" takes the first usable of BHOME_SOCKET, $XDG_RUNTIME_DIR/bhome/<bus>.sock and
	// /run/bhome/<bus>.sock.
	Socket string `toml:"socket"`
	// SocketMode is the permission bits of the socket, who may connect: "0600" (this user), "0660" (its group too; "" is
	// that) to "0666" (everybody).
	//
	// Where access.attach lists who, "" is "0666": the list decides.
	SocketMode FileMode  `toml:"socket_mode"`
	Access     Access    `toml:"access"`
	Limits     Limits    `toml:"limits"`
	Heartbeat  Heartbeat `toml:"heartbeat"`
	Log        Log       `toml:"log"`

	at map[string]string // file and line, of keys that a file has set
}

// Limits bounds what nodes may take. Bytes count whole shared segments.
type Limits struct {
	Bus          units.Bytes `toml:"bus"`           // of all nodes; 0: half of the memory, or of the memory cgroup
	UID          units.Bytes `toml:"uid"`           // of all nodes of one user; 0: as bus
	Node         units.Bytes `toml:"node"`          // of one node; 0: as bus
	MaxMessage   units.Bytes `toml:"max_message"`   // one message's payload
	DefaultQuota units.Bytes `toml:"default_quota"` // of unreturned blocks per route, where a subscriber names none; at most an eighth of node
	Route        units.Bytes `toml:"route"`         // the most of them, whatever a subscriber names; 0: as node
	Reserve      units.Bytes `toml:"reserve"`       // what a sender's quotas must leave of its limit

	Procs                int `toml:"procs"`                  // distinct names in the proc table, at most 65536
	NamesPerUID          int `toml:"names_per_uid"`          // of them, those that one user may ever take
	Sessions             int `toml:"sessions"`               // living processes
	SessionsPerUID       int `toml:"sessions_per_uid"`       // of them, those of one user
	SegmentsPerNode      int `toml:"segments_per_node"`      // shared memory segments of one process
	SegmentsPerUID       int `toml:"segments_per_uid"`       // of the processes of one user
	RoutesPerUID         int `toml:"routes_per_uid"`         // queues from and to the processes of one user
	SubscriptionsPerUID  int `toml:"subscriptions_per_uid"`  // of the processes of one user, and as many services
	TopicsPerUID         int `toml:"topics_per_uid"`         // published by the processes of one user, and as many services asked
	RoutesPerNode        int `toml:"routes_per_node"`        // queues from and to one process
	SubscriptionsPerNode int `toml:"subscriptions_per_node"` // of one process, and as many services
	TopicsPerNode        int `toml:"topics_per_node"`        // published by one process, and as many services asked by it
	Topics               int `toml:"topics"`                 // distinct topics of the bus
}

// Heartbeat says when a silent node is called unresponsive and what then.
type Heartbeat struct {
	// Offline is the silence after which a node is unresponsive: not chosen as a provider any more.
	Offline units.Duration `toml:"offline"`
	// Kill is the silence after which a node is ended, if KillUnresponsive is set.
	Kill units.Duration `toml:"kill"`
	// KillUnresponsive ends (SIGKILL) processes that have been silent for Kill. Off unless the operator wants it.
	KillUnresponsive bool `toml:"kill_unresponsive"`
}

// Log says what is logged, on standard error.
type Log struct {
	Level logging.Level `toml:"level"`
	JSON  bool          `toml:"json"`
}

// Defaults of what the center leaves to the program.
const (
	DefaultBus     = "default"
	DefaultOffline = 15 * time.Second
	DefaultKill    = 60 * time.Second

	minOffline = 100 * time.Millisecond
	maxSilence = 24 * time.Hour
	maxProcs   = 65536
	minBytes   = 1 << 20
	minMessage = 64
)

// Default is the configuration with no file and no flags.
func Default() Config {
	return Config{
		Bus:       DefaultBus,
		Access:    Access{Attach: []string{everybody}, Inspect: []string{everybody}},
		Heartbeat: Heartbeat{Offline: units.Duration(DefaultOffline), Kill: units.Duration(DefaultKill)},
		Log:       Log{Level: logging.Info},
	}
}

// Validate says everything that is wrong with c, by the keys of the file.
func (c Config) Validate() error {
	var errs []error
	bad := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: %s", c.where(key), fmt.Sprintf(format, args...)))
	}
	if err := checkBus(c.Bus); err != nil {
		bad("bus", "%v", err)
	}
	// sockaddr_un.sun_path holds 108 bytes with its terminating zero.
	if len(c.Socket) > 107 {
		bad("socket", "%d bytes, a Unix socket's path has at most 107", len(c.Socket))
	}
	if c.Socket != "" && strings.ContainsRune(c.Socket, 0) {
		bad("socket", "contains a zero byte")
	}
	if c.SocketMode > 0o777 {
		bad("socket_mode", "%v has more than permission bits", c.SocketMode)
	} else if c.SocketMode != 0 && c.SocketMode&0o600 != 0o600 {
		bad("socket_mode", "%v shuts out its own user", c.SocketMode)
	}
	offline, kill := time.Duration(c.Heartbeat.Offline), time.Duration(c.Heartbeat.Kill)
	if offline < minOffline || offline > maxSilence {
		bad("heartbeat.offline", "%v, must be %v to %v", offline, minOffline, maxSilence)
	}
	if kill < offline || kill > maxSilence {
		bad("heartbeat.kill", "%v, must be heartbeat.offline (%v) to %v", kill, offline, maxSilence)
	}
	if !c.Log.Level.Valid() {
		bad("log.level", "%v", c.Log.Level)
	}
	c.Limits.validate(bad)
	if _, err := c.Access.center(c.where); err != nil {
		errs = append(errs, err)
	}
	if len(errs) == 0 { // what is good here is good for the center
		a, err := c.center(nil)
		if err == nil {
			err = a.Validate()
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	return nil
}

// where names a key in messages: with file and line, if a file has set it.
func (c Config) where(key string) string {
	if at := c.at[key]; at != "" {
		return at + ": " + key
	}
	return key
}

func checkBus(name string) error {
	if len(name) == 0 || len(name) > 64 {
		return fmt.Errorf("%d bytes, must be 1 to 64", len(name))
	}
	for i, r := range name {
		ok := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.' && i > 0
		if !ok {
			return fmt.Errorf("%q: only letters, digits, '-', '_' and '.' (not first)", name)
		}
	}
	return nil
}

func (l Limits) validate(bad func(key, format string, args ...any)) {
	atLeast := func(key string, n, least, most int) {
		if n != 0 && (n < least || n > most) {
			bad("limits."+key, "%d, must be %d to %d, or 0 for the default", n, least, most)
		}
	}
	count := func(key string, n, most int) { atLeast(key, n, 1, most) }
	count("procs", l.Procs, maxProcs)
	count("names_per_uid", l.NamesPerUID, maxProcs)
	count("sessions", l.Sessions, 1<<20)
	count("sessions_per_uid", l.SessionsPerUID, 1<<20)
	atLeast("segments_per_node", l.SegmentsPerNode, 2, 8192)
	atLeast("segments_per_uid", l.SegmentsPerUID, 2, 1<<30)
	count("routes_per_uid", l.RoutesPerUID, 1<<30)
	count("subscriptions_per_uid", l.SubscriptionsPerUID, 1<<30)
	count("topics_per_uid", l.TopicsPerUID, 1<<30)
	count("routes_per_node", l.RoutesPerNode, 1<<20)
	count("subscriptions_per_node", l.SubscriptionsPerNode, 1<<20)
	count("topics_per_node", l.TopicsPerNode, 1<<24)
	count("topics", l.Topics, 1<<31-1)
	for _, b := range []struct {
		key string
		n   units.Bytes
	}{{"bus", l.Bus}, {"uid", l.UID}, {"node", l.Node}} {
		if b.n != 0 && b.n < minBytes {
			bad("limits."+b.key, "%v, at least %v", b.n, units.Bytes(minBytes))
		}
	}

	most := func(key string, n units.Bytes, of string, limit units.Bytes) {
		if n != 0 && limit != 0 && n > limit {
			bad("limits."+key, "%v is more than limits.%s (%v)", n, of, limit)
		}
	}
	most("uid", l.UID, "bus", l.Bus)
	most("node", l.Node, "uid", l.UID)
	most("node", l.Node, "bus", l.Bus)
	most("max_message", l.MaxMessage, "node", l.Node)
	most("reserve", l.Reserve, "node", l.Node)
	most("route", l.Route, "node", l.Node)
	if l.MaxMessage > math.MaxUint32 {
		bad("limits.max_message", "%v, messages are under 4 GiB", l.MaxMessage)
	} else if l.MaxMessage != 0 && l.MaxMessage < minMessage {
		bad("limits.max_message", "%v, at least %v", l.MaxMessage, units.Bytes(minMessage))
	}
}

// FileMode is permission bits, written in octal: "0600".
type FileMode os.FileMode

// String is octal with a leading zero; "" if unset.
func (m FileMode) String() string {
	if m == 0 {
		return ""
	}
	return fmt.Sprintf("%#o", uint32(m))
}

// Set makes FileMode a flag value.
func (m *FileMode) Set(s string) error {
	if s == "" {
		*m = 0
		return nil
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(s, "0o"), 8, 32)
	if err != nil {
		return fmt.Errorf(`%q is not an octal mode such as "0600"`, s)
	}
	*m = FileMode(n)
	return nil
}

// Type makes FileMode a flag value.
func (m *FileMode) Type() string { return "mode" }

// UnmarshalTOML makes FileMode a TOML value: text, for a number doesn't say whether it is octal.
func (m *FileMode) UnmarshalTOML(v any) error {
	s, ok := v.(string)
	if !ok {
		return fmt.Errorf(`%v must be an octal mode in quotes, such as "0660"`, v)
	}
	return m.Set(s)
}

// MarshalText writes what UnmarshalTOML reads.
func (m FileMode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }
