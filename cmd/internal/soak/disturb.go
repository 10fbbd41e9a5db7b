package soak

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/bhome-bus/bhome/cmd/internal/units"
)

// What is done, and to whom.
const (
	actStart       = "started"
	actClose       = "told to close"
	actKill        = "killed"
	actKillStopped = "killed while stopped"
	actStop        = "stopped and continued"
	actExit        = "exited by itself"
	actKillCenter  = "bhomed killed"
	actEndCenter   = "bhomed restarted cleanly"
	actStopCenter  = "bhomed stopped and continued"
)

// roundTime is how long the bus is disturbed between two checks; actEvery, the mean time between two acts.
const (
	roundTime = 8 * time.Second
	actEvery  = 120 * time.Millisecond
	sayEvery  = 4 * time.Second
	lookEvery = 500 * time.Millisecond
)

// disturb does one thing after the other to the processes.
func (d *director) disturb(ctx context.Context) error {
	end := time.Now().Add(roundTime)
	next := time.Now()
	for time.Now().Before(end) {
		if err := d.listen(ctx, nil, "the processes are disturbed"); err != nil {
			return err
		}
		if err := d.due(ctx); err != nil {
			return err
		}
		if now := time.Now(); now.After(next) {
			next = now.Add(time.Duration(d.r.ExpFloat64() * float64(actEvery)))
			if err := d.disturbOnce(); err != nil {
				return err
			}
		}
	}
	return nil
}

// due does what was put off: the stopped go on, the center comes back; and lines are printed.
func (d *director) due(ctx context.Context) error {
	now := time.Now()
	for _, m := range d.alive() {
		if !m.stopped.IsZero() && now.After(m.stopped) {
			d.cont(m)
		}
	}
	if !d.centerStill.IsZero() && now.After(d.centerStill) {
		d.bus.Signal(syscall.SIGCONT)
		d.centerStill = time.Time{}
	}
	if d.down && now.After(d.downUntil) {
		if err := d.bus.Run(ctx); err != nil {
			return d.fault("bhomed does not start again: %v", err)
		}
		d.centerUp()
	}
	if now.After(d.nextLook) && !d.down && d.centerStill.IsZero() {
		d.nextLook = now.Add(lookEvery)
		if err := d.whoIsThere(ctx); err != nil {
			return err
		}
	}
	if now.After(d.nextSay) {
		d.nextSay = now.Add(sayEvery)
		d.sayProgress()
	}
	return nil
}

func (d *director) sayProgress() {
	s := d.sum
	for _, m := range d.members {
		d.count(m, &s)
	}
	mood := "restless"
	if d.calm {
		mood = "calm"
	}
	fmt.Fprintf(d.cfg.Out, "%8v  round %d (%s), %d processes: %s published, %s received (%s), %s requests; %d kills, %d centers, %d pairs compared, %d looks\n",
		time.Since(d.began).Round(time.Second), d.round, mood, len(d.alive()), units.HumanCount(s.Published), units.HumanCount(s.Received),
		units.HumanBytes(s.ReceivedB), units.HumanCount(s.Requests), s.Kills(), d.epoch, s.Pairs, s.Looks)
}

func (d *director) cont(m *member) {
	m.p.Signal(syscall.SIGCONT)
	m.stopped, m.continued = time.Time{}, time.Now()
}

// victim is one of the living that aren't anchors; nil if there is none.
func (d *director) victim(anchorsToo bool) *member {
	all := d.alive()
	for range 20 {
		if m := all[d.r.IntN(len(all))]; (anchorsToo || !m.anchor) && !m.closing {
			return m
		}
	}
	return nil
}

