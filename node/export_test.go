package node

import "time"

// SetNewsTimeout is for a node that receives nothing yet.
func SetNewsTimeout(n *Node, d time.Duration) { n.newsTimeout = d }

// ForgetSegments has n not know the data segments of the process called name, until tell is called: as when the center died
// before it could pass them on.
func ForgetSegments(n *Node, name string) (tell func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.peers {
		if p.name != name {
			continue
		}
		segs := p.space.Segments()
		for _, s := range segs {
			p.space.Remove(s.Base(), s.Generation())
		}
		return func() {
			for _, s := range segs {
				if err := p.space.Add(s); err != nil {
					panic(err)
				}
			}
			n.link.Load().progress.Fire()
		}
	}
	panic("no peer " + name)
}
