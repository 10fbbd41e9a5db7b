package ctl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/bhome-bus/bhome/cmd/internal/exitcode"
	"github.com/bhome-bus/bhome/cmd/internal/listing"
	"github.com/bhome-bus/bhome/cmd/internal/words"
	"github.com/bhome-bus/bhome/node"
)

// serveOptions are the flags of serve.
type serveOptions struct {
	command   string
	echo      bool
	wordcount bool
	workers   int
	depth     int
	count     uint64
	name      string
	quiet     bool
	wait      waitFlag
}

func (a *app) serveCmd() *cobra.Command {
	var o serveOptions
	cmd := &cobra.Command{
		Use:   "serve TOPIC (--exec COMMAND | --echo | --wordcount)",
		Short: "Answer requests with a command's output",
		Long: `Provide a service, until interrupted or --count. --exec runs COMMAND in a shell for each request: the payload is its
standard input, what it prints is the reply; a status other than 0 is an error for the caller, with what it printed on
standard error. BHOME_TOPIC and BHOME_CLIENT name the service and who asks. A request that is cancelled ends its command.`,
		Example: `  bhctl serve text.wc --exec 'wc -w'
  bhctl serve text.upper --exec 'tr a-z A-Z' --workers 4`,
		Args: cobra.ExactArgs(1),
		RunE: runE(func(ctx context.Context, args []string) error {
			kinds := 0
			for _, given := range []bool{o.command != "", o.echo, o.wordcount} {
				if given {
					kinds++
				}
			}
			if kinds != 1 {
				return exitcode.Usagef("one of --exec, --echo and --wordcount says how to answer")
			}
			return a.serve(ctx, args[0], o)
		}),
	}
	f := cmd.Flags()
	f.StringVar(&o.command, "exec", "", "shell `command` that answers a request")
	f.BoolVar(&o.echo, "echo", false, "the reply is the payload")
	f.BoolVar(&o.wordcount, "wordcount", false, "the reply is the number of words")
	f.IntVar(&o.workers, "workers", 1, "requests handled at once, at most 1024")
	f.IntVar(&o.depth, "depth", node.DefaultServeDepth, "requests of each client that may wait")
	f.Uint64VarP(&o.count, "count", "n", 0, "end after so many requests")
	f.Var(&o.wait, "wait", "adaptive, park or spin")
	f.StringVar(&o.name, "name", "", "this process's name on the bus; unset: one of the pool bhctl#1, bhctl#2...")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "don't say when serving")
	return cmd
}

func (o serveOptions) handler() node.Handler {
	switch {
	case o.echo:
		return func(_ context.Context, r *node.Request) ([]byte, error) { return r.Bytes(), nil }
	case o.wordcount:
		return func(_ context.Context, r *node.Request) ([]byte, error) {
			return fmt.Append(nil, words.Count(r.Bytes())), nil
		}
	default:
		return func(ctx context.Context, r *node.Request) ([]byte, error) {
			return runCommand(ctx, o.command, r.Topic(), r.Client(), r.Bytes())
		}
	}
}

func (a *app) serve(ctx context.Context, topic string, o serveOptions) (err error) {
	n, err := a.attach(ctx, named(o.name))
	if err != nil {
		return err
	}
	defer func() { err = detach(n, err) }()
	enough := make(chan struct{})
	var taken, answered atomic.Uint64
	answer := o.handler()
	handler := func(ctx context.Context, r *node.Request) ([]byte, error) {
		if o.count > 0 && taken.Add(1) > o.count {
			return nil, errors.New("this service has ended")
		}
		defer func() {
			if answered.Add(1) == o.count {
				close(enough)
			}
		}()
		return answer(ctx, r)
	}
	bound, cancel := a.bounded(ctx)
	s, err := n.Serve(bound, topic, handler, node.Workers(o.workers), node.ServeDepth(o.depth), node.ServeWait(o.wait.WaitStrategy))
	cancel()
	if err != nil {
		return err
	}
	if !o.quiet {
		fmt.Fprintf(a.Stderr, "bhctl: %s serves %s\n", listing.Clean(n.Name()), listing.Clean(topic))
	}
	select {
	case <-enough:
	case <-ctx.Done():
	case <-n.Done():
		return n.Err()
	}
	closing, done := context.WithTimeout(context.Background(), closeTimeout)
	defer done()
	return s.Close(closing)
}

// runCommand answers one request with a shell command. It has its own process group, which ends with the request.
func runCommand(ctx context.Context, command, topic, client string, payload []byte) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", command)
	cmd.Stdin = bytes.NewReader(payload)
	cmd.Env = append(os.Environ(), "BHOME_TOPIC="+topic, "BHOME_CLIENT="+strings.ReplaceAll(client, "\x00", ""))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second // for a grandchild that keeps the pipes
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		if msg := strings.TrimSpace(stderr.String()); msg != "" {
			return nil, fmt.Errorf("%w: %s", err, msg)
		}
		return nil, err
	}
	return out, nil
}
