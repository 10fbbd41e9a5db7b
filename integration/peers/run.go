package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// plan is what is to be measured.
type plan struct {
	sizes    []int
	who      []contestant
	each     time.Duration
	rounds   int
	out      string
	bhomed   string
	external string
}

// figure is one contestant's at one size: the medians of the rounds.
type figure struct {
	result
	CPU float64 // of all its processes, in cores, over the whole measurement
}

// results are the figures by contestant and size, and the probe's.
type results struct {
	figures map[string]map[int]figure
	probe   []float64 // ns: a bare queue's round trip between two spinning processes, before and after each size's round
	began   time.Time
}

// largestRequest is the largest payload that requests are measured with: large ones cost what messages cost.
const largestRequest = 64 << 10

// run measures. Contestants alternate within a round, so that what the machine does meanwhile hits all of them.
func (p plan) run(ctx context.Context) (results, error) {
	r := results{figures: map[string]map[int]figure{}, began: time.Now()}
	for _, size := range p.sizes {
		rounds := map[string][]figure{}
		for round := range p.rounds {
			for _, k := range p.who {
				if k.serves != nil && size > largestRequest {
					continue
				}
				f, err := p.one(ctx, k, size)
				if err != nil {
					if ctx.Err() != nil {
						return r, ctx.Err()
					}
					f.Note = err.Error()
					fmt.Fprintf(os.Stderr, "%s, %d bytes: %v\n", k.name, size, err)
				} else {
					fmt.Fprintf(os.Stderr, "%-16s %8d B  round %d: p50 %8.2f µs  p99 %8.2f µs  %11.0f /s  %.2f cores\n", k.name, size, round+1,
						float64(f.P50)/1e3, float64(f.P99)/1e3, f.Rate, f.CPU)
				}
				rounds[k.name] = append(rounds[k.name], f)
			}
			ns, err := p.place(ctx)
			if err != nil {
				return r, err
			}
			r.probe = append(r.probe, ns)
		}
		for name, fs := range rounds {
			if r.figures[name] == nil {
				r.figures[name] = map[int]figure{}
			}
			r.figures[name][size] = median(fs)
		}
	}
	return r, nil
}

// place is the placement probe: bhome's spinning round trip is all about where the two processes run.
func (p plan) place(ctx context.Context) (float64, error) {
	probe := p
	probe.each = 100 * time.Millisecond
	for _, k := range contestants() {
		if k.wait == "spin" {
			f, err := probe.one(ctx, k, 64)
			return float64(f.P50), err
		}
	}
	return 0, errors.New("no probe")
}

func median(fs []figure) (m figure) {
	fs = slices.DeleteFunc(slices.Clone(fs), func(f figure) bool { return f.Note != "" })
	if len(fs) == 0 {
		m.Note = "failed"
		return m
	}
	of := func(get func(figure) float64) float64 {
		var vs []float64
		for _, f := range fs {
			vs = append(vs, get(f))
		}
		slices.Sort(vs)
		return vs[len(vs)/2]
	}
	m.P50 = int64(of(func(f figure) float64 { return float64(f.P50) }))
	m.P99 = int64(of(func(f figure) float64 { return float64(f.P99) }))
	m.P999 = int64(of(func(f figure) float64 { return float64(f.P999) }))
	m.Rate = of(func(f figure) float64 { return f.Rate })
	m.CPU = of(func(f figure) float64 { return f.CPU })
	return m
}

// one measures one contestant once, in processes of its own.
func (p plan) one(ctx context.Context, k contestant, size int) (f figure, err error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second+20*p.each)
	defer cancel()
	c := config{Name: k.name, Wait: k.wait, Size: size, EachNs: int64(p.each), Bhomed: p.bhomed, External: p.external}
	var running []*process
	begin := time.Now()
	defer func() {
		wall := time.Since(begin).Seconds()
		var cpu time.Duration
		for _, r := range slices.Backward(running) {
			d, werr := r.end()
			cpu += d
			if err == nil {
				err = werr
			}
		}
		f.CPU = cpu.Seconds() / wall
	}()
	start := func(role string) (*process, error) {
		r, err := start(ctx, k, role, c)
		if err == nil {
			running = append(running, r)
		}
		return r, err
	}
	if k.broker != nil || k.daemon {
		b, err := start("broker")
		if err != nil {
			return f, err
		}
		if c.Addr, err = b.ready(); err != nil {
			return f, fmt.Errorf("broker: %w", err)
		}
	}
	s, err := start("server")
	if err != nil {
		return f, err
	}
	if c.Addr, err = s.ready(); err != nil {
		return f, fmt.Errorf("server: %w", err)
	}
	cl, err := start("client")
	if err != nil {
		return f, err
	}
	line, err := cl.out.ReadBytes('\n')
	if err != nil {
		return f, fmt.Errorf("client: no result: %w", err)
	}
	return f, json.Unmarshal(line, &f.result)
}

// process is a child that runs.
type process struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func start(ctx context.Context, k contestant, role string, c config) (*process, error) {
	name, args := "/proc/self/exe", []string{role}
	if k.extern != "" {
		name = filepath.Join(c.External, k.extern)
		args = []string{role, fmt.Sprint(c.Size), fmt.Sprint(c.EachNs), c.Addr}
	}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd, in, bufio.NewReader(out)}
	if k.extern == "" {
		if err := json.NewEncoder(in).Encode(c); err != nil {
			return nil, errors.Join(err, cmd.Process.Kill(), cmd.Wait())
		}
	}
	return p, nil
}

// ready waits until the child says where it can be reached.
func (p *process) ready() (string, error) {
	line, err := p.out.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("it isn't ready: %w", err)
	}
	addr, ok := strings.CutPrefix(strings.TrimSpace(line), "ready ")
	if !ok {
		return "", fmt.Errorf("it says %q", line)
	}
	return addr, nil
}

// end lets the child end and returns the CPU time it has used.
func (p *process) end() (time.Duration, error) {
	_ = p.in.Close() // it ends when its input does
	kill := time.AfterFunc(3*time.Second, func() { _ = p.cmd.Process.Kill() })
	defer kill.Stop()
	err := p.cmd.Wait()
	if s := p.cmd.ProcessState; s != nil {
		return s.UserTime() + s.SystemTime(), nil
	}
	return 0, err
}
