// Package burst is `bhctl bench burst`: how much memory a burst of messages takes, and how soon it is given back.
//
// A publisher sends so many messages that they hold the given bytes at once; the subscribers hold them (or leave them in
// their queues), then release all. What each process has resident is read from /proc: before, at the peak, and each second
// after. Nothing is asked of the bus: what the kernel says counts.
package burst

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/bhome-bus/bhome/cmd/internal/child"
	"github.com/bhome-bus/bhome/cmd/internal/procfs"
	"github.com/bhome-bus/bhome/cmd/internal/units"
)

// Launcher starts a child in the named role.
type Launcher func(role string, config any) (*child.Process, error)

// The promise: so soon after the burst memory is within so much of the idle level.
const (
	Within = 30 * time.Second
	above  = 0.2
)

// How the subscribers keep a burst.
const (
	Held   = "held"   // received, and not released
	Queued = "queued" // in their queues, unread
)

// Config says what to measure. Socket is of a running bus, Daemon its bhomed's pid.
type Config struct {
	Socket string
	Daemon int
	Bytes  uint64        // of payload in a burst
	Sizes  []uint64      // of a message: a burst for each, 512 at least
	How    []string      // Held, Queued: a burst for each
	Subs   int           // subscribers, all of which get all messages
	Settle time.Duration // before the idle level is taken
	Most   time.Duration // how long is waited for memory to come back
}

// Validate says what is wrong with c, if anything.
func (c Config) Validate() error {
	var errs []error
	for _, size := range c.Sizes {
		if size < smallestBlock || size > c.Bytes {
			errs = append(errs, fmt.Errorf("a message of %d bytes: must have %d (fewer need no memory) to as many as the burst", size, smallestBlock))
		}
	}
	for _, how := range c.How {
		if how != Held && how != Queued {
			errs = append(errs, fmt.Errorf("how %q: must be %s or %s", how, Held, Queued))
		}
	}
	if c.Subs < 1 || c.Subs > 1000 {
		errs = append(errs, fmt.Errorf("%d subscribers: must be 1 to 1000", c.Subs))
	}
	if c.Bytes > 1<<40 || c.Settle < 0 || c.Most < time.Second {
		errs = append(errs, fmt.Errorf("a burst of %d bytes, settling %v, waiting %v: at most 1 TiB, not negative, at least 1s", c.Bytes, c.Settle, c.Most))
	}
	return errors.Join(errs...)
}

// Row is one burst.
type Row struct {
	Size      uint64    `json:"size"`
	Count     int       `json:"count"`
	How       string    `json:"how"`
	Processes []Process `json:"processes"`
	Memfds    Levels    `json:"memfd_bytes"`    // of all processes, each memfd once
	Resident  Levels    `json:"resident_bytes"` // of all: memfds once, and what each has besides
	Curve     []int64   `json:"curve_bytes"`    // Resident each second after the burst
	BackNs    int64     `json:"back_ns"`        // until each process and all together were within a fifth of idle; 0: not in time
	Met       bool      `json:"met"`            // within Within
}

// Process is one of those that took part.
type Process struct {
	Name   string        `json:"name"`
	Idle   procfs.Memory `json:"idle"`
	Peak   procfs.Memory `json:"peak"`
	After  procfs.Memory `json:"after"`
	BackNs int64         `json:"back_ns"` // until its RSS was within a fifth of idle; 0: not in time
}

// Levels are one quantity at three times, in bytes.
type Levels struct {
	Idle  int64 `json:"idle"`
	Peak  int64 `json:"peak"`
	After int64 `json:"after"`
}

// Run measures a burst of each size, kept in each way, and prints a table for each.
func Run(ctx context.Context, cfg Config, launch Launcher, out io.Writer) ([]Row, error) {
	var rows []Row
	for _, size := range cfg.Sizes {
		for _, how := range cfg.How {
			row, err := one(ctx, cfg, size, how, launch)
			if err != nil {
				return rows, fmt.Errorf("burst of %s in messages of %s, %s: %w", units.HumanBytes(cfg.Bytes), units.HumanBytes(size), how, err)
			}
			rows = append(rows, row)
			if err := printRow(out, row); err != nil {
				return rows, err
			}
		}
	}
	return rows, nil
}

// Roles are the children of a measurement.
func Roles() map[string]child.Role {
	return map[string]child.Role{"burst-pub": publish, "burst-sub": subscribe}
}
