package actors

import "github.com/bhome-bus/bhome/shmio"

// The counters of the public segment, as docs/abi.md section 7 numbers them. They are kept by whoever changes what they
// count; anybody may read them from the mapping.
const (
	gaugeSessions = iota
	gaugeProcs
	gaugeBlocks
	gaugeBlockBytes
	gaugeSegmentBytes
	gaugeTopics
	gaugeRoutes
	gaugeRefusedAttaches
	gaugeRefusedGrants
	gaugeLateFrees
	gaugeRoutingEpoch
	gaugeFaults
)

// gauges is the public segment, for those who count in it. The zero value counts nowhere.
type gauges struct{ public *shmio.Segment }

func (g gauges) add(counter, n int) {
	if g.public != nil {
		g.public.Counter(counter).Add(uint64(n)) // pairs with whoever reads the mapping
	}
}

func (g gauges) set(counter, n int) {
	if g.public != nil {
		g.public.Counter(counter).Store(uint64(n)) // pairs with whoever reads the mapping
	}
}

// route counts a route that came (1) or went (-1).
func (g gauges) route(n int) {
	g.add(gaugeRoutes, n)
	g.add(gaugeRoutingEpoch, 1)
}
