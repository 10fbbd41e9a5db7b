package burst

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/bhome-bus/bhome/cmd/internal/child"
	"github.com/bhome-bus/bhome/cmd/internal/procfs"
	"github.com/bhome-bus/bhome/cmd/internal/units"
)

// stage bounds each thing that the children are told to do.
const stage = 2 * time.Minute

// warmRound is how many messages of a topic are under way at most before the burst.
const warmRound = 256

// cast is the processes of one burst.
type cast struct {
	daemon int
	pub    *child.Process
	subs   []*child.Process
}

// all lists the children.
func (c *cast) all() []*child.Process { return append([]*child.Process{c.pub}, c.subs...) }

// one measures one burst.
func one(ctx context.Context, cfg Config, size uint64, how string, launch Launcher) (row Row, err error) {
	row = Row{Size: size, How: how, Count: int((cfg.Bytes + size - 1) / size)}
	rc := roleConfig{Socket: cfg.Socket, Tag: fmt.Sprint(time.Now().UnixNano()), Size: int(size), Subs: cfg.Subs, How: how}
	for left := row.Count; left > 0; left -= partMost {
		rc.Parts = append(rc.Parts, min(left, partMost))
	}
	c := &cast{daemon: cfg.Daemon}
	defer func() {
		for _, p := range c.all() {
			if p != nil {
				p.Kill()
			}
		}
	}()
	for range cfg.Subs {
		p, err := launch("burst-sub", rc)
		if err != nil {
			return row, err
		}
		c.subs = append(c.subs, p)
	}
	if c.pub, err = launch("burst-pub", rc); err != nil {
		return row, err
	}
	if err := await(ctx, "ready", c.all()...); err != nil {
		return row, err
	}
	// Around its queues once, with few messages under way: what a queue has touched stays with it.
	round := min(warmRound, rc.Parts[0])
	for done := 0; done < 4*rc.Parts[0]; done += round {
		if err := tell(ctx, "warm", round, c.all()...); err != nil {
			return row, err
		}
	}
	if err := sleep(ctx, cfg.Settle); err != nil {
		return row, err
	}
	idle, err := c.sample()
	if err != nil {
		return row, err
	}
	if how == Held {
		if err := send("hold", 0, c.subs...); err != nil {
			return row, err
		}
	}
	if err := tell(ctx, "burst", 0, c.pub); err != nil {
		return row, err
	}
	if how == Held {
		if err := await(ctx, "hold", c.subs...); err != nil {
			return row, err
		}
	}
	peak, err := c.sample()
	if err != nil {
		return row, err
	}
	if err := tell(ctx, "release", 0, c.subs...); err != nil {
		return row, err
	}
	row.Processes = make([]Process, len(idle.of))
	for i, m := range idle.of {
		row.Processes[i] = Process{Name: c.name(i), Idle: m, Peak: peak.of[i]}
	}
	row.Memfds, row.Resident = Levels{Idle: idle.memfds, Peak: peak.memfds}, Levels{Idle: idle.resident(), Peak: peak.resident()}
	if err := c.watch(ctx, cfg.Most, &row); err != nil {
		return row, err
	}
	if err := send("close", 0, c.all()...); err != nil {
		return row, err
	}
	var errs []error
	for _, p := range c.all() {
		errs = append(errs, p.Wait(ctx))
	}
	return row, errors.Join(errs...)
}

