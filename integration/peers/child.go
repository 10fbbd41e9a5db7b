package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"slices"
	"time"
)

// A child is told its config as a line on its standard input, says "ready ADDRESS" and at last, the client, its result. It
// ends when its standard input does.

// result is what a client has measured.
type result struct {
	P50, P99, P999 int64   // ns there and back
	Trips          int     // of them
	Rate           float64 // messages/s one way
	Note           string  // why there is no figure
}

func child(ctx context.Context, role string) error {
	in := bufio.NewReader(os.Stdin)
	line, err := in.ReadBytes('\n')
	if err != nil {
		return err
	}
	var c config
	if err := json.Unmarshal(line, &c); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = in.ReadByte() // until the parent closes it, or is gone
		cancel()
	}()
	ready := func(addr string) { fmt.Println("ready", addr) }
	for _, k := range contestants() {
		if k.name != c.Name {
			continue
		}
		switch role {
		case "broker":
			return k.broker(ctx, c, ready)
		case "server":
			var sum uint64
			if k.serves != nil {
				return k.serves(c).serve(ctx, ready, func(b []byte) bool { touch(b); return true })
			}
			return k.make(c).serve(ctx, ready, func(b []byte) bool { sum += touch(b); return b[0] != kindSink })
		}
		var r result
		if k.serves != nil {
			r, err = measureRequests(ctx, c, k.serves(c))
		} else {
			r, err = measure(ctx, c, k.make(c))
		}
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(r)
	}
	return fmt.Errorf("no contestant %q", c.Name)
}

// measure takes the client's figures: first there and back, then one way.
func measure(ctx context.Context, c config, t transport) (r result, err error) {
	k, err := t.dial(ctx, c.Addr)
	if err != nil {
		return r, err
	}
	defer k.close()
	payload := make([]byte, c.Size)
	var sum uint64
	read := func(b []byte) { sum += touch(b) }
	trip := func() error {
		if err := k.send(payload); err != nil {
			return err
		}
		return k.recv(read)
	}
	each := time.Duration(c.EachNs)
	if r, err = roundTrips(each, trip); err != nil {
		return r, err
	}
	payload[0] = kindSink
	begin := time.Now()
	n := 0
	for time.Since(begin) < each {
		for range max(1, min(256, 1<<22/c.Size)) {
			if err := k.send(payload); err != nil {
				return r, err
			}
			n++
		}
	}
	payload[0] = kindLast
	if err := trip(); err != nil {
		return r, err
	}
	r.Rate = float64(n+1) / time.Since(begin).Seconds()
	return r, nil
}

// roundTrips does trip again and again for as long as each, after a tenth of that for warming up.
func roundTrips(each time.Duration, trip func() error) (r result, err error) {
	for end := time.Now().Add(each / 10); time.Now().Before(end); {
		if err := trip(); err != nil {
			return r, err
		}
	}
	var ns []int64
	for begin, last := time.Now(), time.Now(); last.Sub(begin) < each; {
		if err := trip(); err != nil {
			return r, err
		}
		now := time.Now()
		ns = append(ns, int64(now.Sub(last)))
		last = now
	}
	slices.Sort(ns)
	at := func(q float64) int64 { return ns[min(len(ns)-1, int(q*float64(len(ns))))] }
	r.P50, r.P99, r.P999, r.Trips = at(0.5), at(0.99), at(0.999), len(ns)
	ns = nil
	runtime.GC()
	return r, nil
}
