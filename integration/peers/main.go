// Command peers measures bhome beside what people use instead, with identical work in separate processes, and writes
// what it found as a page with plots. It has a module of its own, so that nobody who uses bhome downloads its peers.
//
//	go run . --out ../../docs/benchmarks.md     # some ten minutes; see `make compare`
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if len(os.Args) > 1 && (os.Args[1] == "client" || os.Args[1] == "server" || os.Args[1] == "broker") {
		err = child(ctx, os.Args[1])
	} else {
		err = compare(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

func compare(ctx context.Context) error {
	p := plan{}
	sizes := "64,1024,65536,1048576,4194304"
	only := ""
	flag.StringVar(&sizes, "sizes", sizes, "payload sizes in bytes")
	flag.StringVar(&only, "only", only, "contestants, separated by commas; all if empty")
	flag.DurationVar(&p.each, "each", time.Second, "how long one measurement takes")
	flag.IntVar(&p.rounds, "rounds", 3, "rounds; contestants alternate, each figure is the median")
	flag.StringVar(&p.out, "out", "", "the page to write; plots go beside it")
	flag.StringVar(&p.bhomed, "bhomed", "../../bin/bhomed", "the daemon")
	flag.StringVar(&p.external, "external", "bin", "where install.sh has put the peers that aren't Go")
	flag.Parse()
	for s := range strings.SplitSeq(sizes, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 16 {
			return fmt.Errorf("size %q: want a number of bytes, 16 at least", s)
		}
		p.sizes = append(p.sizes, n)
	}
	for _, c := range contestants() {
		if only == "" || strings.Contains(","+only+",", ","+c.name+",") {
			p.who = append(p.who, c)
		}
	}
	r, err := p.run(ctx)
	if err != nil {
		return err
	}
	return p.write(r)
}
