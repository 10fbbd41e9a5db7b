// Package bench measures the bus across real processes: publishers and subscribers, or clients and a service, each a
// process of its own, with every message's number checked.
//
// It starts processes by package child and talks to the bus by package node alone.
package bench

import (
	"context"
	"fmt"
	"time"

	"github.com/bhome-bus/bhome/cmd/internal/child"
	"github.com/bhome-bus/bhome/cmd/internal/latency"
	"github.com/bhome-bus/bhome/node"
	"github.com/bhome-bus/bhome/shmio"
)

// Config says what is measured. It goes to every child as it is.
type Config struct {
	Bus, Socket string
	Topic       string
	Size        int // payload bytes, at least MinSize
	Count       int // messages of each publisher, or requests of all clients together
	Pubs, Subs  int // for requests: Pubs clients of one service
	Batch       int // messages a PublishBatch, and at most a ReceiveBatch; 0: 64 for messages up to 256 bytes, else 1
	Depth       int // of the subscriptions
	Concurrency int // requests under way per client
	Rate        int // messages/s of each publisher; 0: as fast as it goes
	Wait        shmio.WaitStrategy
	Policy      node.Policy
	Timeout     time.Duration // of the whole run
}

// MinSize is the smallest payload: the number and the time of sending travel in it.
const MinSize = 16

// batchBelow is up to which size batches are the default, and defaultBatch how many messages they have.
const (
	batchBelow   = 256
	defaultBatch = 64
)

// Normalize fills in defaults and says what is wrong.
func (c *Config) Normalize() error {
	if c.Batch == 0 {
		c.Batch = 1
		if c.Size <= batchBelow && c.Rate == 0 {
			c.Batch = defaultBatch
		}
	}
	switch {
	case c.Size < MinSize:
		return fmt.Errorf("size %d: at least %d bytes, which carry the message's number and time", c.Size, MinSize)
	case c.Count < 1:
		return fmt.Errorf("count %d: at least 1", c.Count)
	case c.Pubs < 1 || c.Pubs > 4096 || c.Subs < 1 || c.Subs > 4096:
		return fmt.Errorf("%d publishers or clients, %d subscribers: 1 to 4096 each", c.Pubs, c.Subs)
	case c.Batch < 1 || c.Batch > 4096:
		return fmt.Errorf("batch %d: 1 to 4096", c.Batch)
	case c.Concurrency < 1 || c.Concurrency > 1024:
		return fmt.Errorf("concurrency %d: 1 to 1024", c.Concurrency)
	case c.Depth < 1 || c.Depth > 65536:
		return fmt.Errorf("depth %d: 1 to 65536", c.Depth)
	case c.Rate < 0:
		return fmt.Errorf("rate %d is negative", c.Rate)
	}
	return nil
}

// Result is what a run measured.
type Result struct {
	Bench       string  `json:"bench"` // pubsub or request
	Size        int     `json:"size"`
	Count       int     `json:"count"`
	Pubs        int     `json:"pubs"`
	Subs        int     `json:"subs"`
	Batch       int     `json:"batch,omitempty"`
	Concurrency int     `json:"concurrency,omitempty"`
	Wait        string  `json:"wait"`
	Seconds     float64 `json:"seconds"`
	// MsgsPerSec counts published messages as the slowest subscriber saw them, or requests answered.
	MsgsPerSec  float64 `json:"msgs_per_sec"`
	BytesPerSec float64 `json:"bytes_per_sec"`
	// Percentiles are ns from the call that sends to the receipt, queueing included; of requests, there and back.
	Percentiles latency.Percentiles `json:"percentiles_ns"`
	Samples     int64               `json:"samples"` // how many messages were timed
	Sent        uint64              `json:"sent"`
	Received    uint64              `json:"received"` // by all subscribers together
	Lost        uint64              `json:"lost"`     // of sent × subscribers
	Disordered  uint64              `json:"disordered"`
}

// attach joins the bus as one of the bench's processes.
func (c Config) attach(ctx context.Context, name string) (*node.Node, error) {
	return node.Attach(ctx, node.Config{Name: name, Pooled: true, Bus: c.Bus, Socket: c.Socket, Wait: c.Wait, AttachTimeout: 30 * time.Second})
}

// Roles are what this package's children do, by the name of their hidden command.
func Roles() map[string]child.Role {
	return map[string]child.Role{"bench-pub": pubRole, "bench-sub": subRole, "bench-serve": serveRole, "bench-client": clientRole}
}

// leave closes n; what it could not send is an error, for what was not sent was not measured.
func leave(n *node.Node) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return n.Close(ctx)
}
