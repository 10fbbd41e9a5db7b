package demo

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/bhome-bus/bhome/cmd/internal/child"
	"github.com/bhome-bus/bhome/cmd/internal/latency"
	"github.com/bhome-bus/bhome/node"
)

type subConfig struct {
	base
	// Leak keeps one message of this publisher for ever; "": of none.
	Leak string
}

type subReady struct{ Session uint64 }

type subProgress struct {
	Received uint64
	Bytes    uint64
}

// Corruption is a file that isn't what is on the disk.
type Corruption struct {
	File, Publisher string
	Position        uint64
	Got, Disk       string // SHA-256, hexadecimal
}

// subReport is a subscriber's end: all that it was told to wait for has come, or didn't in time, and nothing waits.
type subReport struct {
	subProgress
	Tracks    []Track
	Corrupt   []Corruption // the first few
	Corrupted uint64
	LastNs    int64
	Latency   *latency.Recorder
	Dropped   uint64
}

// maxCorruptions is how many corruptions are told one by one.
const maxCorruptions = 5

// lateTimeout is how long a subscriber waits for what was sent before it calls it lost.
const lateTimeout = 5 * time.Second

// leakFrom is the size of the file that a leaking subscriber keeps: too large to travel inside a queue.
const leakFrom = 4 << 10

// due is the command "finish": how many files of which publisher's session must have come.
type due map[uint64]uint64

// subRole: subscribed; checks all that comes, until "finish" says what must have come; reports; leaves on "close".
func subRole(ctx context.Context, s *child.Session) (err error) {
	var cfg subConfig
	if err := s.Config(&cfg); err != nil {
		return err
	}
	t, err := openTree(cfg.Root)
	if err != nil {
		return err
	}
	n, err := cfg.attach(ctx)
	if err != nil {
		return err
	}
	c := &checker{t: t, leak: cfg.Leak, report: subReport{Latency: latency.New()}}
	defer func() {
		if c.leaked.Bytes() != nil { // Close would wait for it, as it should
			_ = leave(n, time.Millisecond)
			return
		}
		err = errors.Join(err, leave(n, leaveTimeout))
	}()
	if c.sub, err = n.Subscribe(ctx, filesTopic, node.Depth(256), node.Hold(16), node.OnFull(node.Block)); err != nil {
		return err
	}
	if err := s.Emit("subscribed", subReady{n.Session()}); err != nil {
		return err
	}
	if err := c.run(ctx, s); err != nil {
		return err
	}
	c.report.Dropped = c.sub.Stats().Dropped
	if err := s.Emit("report", c.report); err != nil {
		return err
	}
	return s.Await(ctx, "close", nil)
}

// checker is a subscriber's work.
type checker struct {
	t      *tree
	sub    *node.Subscription
	leak   string
	leaked node.Message
	report subReport
}

func (c *checker) run(ctx context.Context, s *child.Session) error {
	receiving, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	told := make(chan error, 1)
	var want due
	go func() {
		err := s.Await(receiving, "finish", &want)
		told <- err
		stop(errToldToFinish)
	}()
	for {
		m, err := c.sub.Receive(receiving)
		if receiving.Err() != nil && err != nil {
			break
		}
		if err == nil {
			err = c.take(m)
		}
		if err != nil {
			return err
		}
		if c.report.Received%512 == 0 {
			if err := s.Emit("progress", c.report.subProgress); err != nil {
				return err
			}
		}
	}
	if err := <-told; err != nil {
		return err
	}
	late, cancel := context.WithTimeout(ctx, lateTimeout)
	defer cancel()
	for !c.complete(want) {
		m, err := c.sub.Receive(late)
		if late.Err() != nil && err != nil {
			break // lost: the report shows it
		}
		if err == nil {
			err = c.take(m)
		}
		if err != nil {
			return err
		}
	}
	for { // and what wasn't due
		m, ok, err := c.sub.TryReceive()
		if err != nil || !ok {
			return err
		}
		if err := c.take(m); err != nil {
			return err
		}
	}
}

var errToldToFinish = errors.New("told to finish")

func (c *checker) complete(want due) bool {
	for session, next := range want {
		i := slices.IndexFunc(c.report.Tracks, func(t Track) bool { return t.Session == session })
		if next > 0 && (i < 0 || c.report.Tracks[i].Next < next) {
			return false
		}
	}
	return true
}

// take checks one message against the disk and gives it back.
func (c *checker) take(m node.Message) error {
	now := time.Now().UnixNano()
	h, content, err := splitFile(m.Bytes())
	if err != nil {
		return fmt.Errorf("a message of %s: %w", m.Publisher(), err)
	}
	got := sha256.Sum256(content)
	index, name := c.t.at(h.Position)
	c.track(m).add(h.Position, name == h.Name)
	disk, err := c.t.sum(index)
	if err != nil {
		return err
	}
	if got != disk {
		c.report.Corrupted++
		if len(c.report.Corrupt) < maxCorruptions {
			c.report.Corrupt = append(c.report.Corrupt, Corruption{File: h.Name, Publisher: m.Publisher(), Position: h.Position,
				Got: fmt.Sprintf("%x", got), Disk: fmt.Sprintf("%x", disk)})
		}
	}
	c.report.Received++
	c.report.Bytes += uint64(len(content))
	c.report.LastNs = now
	c.report.Latency.Record(now - h.SentNs)
	if c.leak == m.Publisher() && len(content) > leakFrom {
		c.leak, c.leaked = "", m
		return nil
	}
	return m.Release()
}

func (c *checker) track(m node.Message) *Track {
	for i := range c.report.Tracks {
		if c.report.Tracks[i].Session == m.PublisherSession() {
			return &c.report.Tracks[i]
		}
	}
	c.report.Tracks = append(c.report.Tracks, Track{Publisher: m.Publisher(), Session: m.PublisherSession()})
	return &c.report.Tracks[len(c.report.Tracks)-1]
}
