package ctl

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/bhome-bus/bhome/cmd/internal/exitcode"
	"github.com/bhome-bus/bhome/cmd/internal/listing"
	"github.com/bhome-bus/bhome/cmd/internal/units"
	"github.com/bhome-bus/bhome/node"
)

// subOptions are the flags of sub.
type subOptions struct {
	count   uint64
	topics  bool
	raw     bool
	asJSON  bool
	quiet   bool
	history bool
	depth   int
	policy  policyFlag
	expiry  units.Duration
	quota   units.Bytes
	wait    waitFlag
	name    string
	until   units.Duration
}

func (a *app) subCmd() *cobra.Command {
	var o subOptions
	cmd := &cobra.Command{
		Use:   "sub PATTERN",
		Short: "Print what is published, a line a message",
		Long: `Subscribe and print each message with a line end, until interrupted or --count. PATTERN is an exact topic, 'a.' or
'a.>' for all below a, '*' for one token.

Once it is subscribed, bhctl says so on standard error: everything published from then on arrives, as far as --depth and
--on-full allow.`,
		Example: `  bhctl sub camera.front --count 10
  bhctl sub 'camera.>' --json | jq .topic`,
		Args: cobra.ExactArgs(1),
		RunE: runE(func(ctx context.Context, args []string) error {
			if o.raw && o.asJSON {
				return exitcode.Usagef("--raw and --json exclude each other")
			}
			if o.depth < 1 || o.expiry < 0 || o.until < 0 {
				return exitcode.Usagef("--depth is at least 1, --expiry and --for aren't negative")
			}
			return a.sub(ctx, args[0], o)
		}),
	}
	f := cmd.Flags()
	f.Uint64VarP(&o.count, "count", "n", 0, "end after so many messages")
	f.Var(&o.until, "for", "end after this time")
	f.BoolVarP(&o.topics, "topics", "t", false, "print topic and tab before each message")
	f.BoolVar(&o.raw, "raw", false, "print the bytes as they are, with nothing after them")
	f.BoolVar(&o.asJSON, "json", false, "an object a message: topic, publisher, seq, age_ns, size, payload or payload_base64")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "don't say when subscribed, nor what was dropped")
	f.BoolVar(&o.history, "history", false, "first what publishers have kept")
	f.IntVar(&o.depth, "depth", 1024, "messages of each publisher that may wait unread")
	f.Var(&o.policy, "on-full", "when so many wait: drop-oldest, drop-newest, or block (as long as publishers consent)")
	f.Var(&o.expiry, "expiry", "drop messages older than this")
	f.Var(&o.quota, "quota", "bytes of each publisher's memory that may wait here; 0: the bus's default")
	f.Var(&o.wait, "wait", "adaptive, park or spin")
	f.StringVar(&o.name, "name", "", "this process's name on the bus; unset: one of the pool bhctl#1, bhctl#2...")
	return cmd
}

func (o subOptions) options() []node.SubOption {
	opts := []node.SubOption{node.Depth(o.depth), node.OnFull(o.policy.Policy), node.Wait(o.wait.WaitStrategy),
		node.Expiry(time.Duration(o.expiry)), node.Quota(uint64(o.quota))}
	if o.history {
		opts = append(opts, node.History())
	}
	return opts
}

func (a *app) sub(ctx context.Context, pattern string, o subOptions) (err error) {
	n, err := a.attach(ctx, named(o.name))
	if err != nil {
		return err
	}
	defer func() { err = detach(n, err) }()
	bound, cancel := a.bounded(ctx)
	s, err := n.Subscribe(bound, pattern, o.options()...)
	cancel()
	if err != nil {
		return err
	}
	if !o.quiet {
		fmt.Fprintf(a.Stderr, "bhctl: %s is subscribed to %s\n", listing.Clean(n.Name()), listing.Clean(pattern))
	}
	if o.until > 0 {
		var done context.CancelFunc
		ctx, done = context.WithTimeout(ctx, time.Duration(o.until))
		defer done()
	}
	err = a.print(ctx, s, o)
	if st := s.Stats(); !o.quiet && (st.Dropped > 0 || st.Expired > 0) {
		fmt.Fprintf(a.Stderr, "bhctl: %d received, %d dropped, %d expired\n", st.Received, st.Dropped, st.Expired)
	}
	return err
}

// print writes messages as they come. It flushes whenever none waits.
func (a *app) print(ctx context.Context, s *node.Subscription, o subOptions) (err error) {
	w := bufio.NewWriterSize(a.Stdout, 64<<10)
	defer func() {
		if ferr := w.Flush(); ferr != nil && err == nil {
			err = fmt.Errorf("write: %w", ferr)
		}
	}()
	for n := uint64(0); o.count == 0 || n < o.count; n++ {
		m, ok, err := s.TryReceive()
		if err == nil && !ok {
			if err := w.Flush(); err != nil {
				return fmt.Errorf("write: %w", err)
			}
			m, err = s.Receive(ctx)
		}
		if err != nil {
			if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
				return nil // interrupted, or --for is over: that is how sub ends
			}
			return err
		}
		err = a.printOne(w, m, o)
		if rerr := m.Release(); err == nil {
			err = rerr
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// messageJSON is one line of sub --json.
type messageJSON struct {
	Topic     string `json:"topic"`
	Publisher string `json:"publisher"`
	Seq       uint64 `json:"seq"`
	AgeNs     int64  `json:"age_ns"`
	Size      int    `json:"size"`
	payloadJSON
}

func (a *app) printOne(w *bufio.Writer, m node.Message, o subOptions) error {
	switch {
	case o.asJSON:
		b := m.Bytes()
		return writeJSON(w, messageJSON{m.Topic(), m.Publisher(), m.Seq(), int64(m.Age()), len(b), payloadOf(b)})
	case o.raw:
		_, err := w.Write(m.Bytes())
		return err
	}
	if o.topics {
		if _, err := w.WriteString(listing.Clean(m.Topic()) + "\t"); err != nil {
			return err
		}
	}
	if a.Terminal { // what others publish doesn't command this terminal
		if _, err := w.WriteString(listing.Clean(string(m.Bytes()))); err != nil {
			return err
		}
	} else if _, err := w.Write(m.Bytes()); err != nil {
		return err
	}
	return w.WriteByte('\n')
}
