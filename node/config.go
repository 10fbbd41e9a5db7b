package node

import (
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/bhome-bus/bhome/shmio"
)

// DefaultBus is the bus that is meant when none is named.
const DefaultBus = "default"

// DefaultMagazine is how many idle blocks a node keeps per size class (and never more than 64 MiB of one class): as many as
// a deep queue lets out and gives back in one go. What stays untouched for some seconds goes back to the center.
const DefaultMagazine = 16384

// NoMagazine, as Config.Magazine, makes every loan the full round trip AllocRequest0 → AllocReply0 → Free.
const NoMagazine = -1

// WaitStrategy says how a receiver waits when there is nothing.
type WaitStrategy = shmio.WaitStrategy

// The wait strategies. Adaptive, the default, spins for as long as that lately paid (120 µs at most), then parks. Park
// parks at once: the least CPU. BusySpin never parks, and needs a core of its own.
const (
	Adaptive = shmio.Adaptive
	Park     = shmio.Park
	BusySpin = shmio.BusySpin
)

// Config says how a process attaches. The zero value of each field is its default; only Name is required, unless
// Inspect or Pooled is set.
type Config struct {
	// Name is the process's id on the bus, unique among the living: 1 to 255 bytes of UTF-8.
	Name string
	// Bus is the bus's name; "" is DefaultBus.
	Bus string
	// Socket is the path of the center's socket; "" looks where everybody does (see shmio.SocketCandidates).
	Socket string
	// Wait is the default wait strategy of what this node receives on: Adaptive, Park or BusySpin.
	Wait WaitStrategy
	// Magazine is how many idle blocks are kept per size class; 0 is DefaultMagazine, NoMagazine keeps none.
	Magazine int
	// Takeover displaces a living process of the same uid that has this name.
	Takeover bool
	// Inspect attaches without a place in the proc table: queries only, no loans.
	Inspect bool
	// Pooled takes the first free name of the pool "Name#1", "Name#2"…: for shells and scripts.
	Pooled bool
	// PublicInfo is shown to others with the process's record; at most 4 KiB.
	PublicInfo []byte
	// Logger gets what the library has to say; nil: nothing.
	Logger hclog.Logger
	// Debug records where each loan and message was taken, to tell who forgot or misused one. It costs about 1 µs each.
	Debug bool
	// AttachTimeout bounds the handshake; 0 is 5 s. The context of Attach bounds it too.
	AttachTimeout time.Duration
	// NoReconnect ends the node when it loses the center. By default established routes go on and the node attaches
	// again by itself.
	NoReconnect bool
}

const (
	maxPublicInfo        = 4 << 10
	defaultAttachTimeout = 5 * time.Second
)

func (c Config) withDefaults() Config {
	if c.Bus == "" {
		c.Bus = DefaultBus
	}
	if c.Magazine == 0 {
		c.Magazine = DefaultMagazine
	}
	if c.AttachTimeout == 0 {
		c.AttachTimeout = defaultAttachTimeout
	}
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	if c.Name == "" && (c.Inspect || c.Pooled) {
		c.Name = "node"
	}
	return c
}

// Validate says what is wrong with c, if anything.
func (c Config) Validate() error {
	c = c.withDefaults()
	var errs []error
	if n := len(c.Name); n == 0 || n > 255 {
		errs = append(errs, fmt.Errorf("the Name has %d bytes, must be 1 to 255", n))
	}
	if c.Magazine < NoMagazine || c.Magazine > 1<<20 {
		errs = append(errs, fmt.Errorf("a Magazine of %d must be NoMagazine or 1 to %d blocks", c.Magazine, 1<<20))
	}
	if len(c.PublicInfo) > maxPublicInfo {
		errs = append(errs, fmt.Errorf("the PublicInfo has %d bytes, at most %d", len(c.PublicInfo), maxPublicInfo))
	}
	if c.AttachTimeout < 0 {
		errs = append(errs, fmt.Errorf("the AttachTimeout %v is negative", c.AttachTimeout))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("node config: %w", err)
	}
	return nil
}