// watch looks each second whether memory is back, until it is, or for the time that is given.
func (c *cast) watch(ctx context.Context, most time.Duration, row *Row) error {
	begin := time.Now()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		now, err := c.sample()
		if err != nil {
			return err
		}
		since := max(1, time.Since(begin))
		row.Memfds.After, row.Resident.After = now.memfds, now.resident()
		row.Curve = append(row.Curve, now.resident())
		back := isBack(now.resident(), row.Resident.Idle)
		for i := range row.Processes {
			p := &row.Processes[i]
			p.After = now.of[i]
			if !isBack(p.After.RSS, p.Idle.RSS) {
				p.BackNs, back = 0, false
			} else if p.BackNs == 0 {
				p.BackNs = int64(since)
			}
		}
		if back {
			row.BackNs, row.Met = int64(since), since <= Within
			return nil
		}
		if since >= most {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func isBack(now, idle int64) bool { return float64(now) <= float64(idle)*(1+above) }

// sample is what all have now.
type sample struct {
	of     []procfs.Memory // bhomed, the publisher, the subscribers
	memfds int64
}

// resident is what all take of the machine: memfds once, and what each process has besides.
func (s sample) resident() int64 {
	sum := s.memfds
	for _, m := range s.of {
		sum += m.RSS - m.Shmem
	}
	return sum
}

func (c *cast) pids() []int {
	pids := []int{c.daemon}
	for _, p := range c.all() {
		pids = append(pids, p.PID())
	}
	return pids
}

func (c *cast) name(i int) string {
	switch i {
	case 0:
		return "bhomed"
	case 1:
		return "publisher"
	}
	return fmt.Sprintf("subscriber %d", i-1)
}

func (c *cast) sample() (s sample, err error) {
	for i, pid := range c.pids() {
		m, err := procfs.MemoryOf(pid)
		if err != nil {
			return s, fmt.Errorf("look at the memory of %s: %w", c.name(i), err)
		}
		s.of = append(s.of, m)
	}
	s.memfds, err = procfs.Memfds(c.pids()...)
	return s, err
}

func send(what string, count int, ps ...*child.Process) error {
	for _, p := range ps {
		if err := p.Send(what, count); err != nil {
			return err
		}
	}
	return nil
}

func await(ctx context.Context, what string, ps ...*child.Process) error {
	ctx, cancel := context.WithTimeoutCause(ctx, stage, fmt.Errorf("not done within %v", stage))
	defer cancel()
	for _, p := range ps {
		if err := p.Await(ctx, what, nil); err != nil {
			return err
		}
	}
	return nil
}

func tell(ctx context.Context, what string, count int, ps ...*child.Process) error {
	if err := send(what, count, ps...); err != nil {
		return err
	}
	return await(ctx, what, ps...)
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func printRow(out io.Writer, r Row) error {
	w := tabwriter.NewWriter(out, 2, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(out, "%d × %s, %s\n", r.Count, units.HumanBytes(r.Size), r.How)
	fmt.Fprintln(w, "MiB resident\tidle\tpeak\tof it shared\tPSS\tafter\tof it shared\tPSS\tback after\t")
	for _, p := range r.Processes {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", p.Name, mib(p.Idle.RSS), mib(p.Peak.RSS), mib(p.Peak.Shmem), mib(p.Peak.PSS),
			mib(p.After.RSS), mib(p.After.Shmem), mib(p.After.PSS), backAfter(p.BackNs))
	}
	fmt.Fprintf(w, "memfds\t%s\t%s\t\t\t%s\t\t\t\t\n", mib(r.Memfds.Idle), mib(r.Memfds.Peak), mib(r.Memfds.After))
	fmt.Fprintf(w, "all, memfds once\t%s\t%s\t\t\t%s\t\t\t%s\t\n", mib(r.Resident.Idle), mib(r.Resident.Peak), mib(r.Resident.After), backAfter(r.BackNs))
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprint(out, "all, each second:")
	for _, n := range r.Curve {
		fmt.Fprint(out, " ", mib(n))
	}
	verdict := "met"
	if !r.Met {
		verdict = "NOT MET"
	}
	_, err := fmt.Fprintf(out, "\nwithin %.0f %% of idle in %v: %s\n\n", 100*above, Within, verdict)
	return err
}

func mib(n int64) string { return fmt.Sprintf("%.1f", float64(n)/(1<<20)) }

func backAfter(ns int64) string {
	if ns == 0 {
		return "not"
	}
	return fmt.Sprintf("%.1f s", float64(ns)/1e9)
}
