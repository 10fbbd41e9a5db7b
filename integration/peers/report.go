package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// write writes the page and its plots, or the page to standard output.
func (p plan) write(r results) error {
	page := p.page(r)
	if p.out == "" {
		_, err := os.Stdout.Write(page)
		return err
	}
	for name, svg := range p.plots(r) {
		if err := os.WriteFile(filepath.Join(filepath.Dir(p.out), name), svg, 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile(p.out, page, 0o644)
}

func (p plan) page(r results) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `# Benchmarks

Written by %s on %s; don't edit. Each pair of processes does the same work: the sender hands over a payload
of its own (bhome and its peers copy it once, at least), the receiver reads a word of every cache line. A round trip is
there and back, back to back; one way is as fast as it goes, with what is under way bounded, until the last message is
answered. Contestants alternate; figures are medians of %d rounds of %v each. Cores are the CPU time of all
processes (the daemon's, too) over the time of the whole measurement.

Machine: %s; %d CPUs; %s; %s. Placement probe (bhome's own spinning 64 B round trip after each round): %s.

`, "`make compare`", r.began.Format("2006-01-02"), p.rounds, p.each, cpuModel(), runtime.NumCPU(), kernel(), runtime.Version(), spread(r.probe))
	b.WriteString("| contestant | what it is |\n| --- | --- |\n")
	for _, k := range p.who {
		fmt.Fprintf(&b, "| %s | %s |\n", k.name, k.what)
	}
	trip := func(f figure) string {
		return fmt.Sprintf("%s / %s / %s", micros(f.P50), micros(f.P99), micros(f.P999))
	}
	all := messengers(p.who)
	p.table(&b, r, "Round trip, µs: p50 / p99 / p99.9", all, p.sizes, trip)
	b.WriteString("\n![round trip](benchmarks-latency.svg)\n")
	p.table(&b, r, "One way, messages/s (MB/s)", all, p.sizes, nil)
	b.WriteString("\n![one way](benchmarks-rate.svg)\n")
	cores := func(f figure) string { return fmt.Sprintf("%.2f", f.CPU) }
	p.table(&b, r, "CPU, cores", all, p.sizes, cores)
	services := slices.DeleteFunc(slices.Clone(p.who), func(k contestant) bool { return k.serves == nil })
	sizes := slices.DeleteFunc(slices.Clone(p.sizes), func(n int) bool { return n > largestRequest })
	p.table(&b, r, "Request and reply, µs: p50 / p99 / p99.9", services, sizes, trip)
	p.table(&b, r, fmt.Sprintf("Requests answered, %d goroutines of one client asking, per second", askers), services, sizes, func(f figure) string { return count(f.Rate) })
	p.table(&b, r, "CPU of requests, cores", services, sizes, cores)
	p.losses(&b, r)
	return b.Bytes()
}

// messengers are those who don't ask.
func messengers(who []contestant) []contestant {
	return slices.DeleteFunc(slices.Clone(who), func(k contestant) bool { return k.serves != nil })
}

func (p plan) table(b *bytes.Buffer, r results, title string, who []contestant, sizes []int, cell func(figure) string) {
	if len(who) == 0 {
		return
	}
	fmt.Fprintf(b, "\n## %s\n\n|", title)
	for _, s := range sizes {
		fmt.Fprintf(b, " | %s", bytesOf(s))
	}
	b.WriteString(" |\n| ---" + strings.Repeat(" | ---:", len(sizes)) + " |\n")
	for _, k := range who {
		fmt.Fprintf(b, "| %s", k.name)
		for _, s := range sizes {
			f := r.figures[k.name][s]
			switch {
			case f.Note != "":
				b.WriteString(" | –")
			case cell != nil:
				b.WriteString(" | " + cell(f))
			default:
				fmt.Fprintf(b, " | %s (%s)", count(f.Rate), count(f.Rate*float64(s)/1e6))
			}
		}
		b.WriteString(" |\n")
	}
}

// losses says where a peer is ahead of bhome waiting as it does: one that spins of bhome spinning, one that sleeps of bhome
// parked; one way, which no peer is told to batch by hand, of bhome sending one by one.
func (p plan) losses(b *bytes.Buffer, r results) {
	var lines []string
	for _, s := range p.sizes {
		at := func(name string) figure { return r.figures[name][s] }
		for _, k := range p.who {
			f := at(k.name)
			if k.wait != "" || f.Note != "" || f.P50 == 0 {
				continue
			}
			own, rate := at("bhome park"), max(at("bhome park").Rate, at("bhome adaptive").Rate)
			how := "parked"
			if k.serves != nil {
				own, rate = at("bhome request park"), max(at("bhome request park").Rate, at("bhome request").Rate)
				how = "requests parked"
			}
			if k.spins {
				own, how = at("bhome spin"), "spinning"
				rate = own.Rate
			}
			for _, q := range []struct {
				name      string
				peer, own int64
			}{{"median", f.P50, own.P50}, {"p99", f.P99, own.P99}, {"p99.9", f.P999, own.P999}} {
				if q.own > 0 && q.peer < q.own {
					lines = append(lines, fmt.Sprintf("- %s, there and back, %s: %s takes %s µs, bhome %s %s.", bytesOf(s), q.name, k.name, micros(q.peer), how, micros(q.own)))
				}
			}
			if rate > 0 && f.Rate > rate {
				lines = append(lines, fmt.Sprintf("- %s, one way: %s sends %s messages/s, bhome one by one %s.", bytesOf(s), k.name, count(f.Rate), count(rate)))
			}
			if cpu := own.CPU; cpu > 0 && f.CPU < 0.8*cpu {
				lines = append(lines, fmt.Sprintf("- %s, CPU: %s uses %.2f cores, bhome %s %.2f.", bytesOf(s), k.name, f.CPU, how, cpu))
			}
		}
	}
	b.WriteString("\n## Where a peer wins\n\nEach against bhome waiting as it does: sleeping peers against bhome parked, one way against bhome one by one.\n\n")
	if len(lines) == 0 {
		b.WriteString("Nowhere in this run.\n")
		return
	}
	b.WriteString(strings.Join(lines, "\n") + "\n")
}

func bytesOf(n int) string {
	switch {
	case n >= 1<<20 && n%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<10 && n%(1<<10) == 0:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d B", n)
}

func micros(ns int64) string {
	us := float64(ns) / 1e3
	switch {
	case us < 10:
		return fmt.Sprintf("%.2f", us)
	case us < 100:
		return fmt.Sprintf("%.1f", us)
	}
	return fmt.Sprintf("%.0f", us)
}

func count(v float64) string {
	switch {
	case v >= 1e6:
		return fmt.Sprintf("%.2f M", v/1e6)
	case v >= 1e4:
		return fmt.Sprintf("%.0f k", v/1e3)
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.1f", v)
}

func spread(ns []float64) string {
	if len(ns) == 0 {
		return "none"
	}
	s := slices.Clone(ns)
	slices.Sort(s)
	return fmt.Sprintf("%.0f ns, %.0f to %.0f", s[len(s)/2], s[0], s[len(s)-1])
}

func cpuModel() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown CPU"
	}
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
			return strings.TrimSpace(v)
		}
	}
	return runtime.GOARCH
}

func kernel() string {
	b, err := exec.Command("uname", "-sr").Output()
	if err != nil {
		return "Linux"
	}
	return strings.TrimSpace(string(b))
}
