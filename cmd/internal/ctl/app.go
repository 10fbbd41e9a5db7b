// Package ctl is bhctl without its main: the commands that inspect a bus and use it from a shell.
//
// It is a client like any other: what it shows it asked the center for, over the node library, and it writes nothing of
// anybody's memory.
package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"

	"github.com/bhome-bus/bhome/cmd/internal/exitcode"
	"github.com/bhome-bus/bhome/cmd/internal/logging"
	"github.com/bhome-bus/bhome/cmd/internal/units"
	"github.com/bhome-bus/bhome/cmd/internal/version"
	"github.com/bhome-bus/bhome/node"
)

// Env is what bhctl takes from its surroundings, so that tests can stand in for them.
type Env struct {
	Args           []string
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Terminal says that Stdout is one: colours, screens that refresh, and no raw control characters.
	Terminal bool
	// Executable is the path of this program, for the processes that bench and demo start.
	Executable string
	// Width is how many columns the terminal has; 0: unknown.
	Width int
}

// app is one run of bhctl.
type app struct {
	Env
	bus, socket string
	timeout     units.Duration
	logLevel    logging.Level
	noColor     bool
	ran         bool // a command began: what fails from here on is not its spelling
}

// defaultTimeout bounds attaching and each query.
const defaultTimeout = units.Duration(10 * time.Second)

// Main runs one command until it ends or ctx is done, reports an error on env.Stderr and returns the exit status.
func Main(ctx context.Context, env Env) int {
	a := &app{Env: env, timeout: defaultTimeout, logLevel: logging.Error}
	err := a.root().ExecuteContext(ctx)
	if err == nil {
		return exitcode.OK
	}
	code := exitcode.Of(err)
	switch {
	case !a.ran:
		code = exitcode.Usage
	case errors.Is(err, node.ErrNoDaemon) && code == exitcode.Error:
		code = exitcode.NoDaemon
	}
	fmt.Fprintf(env.Stderr, "bhctl: %v\n", err)
	if code == exitcode.Usage {
		fmt.Fprintln(env.Stderr, "See 'bhctl --help'.")
	}
	return code
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "bhctl",
		Short: "Look into a bhome bus and use it from a shell",
		Long: `bhctl looks into a bhome bus and uses it from a shell.

The bus is found as every program finds it: --socket, BHOME_SOCKET, $XDG_RUNTIME_DIR/bhome/<bus>.sock,
/run/bhome/<bus>.sock.

Exit status: 0 ok, 1 error, 2 usage, 3 no daemon, 4 degraded (it worked, but messages were lost, say),
5 faults (fsck has found some).
Columns with a star are a node's own word about itself.`,
		Example: `  bhomed &
  bhctl procs
  bhctl sub 'camera.>' &
  echo hello | bhctl pub camera.front`,
		Version:       version.Get().String(),
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRun: func(*cobra.Command, []string) {
			a.ran = true
			a.Terminal = a.Terminal && !a.noColor
		},
	}
	root.SetArgs(a.Args)
	root.SetIn(a.Stdin)
	root.SetOut(a.Stdout)
	root.SetErr(a.Stderr)
	f := root.PersistentFlags()
	f.StringVarP(&a.bus, "bus", "b", node.DefaultBus, "the bus's `name`")
	f.StringVarP(&a.socket, "socket", "s", "", "`path` of the daemon's socket; unset: the usual places")
	f.Var(&a.timeout, "timeout", "for attaching, and for each answer")
	f.Var(&a.logLevel, "log-level", "trace, debug, info, warn, error or fatal, on standard error")
	f.BoolVar(&a.noColor, "no-color", os.Getenv("NO_COLOR") != "", "plain output (also NO_COLOR)")
	root.AddCommand(a.procsCmd(), a.msgsCmd(), a.topicsCmd(), a.fsckCmd(), a.pubCmd(), a.subCmd(), a.requestCmd(), a.serveCmd(),
		a.benchCmd(), a.demoCmd(), a.soakCmd(), a.childCmd(), a.versionCmd())
	return root
}

// runE wraps a command's body.
func runE(f func(ctx context.Context, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error { return f(cmd.Context(), args) }
}

// attach joins the bus; change adapts the configuration. The caller closes the node with detach.
func (a *app) attach(ctx context.Context, change func(*node.Config)) (*node.Node, error) {
	if err := checkBus(a.bus); err != nil {
		return nil, exitcode.With(exitcode.Usage, err)
	}
	cfg := node.Config{Name: "bhctl", Pooled: true, Bus: a.bus, Socket: a.socket, AttachTimeout: time.Duration(a.timeout), Logger: a.logger()}
	if change != nil {
		change(&cfg)
	}
	return node.Attach(ctx, cfg)
}

// checkBus keeps a bus's name from leading out of the folder of the sockets.
func checkBus(name string) error {
	if name == "" || len(name) > 64 || strings.ContainsAny(name, "/\x00") || strings.HasPrefix(name, ".") {
		return fmt.Errorf("--bus %q: a name of 1 to 64 bytes without '/', not beginning with '.'", name)
	}
	return nil
}

// inspect attaches for queries only.
func (a *app) inspect(ctx context.Context) (*node.Node, error) {
	return a.attach(ctx, func(c *node.Config) { c.Inspect, c.Pooled = true, false })
}

func (a *app) logger() hclog.Logger {
	return logging.New(logging.Options{Name: "bhctl", Level: a.logLevel, Output: a.Stderr, Color: a.Terminal})
}

// closeTimeout is what Close may take: its flush is bounded by 3 s.
const closeTimeout = 5 * time.Second

// detach closes n and joins what it couldn't send to err.
func detach(n *node.Node, err error) error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	if cerr := n.Close(ctx); cerr != nil && err == nil {
		return fmt.Errorf("close: %w", cerr)
	}
	return err
}

// bounded is ctx with the --timeout.
func (a *app) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, time.Duration(a.timeout))
}

func (a *app) versionCmd() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "version", Short: "Say which build this is", Args: cobra.NoArgs,
		RunE: runE(func(context.Context, []string) error {
			if asJSON {
				return writeJSON(a.Stdout, version.Get())
			}
			_, err := fmt.Fprintln(a.Stdout, "bhctl", version.Get())
			return err
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return cmd
}
