package node

import (
	"cmp"
	"maps"
	"slices"

	"github.com/bhome-bus/bhome/wire"
)

const (
	idleKeepBytes = 64 << 10 // what an idle class may keep
	shrinkGrants  = 4096     // a map that has had more entries is made anew when few are left
	blockGarbage  = 128      // bytes of heap that a block takes,
	grantGarbage  = 24       // and its place in the map
)

// trimIdle gives back what classes have kept since the last call without touching it, beyond a little that lies in the
// first segment: as that one always stays, it costs nothing, and one block kept in another would hold up all of it.
func (m *magazine) trimIdle() {
	for _, g := range m.allGroups() {
		for class := range g.classes {
			if g.known(class) != nil {
				m.trimClass(g, uint8(class))
			}
		}
	}
}

// shrink makes the map of what is granted anew when it was far larger: a map never gets smaller.
func (m *magazine) shrink() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.most <= shrinkGrants || len(m.grants) > m.most/8 {
		return
	}
	m.n.garbage.Let(grantGarbage * m.most)
	m.grants = maps.Collect(maps.All(m.grants))
	m.most = len(m.grants)
}

// trimClass is trimIdle for one class. The blocks are sorted without its lock.
func (m *magazine) trimClass(g *blockGroup, class uint8) {
	c := g.class(class)
	c.mu.Lock()
	low := c.low
	c.low = c.idle.len()
	if low == 0 {
		c.mu.Unlock()
		return
	}
	all := c.idle.all()
	c.mu.Unlock()
	cold, elsewhere := all[:low], !m.stays(all[len(all)-1])
	keep, floor := 0, 0
	if g == m.open {
		keep = int(idleKeepBytes / wire.BlockSize(class))
		if class == initBlockClass {
			floor = 1 // frames to the center need one even when no memory is left
		}
	}
	sorted := slices.Clone(cold) // those of the first segment, which was placed first, last
	slices.SortFunc(sorted, func(a, b *block) int { return cmp.Compare(b.grant.Place(), a.grant.Place()) })
	n := len(sorted)
	for n > 0 && len(sorted)-n < keep && m.stays(sorted[n-1]) {
		n--
	}
	n = min(n, len(sorted)-floor)
	if n == 0 && !elsewhere {
		return
	}
	c.mu.Lock()
	if all = c.idle.all(); len(all) < len(cold) || !slices.Equal(all[:len(cold)], cold) {
		c.mu.Unlock() // they aren't idle any more
		return
	}
	// What is kept is hot from now on, so that what lies elsewhere gets cold.
	c.idle.set(append(slices.Clone(all[len(cold):]), sorted[n:]...))
	c.low = c.idle.len()
	c.mu.Unlock()
	m.giveBack(sorted[:n]...)
}

// stays tells whether a block lies in a segment that is never dropped: the first.
func (m *magazine) stays(b *block) bool {
	segs := *m.n.mem.data.Load()
	if len(segs) == 0 {
		return false
	}
	first := segs[0]
	return b.grant.Place() >= first.Base() && uint64(b.grant.Place()-first.Base()) < first.Size()/16
}
