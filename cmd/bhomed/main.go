// Command bhomed is the center of a bhome bus. Everything is in cmd/internal/daemon.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/bhome-bus/bhome/cmd/internal/daemon"
	"github.com/bhome-bus/bhome/cmd/internal/terminal"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	// A second signal ends the process as it always did, should a clean end take too long.
	context.AfterFunc(ctx, stop)
	os.Exit(daemon.Main(ctx, daemon.Env{
		Args: os.Args[1:], Stdout: os.Stdout, Stderr: os.Stderr, Color: terminal.Is(os.Stderr), Run: daemon.Run,
	}))
}
