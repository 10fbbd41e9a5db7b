// Command bhctl looks into a bhome bus and uses it from a shell. Everything is in cmd/internal/ctl.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/bhome-bus/bhome/cmd/internal/ctl"
	"github.com/bhome-bus/bhome/cmd/internal/terminal"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	// A second signal ends the process as it always did, should a clean end take too long.
	context.AfterFunc(ctx, stop)
	executable, err := os.Executable()
	if err != nil {
		executable = os.Args[0]
	}
	os.Exit(ctl.Main(ctx, ctl.Env{
		Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		Terminal: terminal.Is(os.Stdout), Width: terminal.Width(os.Stdout), Executable: executable,
	}))
}
