package soak

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/bhome-bus/bhome/cmd/internal/procfs"
)

// Growth is the most that was seen of a process at quiescent points, and what it began with.
type Growth struct {
	Descriptors      int    `json:"descriptors"`
	FirstDescriptors int    `json:"first_descriptors"`
	Private          uint64 `json:"private_bytes"` // resident and its own: the heap, the stacks
	FirstPrivate     uint64 `json:"first_private_bytes"`
	Threads          int    `json:"threads"`
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
	center  map[int]procfs.Use // by epoch; only the living one's
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
		v, err := procfs.Look(d.bus.PID())
		if err != nil {
			return nil, err
		}
		g := &d.sum.Center
		base, ok := d.growth.center[d.epoch]
		if !ok {
			base = v
			d.growth.center = map[int]procfs.Use{d.epoch: v}
			g.FirstDescriptors, g.FirstPrivate = v.FDs, uint64(v.Private)
		}
		if v.FDs > base.FDs+moreDescriptors {
			say("bhomed has %d descriptors; at rest with the same processes it had %d", v.FDs, base.FDs)
		}
		if v.Private > base.Private+moreCenter {
			say("bhomed has %d bytes of memory of its own; at rest with the same processes it had %d", v.Private, base.Private)
		}
		if v.Threads > base.Threads+moreThreads {
			say("bhomed has %d threads; at rest with the same processes it had %d", v.Threads, base.Threads)
		}
		worst := Growth{}
		for _, m := range d.alive() {
			mv, err := procfs.Look(m.p.PID())
			if err != nil {
				return nil, err
			}
			now := first{mv.FDs, m.report.Goroutines, m.report.HeapBytes}
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
			worst.note(now.descriptors, now.heap, mv.Threads)
		}
		if len(wrong) == 0 {
			d.sum.Center.note(v.FDs, uint64(v.Private), v.Threads)
			d.sum.Members.note(worst.Descriptors, worst.Private, worst.Threads)
		}
		return wrong, nil
	})
}

func (g *Growth) note(descriptors int, private uint64, threads int) {
	g.Descriptors, g.Private, g.Threads = max(g.Descriptors, descriptors), max(g.Private, private), max(g.Threads, threads)
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
