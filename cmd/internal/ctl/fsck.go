package ctl

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/bhome-bus/bhome/cmd/internal/exitcode"
	"github.com/bhome-bus/bhome/cmd/internal/listing"
)

// fsckTime is what the center may take for a check besides the --timeout: it looks several times where something is
// suspected, and waits for actors that don't answer.
const fsckTime = 20 * time.Second

func (a *app) fsckCmd() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "fsck", Short: "Check a running bus", Args: cobra.NoArgs,
		Long: `Check a running bus: whether what is granted and what is free add up, every block that is held has a living holder,
every route has both its ends, the words in the nodes' queues can be, the daemon's descriptors and mappings are accounted
for, and all that keep records know the same processes. Nothing is changed, and nobody is held up.

Exit status: 0 the bus is clean, 5 it has faults, 3 no daemon, 1 it could not be asked.`,
		RunE: runE(func(ctx context.Context, _ []string) error { return a.fsck(ctx, asJSON) }),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "as one JSON document")
	return cmd
}

// fsckDoc is the JSON document.
type fsckDoc struct {
	Faults  []fsckFault       `json:"faults"`
	Looks   int               `json:"looks"`
	Checked map[string]uint64 `json:"checked"`
}

type fsckFault struct {
	Kind  string `json:"kind"`
	Where string `json:"where"`
	What  string `json:"what"`
	Do    string `json:"do"`
}

func (a *app) fsck(ctx context.Context, asJSON bool) (err error) {
	n, err := a.inspect(ctx)
	if err != nil {
		return err
	}
	defer func() { err = detach(n, err) }()
	bound, cancel := context.WithTimeout(ctx, time.Duration(a.timeout)+fsckTime)
	defer cancel()
	found, err := n.Check(bound)
	if err != nil {
		return err
	}
	doc := fsckDoc{Faults: []fsckFault{}, Looks: found.Looks, Checked: found.Checked}
	for _, f := range found.Faults {
		doc.Faults = append(doc.Faults, fsckFault{f.GetKind(), f.GetWhere(), f.GetWhat(), f.GetDo()})
	}
	if asJSON {
		err = writeJSON(a.Stdout, doc)
	} else {
		err = printFsck(a.Stdout, doc)
	}
	if err == nil && len(doc.Faults) > 0 {
		err = exitcode.With(exitcode.Faults, fmt.Errorf("the bus has %s", faultCount(len(doc.Faults))))
	}
	return err
}

func faultCount(n int) string {
	if n == 1 {
		return "1 fault"
	}
	return fmt.Sprintf("%d faults", n)
}

// printFsck is for people: what, where, what to do, then what was looked at.
func printFsck(w io.Writer, doc fsckDoc) error {
	var b strings.Builder
	for _, f := range doc.Faults {
		fmt.Fprintf(&b, "FAULT %s: %s\n  where: %s\n  do:    %s\n", listing.Clean(f.Kind), listing.Clean(f.What), listing.Clean(f.Where), listing.Clean(f.Do))
	}
	if len(doc.Faults) == 0 {
		b.WriteString("clean: ")
	} else {
		fmt.Fprintf(&b, "%s; ", faultCount(len(doc.Faults)))
	}
	b.WriteString("checked ")
	for i, what := range checkedOrder(doc.Checked) {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%d %s", doc.Checked[what], what)
	}
	fmt.Fprintf(&b, " (looks: %d)\n", doc.Looks)
	_, err := io.WriteString(w, b.String())
	return err
}

// checkedOrder lists what was looked at, alike each time.
func checkedOrder(checked map[string]uint64) []string {
	order := make([]string, 0, len(checked))
	for what := range checked {
		order = append(order, what)
	}
	slices.Sort(order)
	return order
}
