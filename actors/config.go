package actors

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"golang.org/x/sys/unix"

	"github.com/bhome-bus/bhome/shmio"
	"github.com/bhome-bus/bhome/wire"
)

// Limits bound what nodes can make the bus hold. Bytes count whole segments, used or not.
type Limits struct {
	BusBytes             uint64 // all segments of all nodes
	UIDBytes             uint64 // those of one uid
	NodeBytes            uint64 // those of one node
	MaxMessage           uint64 // payload of one message
	DefaultQuota         uint64 // bytes a route may keep unreturned, where its subscriber doesn't say
	RouteBytes           uint64 // the most that a route may keep unreturned, whatever is asked for
	Reserve              uint64 // of a node's bytes, what routes' quotas leave free
	Procs                int    // names ever registered, at most 65,536
	NamesPerUID          int    // of them, those of one uid
	Sessions             int    // living nodes
	SessionsPerUID       int
	SegmentsPerNode      int
	SegmentsPerUID       int
	RoutesPerNode        int
	RoutesPerUID         int // of which its processes have an end; those of topics and of services apart
	SubscriptionsPerNode int // and as many services
	SubscriptionsPerUID  int
	TopicsPerNode        int // published, and as many services asked
	TopicsPerUID         int
	Topics               int // names the center gives ids to
}

// Config is what a center is told. Start from DefaultConfig.
type Config struct {
	Bus        string      // name
	Socket     string      // path; "" is the first usable of shmio.SocketCandidates
	SocketMode fs.FileMode // of the socket: who may connect
	Limits     Limits
	Access     Access // who may do what; not to be changed once it is given
	// OfflineAfter is how long a node may be silent before it counts as unresponsive; nodes are told to speak three times
	// as often. Nothing of an unresponsive node is reclaimed.
	OfflineAfter time.Duration
	// KillUnresponsive ends (SIGKILL) a process that has been silent for KillAfter. Off unless the operator asks for it.
	KillUnresponsive bool
	KillAfter        time.Duration
	Wait             shmio.WaitStrategy // of the pumps
	Logger           *slog.Logger       // nil: nothing is logged
	// Alone says that the process does nothing but run the center: a check (QueryFaults) then also finds descriptors and
	// mappings that are nobody's. Elsewhere they may be the program's.
	Alone bool

	hooks hooks
}

// hooks let tests look into the center.
type hooks struct {
	dropSessionEnd func(session uint64) bool // MsgRecords doesn't hear of this end
	beforeGrant    func()                    // in MsgRecords, before each chunk
	onFrame        func(typ uint32)          // in a Session, before each frame
	onQueue        func(direction string, queue int)
	mostSegments   int  // not 0: that many of all nodes
	ownTicks       bool // the test says when a second has passed
	wrap           func(actor.Actor) actor.Actor
}

// DefaultConfig is a center for this machine: half of its memory for the bus.
func DefaultConfig() Config {
	half := memoryLimit() / 2
	return Config{
		Bus: "default", SocketMode: 0o660,
		Limits: Limits{BusBytes: half, UIDBytes: half, NodeBytes: half, MaxMessage: min(1<<30, half/4), DefaultQuota: 32 << 20, RouteBytes: half,
			Reserve: 1 << 20, Procs: 65536, NamesPerUID: 32768, Sessions: 8192, SessionsPerUID: 8192, SegmentsPerNode: 512, SegmentsPerUID: 1 << 17,
			RoutesPerNode: 16384, RoutesPerUID: 1 << 20, SubscriptionsPerNode: 16384, SubscriptionsPerUID: 1 << 20,
			TopicsPerNode: 131072, TopicsPerUID: 1 << 20, Topics: 1 << 20},
		OfflineAfter: 15 * time.Second, KillAfter: 60 * time.Second,
	}
}

// memoryLimit is the machine's memory, or the limit of our memory cgroup if that is lower.
func memoryLimit() uint64 {
	var si unix.Sysinfo_t
	total := uint64(2 << 30)
	if err := unix.Sysinfo(&si); err == nil {
		total = uint64(si.Totalram) * uint64(si.Unit)
	}
	if n, ok := (shmio.Cgroups{}).Limit(); ok && n > 0 {
		total = min(total, n)
	}
	return total
}

// Validate says what is wrong with c, if anything.
func (c Config) Validate() error {
	var errs []error
	if err := shmio.ValidateBus(c.Bus); err != nil {
		errs = append(errs, err)
	}
	bad := func(name string, v, low, high any) {
		errs = append(errs, fmt.Errorf("%s: %v, must be %v to %v", name, v, low, high))
	}
	l := c.Limits
	for _, f := range []struct {
		name         string
		v, low, high uint64
	}{
		{"BusBytes", l.BusBytes, 1 << 20, 1 << 50}, {"UIDBytes", l.UIDBytes, 1 << 20, 1 << 50}, {"NodeBytes", l.NodeBytes, 1 << 20, 1 << 50},
		{"MaxMessage", l.MaxMessage, 64, wire.MaxMessage}, {"DefaultQuota", l.DefaultQuota, 1, 1 << 50}, {"RouteBytes", l.RouteBytes, 1, 1 << 50}, {"Reserve", l.Reserve, 0, l.NodeBytes},
		{"Procs", uint64(l.Procs), 1, 65536}, {"NamesPerUID", uint64(l.NamesPerUID), 1, 65536}, {"Sessions", uint64(l.Sessions), 1, 1 << 20},
		{"SessionsPerUID", uint64(l.SessionsPerUID), 1, 1 << 20}, {"SegmentsPerNode", uint64(l.SegmentsPerNode), 2, 8192},
		{"SegmentsPerUID", uint64(l.SegmentsPerUID), 2, 1 << 30},
		{"RoutesPerUID", uint64(l.RoutesPerUID), 1, 1 << 30}, {"SubscriptionsPerUID", uint64(l.SubscriptionsPerUID), 1, 1 << 30}, {"TopicsPerUID", uint64(l.TopicsPerUID), 1, 1 << 30},
		{"RoutesPerNode", uint64(l.RoutesPerNode), 1, 1 << 20}, {"SubscriptionsPerNode", uint64(l.SubscriptionsPerNode), 1, 1 << 20},
		{"TopicsPerNode", uint64(l.TopicsPerNode), 1, 1 << 24}, {"Topics", uint64(l.Topics), 1, 1 << 31},
	} {
		if f.v < f.low || f.v > f.high {
			bad(f.name, f.v, f.low, f.high)
		}
	}
	if c.OfflineAfter < 100*time.Millisecond {
		bad("OfflineAfter", c.OfflineAfter, 100*time.Millisecond, "any")
	}
	if c.KillAfter < c.OfflineAfter {
		bad("KillAfter", c.KillAfter, c.OfflineAfter, "any")
	}
	if c.SocketMode&^fs.ModePerm != 0 {
		errs = append(errs, fmt.Errorf("SocketMode: %v has more than permissions", c.SocketMode))
	}
	errs = append(errs, c.Access.validate()...)
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("center config: %w", err)
	}
	return nil
}
