package deaths

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/bhome-bus/bhome/cmd/internal/child"
	"github.com/bhome-bus/bhome/cmd/internal/private"
	"github.com/bhome-bus/bhome/node"
)

const (
	restartLimit = time.Minute          // for all that must follow
	look         = 2 * time.Millisecond // between two looks at the records
	memberRoutes = 6                    // of a member: what it publishes and subscribes to, asks and serves, and the replies
)

// ring is the processes that the daemon is restarted under.
type ring struct {
	cfg     Config
	bus     *private.Bus
	n       *node.Node // ours: it asks the center, and outlives it like the others
	pub     *node.Publisher
	members []*child.Process
}

// restarts measures so many restarts of the daemon under load.
func restarts(ctx context.Context, cfg Config, bus *private.Bus, launch Launcher) (rows []RestartRow, err error) {
	r := &ring{cfg: cfg, bus: bus}
	if r.n, err = node.Attach(ctx, node.Config{Name: "deaths-watcher", Socket: bus.Socket}); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.n.Close(context.WithoutCancel(ctx))) }()
	if r.pub, err = r.n.Publisher(ctx, "deaths.loans"); err != nil {
		return nil, err
	}
	defer func() {
		for _, p := range r.members {
			p.Kill()
		}
	}()
	for i := range cfg.Nodes {
		p, err := launch("deaths-member", memberConfig{Socket: bus.Socket, Index: i, Next: (i + 1) % cfg.Nodes, Rate: cfg.Rate})
		if err != nil {
			return nil, err
		}
		r.members = append(r.members, p)
	}
	if err := r.all(ctx, "", nil, "up"); err != nil {
		return nil, err
	}
	if err := r.all(ctx, "go", nil, "running"); err != nil {
		return nil, err
	}
	for i := range cfg.Restarts {
		row, err := r.restart(ctx, i)
		if err != nil {
			return rows, fmt.Errorf("restart %d: %w", i+1, err)
		}
		rows = append(rows, row)
	}
	return rows, r.finish(ctx, &rows[len(rows)-1])
}

// all tells every member something and waits for what it answers.
func (r *ring) all(ctx context.Context, command string, data any, event string) error {
	if command != "" {
		for _, p := range r.members {
			if err := p.Send(command, data); err != nil {
				return err
			}
		}
	}
	for _, p := range r.members {
		if err := p.Await(ctx, event, nil); err != nil {
			return err
		}
	}
	return nil
}

// restart ends the daemon, starts it again after a while, and tells how long things take from there.
func (r *ring) restart(ctx context.Context, round int) (row RestartRow, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, restartLimit+r.cfg.Down, fmt.Errorf("not all was there again within %v", restartLimit))
	defer cancel()
	row.Kill, row.Nodes = round%2 == 0, r.cfg.Nodes
	before, err := r.records(ctx)
	if err != nil {
		return row, err
	}
	holds, err := r.holds(ctx)
	if err != nil {
		return row, err
	}
	sig := syscall.SIGTERM
	if row.Kill {
		sig = syscall.SIGKILL
	}
	if err := r.bus.End(sig); err != nil {
		return row, err
	}
	<-time.After(r.cfg.Down)
	begin := time.Now()
	if err := r.bus.Run(ctx); err != nil {
		return row, err
	}
	row.Ready = time.Since(begin)
	newcomer := make(chan error, 1)
	go func() {
		err := r.newcomer(ctx)
		row.Newcomer = time.Since(begin)
		newcomer <- err
	}()
	loan := make(chan error, 1)
	go func() {
		l, err := r.pub.Loan(ctx, 5000<<round) // of a class that it never had
		row.Loan = time.Since(begin)
		if err == nil {
			err = l.Release()
		}
		loan <- err
	}()
	var missing []string
	err = poll(ctx, look, func() (bool, error) {
		after, err := r.records(ctx)
		if err != nil {
			return false, err
		}
		row.Known = time.Since(begin)
		missing = differ(before, after)
		return len(missing) == 0, nil
	})
	if err == nil { // what is held is read in the nodes' own memory: it takes long to list, and no time to be known
		var after map[string]string
		after, err = r.holds(ctx)
		missing = differ(holds, after)
	}
	if err != nil || len(missing) > 0 {
		return row, errors.Join(err, fmt.Errorf("%d records differ: %s", len(missing), strings.Join(missing[:min(3, len(missing))], "; ")))
	}
	if err := errors.Join(<-newcomer, <-loan); err != nil {
		return row, err
	}
	for _, p := range r.members {
		var seen memberResult
		if err := p.Send("tell", nil); err != nil {
			return row, err
		}
		if err := p.Await(ctx, "told", &seen); err != nil {
			return row, err
		}
		row.add(seen)
	}
	return row, nil
}

