package ctl

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/bhome-bus/bhome/cmd/internal/exitcode"
	"github.com/bhome-bus/bhome/cmd/internal/units"
	"github.com/bhome-bus/bhome/node"
)

// pubOptions are the flags of pub.
type pubOptions struct {
	files   []string
	repeat  int
	wait    int
	block   units.Duration
	every   units.Duration
	keep    int
	linger  units.Duration
	name    string
	asJSON  bool
	whole   bool
	payload []string
}

func (a *app) pubCmd() *cobra.Command {
	o := pubOptions{block: units.Duration(5 * time.Second)}
	cmd := &cobra.Command{
		Use:   "pub TOPIC [MESSAGE...]",
		Short: "Publish arguments, files, or the lines of standard input",
		Long: `Publish messages on TOPIC: each argument is one; else each --file; else each line of standard input (without its
end of line). What was published is delivered even though bhctl ends right after.`,
		Example: `  bhctl pub camera.front hello
  tail -f log | bhctl pub logs.web
  bhctl pub images --file a.png --file b.png`,
		Args: cobra.MinimumNArgs(1),
		RunE: runE(func(ctx context.Context, args []string) error {
			o.payload = args[1:]
			if len(o.payload) > 0 && (len(o.files) > 0 || o.whole) || len(o.files) > 0 && o.whole {
				return exitcode.Usagef("messages come from arguments, --file or standard input: one of them")
			}
			if o.repeat < 1 || o.wait < 0 || o.keep < 0 || o.block < 0 || o.every < 0 || o.linger < 0 {
				return exitcode.Usagef("--repeat is at least 1, the other numbers aren't negative")
			}
			return a.pub(ctx, args[0], o)
		}),
	}
	f := cmd.Flags()
	f.StringArrayVarP(&o.files, "file", "f", nil, "a file whose content is one message; may be repeated, - is standard input")
	f.BoolVar(&o.whole, "whole", false, "all of standard input is one message")
	f.IntVar(&o.repeat, "repeat", 1, "publish arguments or files so often")
	f.IntVar(&o.wait, "wait-subscribers", 0, "wait until there are so many subscriptions")
	f.Var(&o.block, "block", "how long at most a subscriber of the policy block may hold up a message")
	f.Var(&o.every, "every", "pause after each message")
	f.IntVar(&o.keep, "keep", 0, "keep the last messages for late subscribers, while --linger lasts")
	f.Var(&o.linger, "linger", "stay so long after the last message")
	f.StringVar(&o.name, "name", "", "this process's name on the bus; unset: one of the pool bhctl#1, bhctl#2...")
	f.BoolVar(&o.asJSON, "json", false, "say at the end what was published, as JSON")
	return cmd
}

// named gives a process a name of its own instead of one of the pool.
func named(name string) func(*node.Config) {
	return func(c *node.Config) {
		if name != "" {
			c.Name, c.Pooled = name, false
		}
	}
}

// pubSummary is what pub --json says.
type pubSummary struct {
	Topic       string `json:"topic"`
	Sent        uint64 `json:"sent"`
	Bytes       uint64 `json:"bytes"`
	Subscribers int    `json:"subscribers"`
}

func (a *app) pub(ctx context.Context, topic string, o pubOptions) (err error) {
	n, err := a.attach(ctx, named(o.name))
	if err != nil {
		return err
	}
	defer func() { err = detach(n, err) }()
	bound, cancel := a.bounded(ctx)
	p, err := n.Publisher(bound, topic, node.Keep(o.keep), node.AllowBlock(time.Duration(o.block)))
	cancel()
	if err != nil {
		return err
	}
	if o.wait > 0 {
		if err := p.WaitForSubscribers(ctx, o.wait); err != nil {
			return fmt.Errorf("wait for %d subscribers: %w", o.wait, err)
		}
	}
	s := &sender{p: p, every: time.Duration(o.every), sum: pubSummary{Topic: topic, Subscribers: p.Subscribers()}}
	if err := a.sendAll(ctx, s, o); err != nil {
		return fmt.Errorf("message %d: %w", s.sum.Sent+1, err)
	}
	s.sum.Subscribers = max(s.sum.Subscribers, p.Subscribers())
	if o.linger > 0 {
		_ = pause(ctx, time.Duration(o.linger)) // interrupted: just a shorter stay
	}
	if o.asJSON {
		return writeJSON(a.Stdout, s.sum)
	}
	return nil
}

func (a *app) sendAll(ctx context.Context, s *sender, o pubOptions) error {
	switch {
	case len(o.payload) > 0:
		for range o.repeat {
			for _, m := range o.payload {
				if err := s.bytes(ctx, []byte(m)); err != nil {
					return err
				}
			}
		}
		return nil
	case len(o.files) > 0:
		for range o.repeat {
			for _, name := range o.files {
				if err := s.file(ctx, name, a.Stdin); err != nil {
					return err
				}
			}
		}
		return nil
	case o.whole:
		return s.file(ctx, "-", a.Stdin)
	default:
		return eachLine(ctx, a.Stdin, func(line []byte) error { return s.bytes(ctx, line) })
	}
}

// sender publishes and counts.
type sender struct {
	p     *node.Publisher
	every time.Duration
	sum   pubSummary
}

func (s *sender) sent(ctx context.Context, size int) error {
	s.sum.Sent++
	s.sum.Bytes += uint64(size)
	if s.every > 0 {
		return pause(ctx, s.every)
	}
	return nil
}

func (s *sender) bytes(ctx context.Context, b []byte) error {
	if err := s.p.Publish(ctx, b); err != nil {
		return err
	}
	return s.sent(ctx, len(b))
}

// file publishes a file's content, read straight into the message where its size is known.
func (s *sender) file(ctx context.Context, name string, stdin io.Reader) error {
	if name == "-" {
		b, err := io.ReadAll(stdin)
		if err != nil {
			return fmt.Errorf("standard input: %w", err)
		}
		return s.bytes(ctx, b)
	}
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if !fi.Mode().IsRegular() || fi.Size() == 0 { // files of /proc say 0
		b, err := io.ReadAll(f)
		if err != nil {
			return err
		}
		return s.bytes(ctx, b)
	}
	l, err := s.p.Loan(ctx, int(fi.Size()))
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if _, err := io.ReadFull(f, l.Bytes()); err != nil {
		l.Release()
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := s.p.Send(ctx, l); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return s.sent(ctx, int(fi.Size()))
}

// eachLine gives f every line of r without its end; the last may lack one. It ends with ctx, even while r blocks.
func eachLine(ctx context.Context, r io.Reader, f func(line []byte) error) error {
	type read struct {
		line []byte
		err  error
	}
	lines := make(chan read, 64)
	go func() { // it may stay in Read until the process ends: standard input can't be interrupted
		br := bufio.NewReaderSize(r, 64<<10)
		for {
			line, err := br.ReadBytes('\n')
			select {
			case lines <- read{line, err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case in := <-lines:
			ended := bytes.HasSuffix(in.line, []byte("\n"))
			if line := bytes.TrimSuffix(bytes.TrimSuffix(in.line, []byte("\n")), []byte("\r")); ended || len(line) > 0 {
				if err := f(line); err != nil {
					return err
				}
			}
			if errors.Is(in.err, io.EOF) {
				return nil
			}
			if in.err != nil {
				return fmt.Errorf("standard input: %w", in.err)
			}
		}
	}
}

// pause waits for d or the end of ctx.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