func (d *director) disturbOnce() error {
	crowd := 0
	for _, m := range d.alive() {
		if !m.anchor {
			crowd++
		}
	}
	x := d.r.IntN(100)
	for range 2 {
		if crowd < population && (crowd < population/2 || d.r.IntN(2) == 0) {
			if _, err := d.start(d.someMember(), false); err != nil {
				return err
			}
			crowd++
		}
	}
	switch {
	case x < 45:
		d.kill(d.victim(false))
	case x < 60:
		d.stop(d.victim(true))
	case x < 68:
		d.leave(d.victim(false))
	case x < 72: // many at once
		for range 2 + d.r.IntN(4) {
			d.kill(d.victim(false))
		}
		if d.r.IntN(2) == 0 {
			return d.endCenter(syscall.SIGKILL)
		}
	case x < 77:
		return d.endCenter(syscall.SIGKILL)
	case x < 80:
		return d.endCenter(syscall.SIGTERM)
	case x < 83:
		d.stopCenter()
	}
	return nil
}

func (d *director) kill(m *member) {
	if m == nil {
		return
	}
	if m.stopped.IsZero() {
		d.act(actKill, m.name())
	} else {
		d.act(actKillStopped, m.name())
	}
	m.killed = true
	d.died(m)
	m.p.Signal(syscall.SIGKILL)
}

// stop stops a process: mostly for a moment, sometimes for longer than the center waits until it calls it unresponsive.
func (d *director) stop(m *member) {
	if m == nil || !m.stopped.IsZero() {
		return
	}
	length := time.Duration(d.r.IntN(400)) * time.Millisecond
	if d.r.IntN(5) == 0 {
		length = time.Duration(1000+d.r.IntN(2500)) * time.Millisecond
	}
	d.haveHeard()
	m.stopped = time.Now().Add(length)
	d.act(actStop, m.name()+", for "+length.String())
	m.p.Signal(syscall.SIGSTOP)
}

func (d *director) leave(m *member) {
	if m == nil || !m.stopped.IsZero() {
		return
	}
	d.act(actClose, m.name())
	m.closing = true
	_ = m.p.Send(cmdClose, nil) // it may just have exited
}

// endCenter ends bhomed, for a while that is drawn now.
func (d *director) endCenter(sig syscall.Signal) error {
	if d.calm || d.down || !d.centerStill.IsZero() && sig == syscall.SIGTERM {
		return nil
	}
	away := time.Duration(0)
	if d.r.IntN(3) > 0 {
		away = time.Duration(d.r.IntN(700)) * time.Millisecond
	}
	what := actKillCenter
	if sig == syscall.SIGTERM {
		what = actEndCenter
	}
	d.act(what, "away for "+away.String())
	d.centerEnds()
	d.down, d.downUntil, d.centerStill = true, time.Now().Add(away), time.Time{}
	for _, m := range d.members { // who was stopped may not have been told all of those that have died just before
		if m.gone() && time.Since(m.diedAt) < resumed {
			m.alone = true
		}
	}
	if err := d.bus.End(sig); err != nil {
		return d.fault("bhomed did not end well: %v", err)
	}
	if log := d.bus.Log(); complains(log) {
		return d.fault("bhomed complained: %s", log)
	}
	return nil
}

func (d *director) stopCenter() {
	if d.down || !d.centerStill.IsZero() {
		return
	}
	length := time.Duration(d.r.IntN(1500)) * time.Millisecond
	d.act(actStopCenter, "for "+length.String())
	d.centerStill = time.Now().Add(length)
	d.bus.Signal(syscall.SIGSTOP)
}

// whoIsThere notes whom the center knows. Whoever it still waits for isn't told of anywhere else.
func (d *director) whoIsThere(ctx context.Context) error {
	bound, cancel := context.WithTimeout(ctx, lookEvery)
	defer cancel()
	rows, err := d.inspector.Procs(bound)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, context.DeadlineExceeded): // it is busy, or the inspector still looks for it
		return nil
	case err != nil:
		return fmt.Errorf("ask for the processes: %w", err)
	}
	online := map[int]bool{}
	for _, r := range rows {
		online[int(r.GetPid())] = r.GetState() == "online"
	}
	for _, m := range d.alive() {
		if online[m.p.PID()] && m.epoch != d.epoch {
			m.epoch, m.known = d.epoch, time.Now()
		}
	}
	return nil
}