func (row *RestartRow) add(m memberResult) {
	row.Delivered += m.Delivered
	row.Lost += m.Lost + m.Spoiled
	row.Doubled += m.Doubled
	row.Requests += m.Requests
	row.Failed += m.Failed
	row.Pause = max(row.Pause, m.Pause)
}

// newcomer is a process's first steps at the new daemon, up to a message of one that was there before.
func (r *ring) newcomer(ctx context.Context) (err error) {
	n, err := node.Attach(ctx, node.Config{Name: "deaths-newcomer", Socket: r.bus.Socket})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Close(context.WithoutCancel(ctx))) }()
	s, err := n.Subscribe(ctx, ringTopic(0), node.Depth(64))
	if err != nil {
		return err
	}
	m, err := s.Receive(ctx)
	if err != nil {
		return err
	}
	return m.Release()
}

// differ lists what isn't after as it was before, in order.
func differ(before, after map[string]string) (missing []string) {
	for what, was := range before {
		if after[what] != was {
			missing = append(missing, fmt.Sprintf("%s: %q, was %q", what, after[what], was))
		}
	}
	slices.Sort(missing)
	return missing
}

// records is what the center knows of the ring: who is there under which session, with its blocks and routes, who publishes,
// subscribes, serves and asks.
func (r *ring) records(ctx context.Context) (map[string]string, error) {
	known := map[string]string{}
	procs, err := r.n.Procs(ctx)
	if err != nil {
		return nil, err
	}
	for _, p := range procs {
		if strings.HasPrefix(p.GetName(), "deaths-member-") {
			known[p.GetName()] = fmt.Sprintf("session %d, %s, its blocks: %v, its routes: %v", p.GetSession(), p.GetState(),
				p.GetGrantedBlocks() >= held, p.GetRoutes() >= memberRoutes)
		}
	}
	topics, err := r.n.Topics(ctx)
	if err != nil {
		return nil, err
	}
	for _, t := range topics {
		if strings.HasPrefix(t.GetTopic(), "deaths.") {
			subs := slices.DeleteFunc(slices.Clone(t.GetSubscribers()), func(name string) bool { return name == "deaths-newcomer" })
			known[t.GetTopic()] = fmt.Sprint("by ", t.GetPublishers(), " to ", subs, " served by ", t.GetProviders())
		}
	}
	return known, nil
}

// holds is who holds how many of whose messages, at least: more come and go.
func (r *ring) holds(ctx context.Context) (map[string]string, error) {
	msgs, _, err := r.n.Msgs(ctx)
	if err != nil {
		return nil, err
	}
	count := map[string]int{}
	for _, m := range msgs {
		for _, h := range m.GetHolders() {
			if strings.HasPrefix(h, "deaths-member-") {
				count[fmt.Sprintf("%s's messages with %s", m.GetOwner(), h)]++
			}
		}
	}
	holds := map[string]string{}
	for what, n := range count {
		if n >= held {
			holds[what] = fmt.Sprint("at least ", held)
		}
	}
	if len(holds) < len(r.members) {
		return nil, fmt.Errorf("only %d of %d members are said to hold their messages", len(holds), len(r.members))
	}
	return holds, nil
}

// finish ends the load and adds up what the members have seen, in the last row.
func (r *ring) finish(ctx context.Context, last *RestartRow) error {
	sent := make([]uint64, len(r.members))
	for _, p := range r.members {
		if err := p.Send("stop", nil); err != nil {
			return err
		}
	}
	for i, p := range r.members {
		if err := p.Await(ctx, "sent", &sent[i]); err != nil {
			return err
		}
	}
	last.Delivered, last.Lost, last.Doubled, last.Requests, last.Failed, last.Pause = 0, 0, 0, 0, 0, 0
	whys := map[string]int{}
	for i, p := range r.members {
		var m memberResult
		if err := p.Send("drain", sent[(i+1)%len(sent)]); err != nil {
			return err
		}
		if err := p.Await(ctx, "result", &m); err != nil {
			return err
		}
		last.add(m)
		if m.Why != "" {
			whys[m.Why]++
		}
	}
	if last.Failed > 0 {
		return fmt.Errorf("requests failed: %s", strings.Join(slices.Sorted(maps.Keys(whys)), "; "))
	}
	var errs []error
	for _, p := range r.members {
		errs = append(errs, p.Send("close", nil))
	}
	for _, p := range r.members {
		errs = append(errs, p.Wait(ctx))
	}
	return errors.Join(errs...)
}
