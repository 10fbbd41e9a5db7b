package soak

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/bhome-bus/bhome/node"
)

// population is how many processes there are at most, besides the anchors.
const population = 10

func one[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

// topic is one of nine.
func topic(r *rand.Rand) string { return fmt.Sprintf("soak.%s.%d", one(r, "a", "b", "c"), r.IntN(3)) }

// somePattern matches one of the topics, a few, or all.
func somePattern(r *rand.Rand) string {
	switch r.IntN(6) {
	case 0:
		return "soak.>"
	case 1:
		return fmt.Sprintf("soak.*.%d", r.IntN(3))
	case 2:
		return one(r, "soak.a.", "soak.b.>")
	default:
		return topic(r)
	}
}

func somePub(r *rand.Rand) pubSpec {
	p := pubSpec{Topic: topic(r), Consent: one(r, 0, 20*time.Millisecond, endless, endless), Batch: r.IntN(3) == 0,
		Largest: one(r, 100, 4<<10, 64<<10, 1<<20, maxPayload), Pause: time.Duration(5+r.IntN(60)) * time.Millisecond}
	if r.IntN(6) == 0 {
		p.Keep = 1 + r.IntN(20)
	}
	return p
}

func someSub(r *rand.Rand) subSpec {
	s := subSpec{Pattern: somePattern(r), Policy: one(r, node.Block, node.Block, node.DropOldest, node.DropNewest),
		Depth: 1 << r.IntN(9), Hold: 1 << r.IntN(7), Quota: one[uint64](r, 1<<20, 8<<20, 16<<20), History: r.IntN(6) == 0,
		Batch: r.IntN(3) == 0, Stall: one(r, time.Millisecond, 30*time.Millisecond, 300*time.Millisecond)}
	if s.Policy != node.Block && r.IntN(4) == 0 {
		s.Expiry = 50 * time.Millisecond
	}
	return s
}

func service(r *rand.Rand) string { return fmt.Sprintf("soak.service.%d", r.IntN(3)) }

func someAsk(r *rand.Rand) askSpec {
	return askSpec{Topic: service(r), Largest: one(r, 100, 4<<10, 256<<10), Async: r.IntN(2) == 0, Deadly: r.IntN(4) == 0,
		Pause: time.Duration(2+r.IntN(30)) * time.Millisecond}
}

func someServe(r *rand.Rand) serveSpec {
	return serveSpec{Topic: service(r), Workers: 1 + r.IntN(4), Depth: 1 << r.IntN(7)}
}

// someMember is a process that does some of everything.
func (d *director) someMember() memberConfig {
	r := d.r
	cfg := memberConfig{Name: d.freeName(), Seed: r.Uint64(), Churn: r.IntN(2) == 0}
	topics := map[string]bool{} // one publisher for each topic: what two do is one sequence
	for range r.IntN(4) {
		if p := somePub(r); !topics[p.Topic] {
			topics[p.Topic] = true
			cfg.Pubs = append(cfg.Pubs, p)
		}
	}
	for range r.IntN(3) {
		cfg.Subs = append(cfg.Subs, someSub(r))
	}
	services := map[string]bool{}
	for range r.IntN(3) {
		if s := someServe(r); !services[s.Topic] {
			services[s.Topic] = true
			cfg.Serves = append(cfg.Serves, s)
		}
	}
	for range r.IntN(3) {
		cfg.Asks = append(cfg.Asks, someAsk(r))
	}
	if r.IntN(6) == 0 {
		cfg.ExitAfter = time.Duration(r.IntN(3000)) * time.Millisecond
	}
	return cfg
}

// freeName is a name that nobody has who lives: those of the dead are used again.
func (d *director) freeName() string {
	taken := map[string]bool{}
	for _, m := range d.alive() {
		taken[m.cfg.Name] = true
	}
	for i := d.r.IntN(population); ; i++ {
		if name := fmt.Sprintf("soak-%d", i); !taken[name] {
			return name
		}
	}
}

// startAnchors starts the processes that live throughout: what they keep too much of shows in the end.
func (d *director) startAnchors(ctx context.Context) error {
	pub := func(topic string, consent time.Duration) pubSpec {
		return pubSpec{Topic: topic, Consent: consent, Largest: 256 << 10, Pause: 20 * time.Millisecond, Batch: true}
	}
	sub := func(pattern string, policy node.Policy) subSpec {
		return subSpec{Pattern: pattern, Policy: policy, Depth: 512, Hold: 16, Quota: 8 << 20, Stall: 20 * time.Millisecond}
	}
	for _, cfg := range []memberConfig{
		{Name: "anchor-1", Pubs: []pubSpec{pub("soak.a.0", endless), pub("soak.b.1", 0)}, Serves: []serveSpec{{"soak.service.0", 2, 16}},
			Subs: []subSpec{sub("soak.c.>", node.Block)}},
		{Name: "anchor-2", Subs: []subSpec{sub("soak.a.", node.Block), sub("soak.b.", node.DropOldest)}, Pubs: []pubSpec{pub("soak.c.2", endless)},
			Asks: []askSpec{{Topic: "soak.service.0", Largest: 4 << 10, Async: true, Pause: 10 * time.Millisecond}}},
		{Name: "anchor-3", Subs: []subSpec{sub("soak.*.1", node.DropNewest)}, Serves: []serveSpec{{"soak.service.1", 1, 64}},
			Asks: []askSpec{{Topic: "soak.service.2", Largest: 64 << 10, Pause: 10 * time.Millisecond}}},
	} {
		cfg.Seed, cfg.Inject = d.r.Uint64(), d.cfg.Inject
		if _, err := d.start(cfg, true); err != nil {
			return err
		}
	}
	return d.until(ctx, "the anchors are there", func() bool {
		for _, m := range d.alive() {
			if !m.ready {
				return false
			}
		}
		return true
	})
}
