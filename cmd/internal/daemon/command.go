package daemon

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/bhome-bus/bhome/cmd/internal/exitcode"
	"github.com/bhome-bus/bhome/cmd/internal/logging"
	"github.com/bhome-bus/bhome/cmd/internal/version"
)

// Env is what the daemon takes from its surroundings, so that tests can stand in for them.
type Env struct {
	Args           []string
	Stdout, Stderr io.Writer
	// Color colours the log's levels; a terminal without NO_COLOR.
	Color bool
	// Run is what the command ends in: Run of this package, outside tests.
	Run func(ctx context.Context, cfg Config, env Env) error
}

// logBuffer is how many bytes of log may wait for its reader; logPatience is how long the end waits for it.
const (
	logBuffer   = 1 << 20
	logPatience = time.Second
)

// Main parses env.Args, runs the daemon until ctx is done, reports an error on env.Stderr and returns the exit status.
func Main(ctx context.Context, env Env) int {
	log := logging.NewAsync(env.Stderr, logBuffer)
	defer func() {
		giveUp := make(chan struct{})
		defer time.AfterFunc(logPatience, func() { close(giveUp) }).Stop()
		log.Close(giveUp)
	}()
	env.Stderr = log
	cfg, ran := Default(), false
	err := command(env, &cfg, &ran).ExecuteContext(ctx)
	switch {
	case err == nil:
		return exitcode.OK
	case !ran: // what was typed is wrong, or the file
		fmt.Fprintf(env.Stderr, "bhomed: %v\nSee 'bhomed --help'.\n", err)
		return exitcode.Usage
	default: // from here on all that is said is the log's
		cfg.logger(env).Fatal(strings.ReplaceAll(err.Error(), "\n", "; "))
		return exitcode.Of(err)
	}
}

func command(env Env, cfg *Config, ran *bool) *cobra.Command {
	var file string
	var check, show bool
	cmd := &cobra.Command{
		Use:   "bhomed",
		Short: "The center of a bhome bus",
		Long: `bhomed is the center of a bhome bus: it admits processes, allocates every message block, knows every topic and
service, and cleans up after the dead. Without flags it serves the bus "default".

Configuration is taken from the defaults, then the file of --config, then the flags. bhomed.example.toml lists every key.
It ends cleanly on SIGTERM and SIGINT; what processes have established goes on without it.`,
		Example: `  bhomed &                                   # then: bhctl procs
  bhomed --bus lab --log-level debug
  bhomed --config /etc/bhome/bhomed.toml --check`,
		Version:       version.Get().String(),
		Args:          cobra.NoArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := merge(cmd.Flags(), cfg, file); err != nil {
				return err
			}
			*ran = true
			if show {
				return toml.NewEncoder(env.Stdout).Encode(*cfg)
			}
			if check {
				fmt.Fprintln(env.Stdout, "configuration ok")
				return nil
			}
			return env.Run(cmd.Context(), *cfg, env)
		},
	}
	cmd.SetArgs(env.Args)
	cmd.SetOut(env.Stdout)
	cmd.SetErr(env.Stderr)
	cmd.CompletionOptions.HiddenDefaultCmd = true
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVarP(&file, "config", "c", "", "TOML `file` to read")
	f.StringVarP(&cfg.Bus, "bus", "b", cfg.Bus, "the bus's `name`")
	f.StringVarP(&cfg.Socket, "socket", "s", "", "`path` to listen on; unset: BHOME_SOCKET, else the first usable of the usual places")
	f.Var(&cfg.SocketMode, "socket-mode", "permission bits of the socket, octal")
	f.Var(&cfg.Limits.Bus, "limit-bus", "shared memory of all nodes, e.g. 4GiB; 0: half of the memory")
	f.Var(&cfg.Limits.UID, "limit-uid", "shared memory of one user's nodes; 0: as the bus")
	f.Var(&cfg.Limits.Node, "limit-node", "shared memory of one node; 0: as the bus")
	f.Var(&cfg.Limits.MaxMessage, "max-message", "largest message; 0: the center's default")
	f.IntVar(&cfg.Limits.Procs, "procs", 0, "distinct process names, at most 65536; 0: that many")
	f.Var(&cfg.Heartbeat.Offline, "offline", "silence after which a node is unresponsive")
	f.Var(&cfg.Heartbeat.Kill, "kill", "silence after which a node is killed, with --kill-unresponsive")
	f.BoolVar(&cfg.Heartbeat.KillUnresponsive, "kill-unresponsive", false, "kill nodes that are silent for too long")
	f.VarP(&cfg.Log.Level, "log-level", "l", "trace, debug, info, warn, error or fatal")
	f.BoolVar(&cfg.Log.JSON, "log-json", false, "log as JSON, one object a line")
	f.BoolVar(&check, "check", false, "check the configuration and exit")
	f.BoolVar(&show, "print-config", false, "print the configuration in effect as TOML and exit")
	return cmd
}

// merge makes cfg, which the flags are bound to, what defaults, file and flags say together, and validates it.
func merge(flags *pflag.FlagSet, cfg *Config, file string) error {
	type setting struct {
		flag *pflag.Flag
		text string
	}
	var given []setting
	flags.Visit(func(f *pflag.Flag) { given = append(given, setting{f, f.Value.String()}) })
	*cfg = Default()
	if file != "" {
		if err := Load(file, cfg); err != nil {
			return err
		}
	}
	for _, s := range given {
		if err := s.flag.Value.Set(s.text); err != nil {
			return fmt.Errorf("--%s: %w", s.flag.Name, err)
		}
		delete(cfg.at, keyOf(s.flag.Name)) // it is not the file's any more
	}
	err := cfg.Validate()
	cfg.at = nil // what is told from now on is told of the configuration in effect
	return err
}

// keyOf is the file's key for what a flag sets.
func keyOf(flag string) string {
	switch flag {
	case "limit-bus", "limit-uid", "limit-node":
		return "limits." + strings.TrimPrefix(flag, "limit-")
	case "max-message", "procs":
		return "limits." + strings.ReplaceAll(flag, "-", "_")
	case "offline", "kill", "kill-unresponsive":
		return "heartbeat." + strings.ReplaceAll(flag, "-", "_")
	case "log-level", "log-json":
		return "log." + strings.TrimPrefix(flag, "log-")
	}
	return strings.ReplaceAll(flag, "-", "_")
}

func (c Config) logger(env Env) *logging.Logger {
	return logging.New(logging.Options{Name: "bhomed", Level: c.Log.Level, JSON: c.Log.JSON, Output: env.Stderr, Color: env.Color})
}
