package soak

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Growth is the most that was seen of a process at quiescent points, and what it began with.
type Growth struct {
	Descriptors      int    `json:"descriptors"`
	FirstDescriptors int    `json:"first_descriptors"`
	Private          uint64 `json:"private_bytes"` // resident and its own: the heap, the stacks
	FirstPrivate     uint64 `json:"first_private_bytes"`
	Threads          int    `json:"threads"`
}

// vitals are what a process has now.
type vitals struct {
	descriptors, threads int
	private              uint64
}

func readVitals(pid int) (v vitals, err error) {
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	fds, err := os.ReadDir(filepath.Join(proc, "fd"))
	if err != nil {
		return v, err
	}
	v.descriptors = len(fds)
	text, err := os.ReadFile(filepath.Join(proc, "status"))
	if err != nil {
		return v, err
	}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		fields := strings.Fields(value)
		if len(fields) == 0 {
			continue
		}
		switch n, _ := strconv.ParseUint(fields[0], 10, 64); key { // the other lines aren't numbers
		case "RssAnon":
			v.private = n << 10
		case "Threads":
			v.threads = int(n)
		}
	}
	return v, nil
}

// What the same processes, at rest, may have more than they had at the first quiescent point (the center: that it reached).
// A leak grows with the deaths, of which a round has some fifty: it passes these bounds within a few rounds, and the noise
// doesn't. Descriptors: a data segment more or less at each of the anchors. Memory: what the collector hasn't yet given
// back to the kernel; of the members, the live heap after a collection is taken, which has no such slack.
const (
	moreDescriptors = 24
	moreCenter      = 64 << 20
	moreHeap        = 8 << 20
	moreGoroutines  = 8
	moreThreads     = 64
)

// growth is what the first quiescent points showed.
type growth struct {
	center  map[int]vitals // by epoch; only the living one's
	anchors map[uint32]first
}

type first struct {
	descriptors, goroutines int
	heap                    uint64
}

// measure compares what the center and the anchors have with what they began with. Only the anchors live, and all is quiet;
// what goes by itself a little later is waited for.
func (d *director) measure(ctx context.Context) error {
	return d.eventually(ctx, "nothing has grown", func(ctx context.Context) (wrong []string, err error) {
		if err := d.reports(ctx); err != nil {
			return nil, err
		}
		say := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
		v, err := readVitals(d.bus.PID())
		if err != nil {
			return nil, err
		}
		g := &d.sum.Center
		base, ok := d.growth.center[d.epoch]
		if !ok {
			base = v
			d.growth.center = map[int]vitals{d.epoch: v}
			g.FirstDescriptors, g.FirstPrivate = v.descriptors, v.private
		}
		if v.descriptors > base.descriptors+moreDescriptors {
			say("bhomed has %d descriptors; at rest with the same processes it had %d", v.descriptors, base.descriptors)
		}
		if v.private > base.private+moreCenter {
			say("bhomed has %d bytes of memory of its own; at rest with the same processes it had %d", v.private, base.private)
		}
		if v.threads > base.threads+moreThreads {
			say("bhomed has %d threads; at rest with the same processes it had %d", v.threads, base.threads)
		}
		worst := vitals{}
		for _, m := range d.alive() {
			mv, err := readVitals(m.p.PID())
			if err != nil {
				return nil, err
			}
			now := first{mv.descriptors, m.report.Goroutines, m.report.HeapBytes}
			base, ok := d.growth.anchors[m.cfg.Member]
			if !ok {
				if d.growth.anchors == nil {
					d.growth.anchors = map[uint32]first{}
				}
				base = now
				d.growth.anchors[m.cfg.Member] = now
				d.sum.Members.FirstDescriptors = max(d.sum.Members.FirstDescriptors, now.descriptors)
				d.sum.Members.FirstPrivate = max(d.sum.Members.FirstPrivate, now.heap)
			}
			if now.descriptors > base.descriptors+moreDescriptors || now.heap > base.heap+moreHeap || now.goroutines > base.goroutines+moreGoroutines {
				say("%s has %d descriptors, %d goroutines and a heap of %d bytes; at rest it had %d, %d and %d", m.name(),
					now.descriptors, now.goroutines, now.heap, base.descriptors, base.goroutines, base.heap)
			}
			worst.descriptors, worst.private, worst.threads = max(worst.descriptors, now.descriptors), max(worst.private, now.heap), max(worst.threads, mv.threads)
		}
		if len(wrong) == 0 {
			d.sum.Center.note(v)
			d.sum.Members.note(worst)
		}
		return wrong, nil
	})
}

func (g *Growth) note(v vitals) {
	g.Descriptors, g.Private, g.Threads = max(g.Descriptors, v.descriptors), max(g.Private, v.private), max(g.Threads, v.threads)
}

// processesOf are the processes whose command line names the socket, and the children of this one.
func processesOf(socket string) map[int]string {
	left := map[int]string{}
	procs, _ := filepath.Glob("/proc/[0-9]*") // the pattern is right
	for _, proc := range procs {
		pid, err := strconv.Atoi(filepath.Base(proc))
		if err != nil || pid == os.Getpid() {
			continue
		}
		line, _ := os.ReadFile(filepath.Join(proc, "cmdline")) // who is gone has none
		stat, _ := os.ReadFile(filepath.Join(proc, "stat"))
		_, after, _ := strings.Cut(string(stat), ") ")
		fields := strings.Fields(after)
		child := len(fields) > 1 && fields[1] == strconv.Itoa(os.Getpid())
		if child || strings.Contains(string(line), socket) {
			left[pid] = strings.ReplaceAll(strings.TrimRight(string(line), "\x00"), "\x00", " ")
		}
	}
	return left
}

// complains says whether bhomed's log has what is never right.
func complains(log string) bool {
	return strings.Contains(log, "panic") || strings.Contains(log, "[ERROR]") || strings.Contains(log, "fatal error")
}
