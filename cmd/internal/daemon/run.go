package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/bhome-bus/bhome/actors"
	"github.com/bhome-bus/bhome/cmd/internal/logging"
	"github.com/bhome-bus/bhome/cmd/internal/units"
	"github.com/bhome-bus/bhome/cmd/internal/version"
	"github.com/bhome-bus/bhome/shmio"
)

// ErrCenterEnded is what Run returns when the center ended although nobody asked it to.
var ErrCenterEnded = errors.New("the center has ended unexpectedly")

// stopTimeout bounds a clean stop: closing nodes' descriptors can take a while, hanging for ever it can't.
const stopTimeout = 10 * time.Second

// Run serves the bus until ctx is done. Errors: that of listening (actors' ErrBusInUse, with the pid that holds the bus),
// ErrCenterEnded, or that of stopping.
func Run(ctx context.Context, cfg Config, env Env) error {
	log := cfg.logger(env)
	slogger := logging.Slog(log)
	center, err := cfg.center(slogger)
	if err != nil {
		return err
	}
	system := actor.NewActorSystem(actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger { return cfg.frameworkLogger(env) }))
	defer system.Shutdown()

	pid, info, err := actors.Spawn(system.Root, "center", center)
	if err != nil {
		return advise(err, cfg.Socket)
	}
	ended := watch(system, pid)
	log.Info("ready", "bus", info.Bus, "socket", info.Socket, "pid", os.Getpid(), "version", version.Number,
		"limit_bus", units.HumanBytes(center.Limits.BusBytes), "limit_uid", units.HumanBytes(center.Limits.UIDBytes),
		"limit_node", units.HumanBytes(center.Limits.NodeBytes), "max_message", units.HumanBytes(center.Limits.MaxMessage),
		"procs", center.Limits.Procs, "offline", center.OfflineAfter, "kill_unresponsive", center.KillUnresponsive)
	if err := notify("READY=1\nSTATUS=serving " + info.Socket); err != nil {
		log.Warn("the service manager was not told", "error", err)
	}

	select {
	case <-ctx.Done():
		log.Info("stopping", "bus", info.Bus)
		_ = notify("STOPPING=1") // told or not, it stops
	case <-ended:
		return ErrCenterEnded
	}
	bound, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	if err := actors.Stop(bound, system, pid); err != nil {
		return fmt.Errorf("stop the center: %w", err)
	}
	log.Info("stopped", "bus", info.Bus)
	return nil
}

// advise adds what a user can do who has no place for the socket: no login session, so no XDG_RUNTIME_DIR, and no right to
// write to /run.
func advise(err error, socket string) error {
	if socket != "" || !errors.Is(err, fs.ErrPermission) || errors.Is(err, shmio.ErrBusInUse) {
		return err
	}
	return fmt.Errorf("%w; set XDG_RUNTIME_DIR to a folder of your own, or say --socket PATH here and export BHOME_SOCKET=PATH to the clients", err)
}

// frameworkLogger is the actor framework's: its news of itself is for debugging.
func (c Config) frameworkLogger(env Env) *slog.Logger {
	if c.Log.Level > logging.Debug {
		c.Log.Level = max(c.Log.Level, logging.Warn)
	}
	return logging.Slog(c.logger(env).Named("actor"))
}

// watch gives a channel that closes when pid has ended.
func watch(system *actor.ActorSystem, pid *actor.PID) <-chan struct{} {
	ended := make(chan struct{})
	system.Root.Spawn(actor.PropsFromFunc(func(ctx actor.Context) {
		switch m := ctx.Message().(type) {
		case *actor.Started:
			ctx.Watch(pid)
		case *actor.Terminated:
			if m.Who.Equal(pid) {
				close(ended)
				ctx.Stop(ctx.Self())
			}
		}
	}))
	return ended
}

// center is the center's own configuration with what c says in its place. An error is of names in the access rules that mean
// nobody any more.
func (c Config) center(log *slog.Logger) (a actors.Config, err error) {
	a = actors.DefaultConfig()
	a.Alone = true
	if a.Access, err = c.Access.center(c.where); err != nil {
		return a, fmt.Errorf("configuration: %w", err)
	}
	a.Bus, a.Socket, a.Logger = c.Bus, c.Socket, log
	if c.SocketMode != 0 {
		a.SocketMode = os.FileMode(c.SocketMode)
	} else if c.Access.listsWhoAttaches() {
		a.SocketMode = 0o666
	}
	a.OfflineAfter, a.KillAfter = time.Duration(c.Heartbeat.Offline), time.Duration(c.Heartbeat.Kill)
	a.KillUnresponsive = c.Heartbeat.KillUnresponsive
	// What isn't set follows what is: a user's limit the bus's, a node's the user's, a message's the node's.
	set(&a.Limits.BusBytes, uint64(c.Limits.Bus))
	a.Limits.UIDBytes = a.Limits.BusBytes
	set(&a.Limits.UIDBytes, uint64(c.Limits.UID))
	a.Limits.NodeBytes = a.Limits.UIDBytes
	set(&a.Limits.NodeBytes, uint64(c.Limits.Node))
	a.Limits.MaxMessage = min(a.Limits.MaxMessage, a.Limits.NodeBytes/4)
	set(&a.Limits.MaxMessage, uint64(c.Limits.MaxMessage))
	set(&a.Limits.DefaultQuota, uint64(c.Limits.DefaultQuota))
	a.Limits.Reserve = min(a.Limits.Reserve, a.Limits.NodeBytes/4)
	set(&a.Limits.Reserve, uint64(c.Limits.Reserve))
	a.Limits.RouteBytes = a.Limits.NodeBytes
	set(&a.Limits.RouteBytes, uint64(c.Limits.Route))
	set(&a.Limits.SegmentsPerUID, c.Limits.SegmentsPerUID)
	set(&a.Limits.RoutesPerUID, c.Limits.RoutesPerUID)
	set(&a.Limits.SubscriptionsPerUID, c.Limits.SubscriptionsPerUID)
	set(&a.Limits.TopicsPerUID, c.Limits.TopicsPerUID)
	set(&a.Limits.Procs, c.Limits.Procs)
	set(&a.Limits.NamesPerUID, c.Limits.NamesPerUID)
	set(&a.Limits.Sessions, c.Limits.Sessions)
	set(&a.Limits.SessionsPerUID, c.Limits.SessionsPerUID)
	set(&a.Limits.SegmentsPerNode, c.Limits.SegmentsPerNode)
	set(&a.Limits.RoutesPerNode, c.Limits.RoutesPerNode)
	set(&a.Limits.SubscriptionsPerNode, c.Limits.SubscriptionsPerNode)
	set(&a.Limits.TopicsPerNode, c.Limits.TopicsPerNode)
	set(&a.Limits.Topics, c.Limits.Topics)
	return a, nil
}

// set gives a limit the configured value, unless that stands for the default.
func set[T int | uint64](limit *T, configured T) {
	if configured != 0 {
		*limit = configured
	}
}
