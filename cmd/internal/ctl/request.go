package ctl

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/bhome-bus/bhome/cmd/internal/exitcode"
	"github.com/bhome-bus/bhome/cmd/internal/listing"
)

// requestOptions are the flags of request.
type requestOptions struct {
	file   string
	lines  bool
	await  bool
	raw    bool
	asJSON bool
	name   string
}

func (a *app) requestCmd() *cobra.Command {
	var o requestOptions
	cmd := &cobra.Command{
		Use:   "request TOPIC [PAYLOAD]",
		Short: "Ask a service and print its reply",
		Long: `Ask a service and print its reply with a line end. The payload is the argument, else --file, else all of standard
input; with --lines each line of standard input is a request of its own. --timeout bounds each.`,
		Example: `  bhctl request text.wc 'one two three'
  bhctl request text.wc --file /etc/services`,
		Args: cobra.RangeArgs(1, 2),
		RunE: runE(func(ctx context.Context, args []string) error {
			sources := 0
			for _, given := range []bool{len(args) == 2, o.file != "", o.lines} {
				if given {
					sources++
				}
			}
			if sources > 1 {
				return exitcode.Usagef("the payload is an argument, --file or --lines: one of them")
			}
			if o.raw && o.asJSON {
				return exitcode.Usagef("--raw and --json exclude each other")
			}
			return a.request(ctx, args, o)
		}),
	}
	f := cmd.Flags()
	f.StringVarP(&o.file, "file", "f", "", "a file whose content is the payload; - is standard input")
	f.BoolVar(&o.lines, "lines", false, "each line of standard input is a request")
	f.BoolVar(&o.await, "wait-service", false, "wait, up to --timeout, until there is a provider")
	f.BoolVar(&o.raw, "raw", false, "print the reply as it is, with nothing after it")
	f.BoolVar(&o.asJSON, "json", false, "an object a reply: topic, took_ns, size, payload or payload_base64")
	f.StringVar(&o.name, "name", "", "this process's name on the bus; unset: one of the pool bhctl#1, bhctl#2...")
	return cmd
}

func (a *app) request(ctx context.Context, args []string, o requestOptions) (err error) {
	n, err := a.attach(ctx, named(o.name))
	if err != nil {
		return err
	}
	defer func() { err = detach(n, err) }()
	topic := args[0]
	if o.await {
		bound, cancel := a.bounded(ctx)
		err := n.WaitForService(bound, topic)
		cancel()
		if err != nil {
			return fmt.Errorf("wait for service %q: %w", topic, err)
		}
	}
	w := bufio.NewWriter(a.Stdout)
	ask := func(payload []byte) error {
		bound, cancel := a.bounded(ctx)
		defer cancel()
		start := time.Now()
		r, err := n.Request(bound, topic, payload)
		if err != nil {
			return err
		}
		defer r.Release()
		if err := a.printReply(w, topic, r.Bytes(), time.Since(start), o); err != nil {
			return err
		}
		return w.Flush()
	}
	switch {
	case o.lines:
		return eachLine(ctx, a.Stdin, ask)
	case len(args) == 2:
		return ask([]byte(args[1]))
	}
	var payload []byte
	if o.file == "" || o.file == "-" {
		payload, err = io.ReadAll(a.Stdin)
	} else {
		payload, err = os.ReadFile(o.file)
	}
	if err != nil {
		return err
	}
	return ask(payload)
}

// replyJSON is a line of request --json.
type replyJSON struct {
	Topic  string `json:"topic"`
	TookNs int64  `json:"took_ns"`
	Size   int    `json:"size"`
	payloadJSON
}

func (a *app) printReply(w *bufio.Writer, topic string, b []byte, took time.Duration, o requestOptions) (err error) {
	switch {
	case o.asJSON:
		return writeJSON(w, replyJSON{topic, int64(took), len(b), payloadOf(b)})
	case o.raw:
		_, err = w.Write(b)
		return err
	case a.Terminal:
		_, err = w.WriteString(listing.Clean(string(b)))
	default:
		_, err = w.Write(b)
	}
	if err != nil {
		return err
	}
	return w.WriteByte('\n')
}
