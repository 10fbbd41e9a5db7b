package node

// Settle has n do twice what its housekeeper does at each beat: what lay idle in between is let go.
func Settle(n *Node) {
	for range 2 {
		n.reclaimRoutes()
		n.mag.trimIdle()
		n.trimSlots()
		n.giveSurplusBack()
		n.mag.shrink()
	}
}

// Left is what n keeps of messages: blocks it has, blocks outside its first segment, and how many the map of them was made for.
func Left(n *Node) (blocks, elsewhere, most int) {
	n.mag.mu.Lock()
	defer n.mag.mu.Unlock()
	for _, b := range n.mag.grants {
		if !n.mag.stays(b) {
			elsewhere++
		}
	}
	return len(n.mag.grants), elsewhere, n.mag.most
}

// Slots is how many messages s has places for.
func Slots(s *Subscription) int {
	s.slots.mu.Lock()
	defer s.slots.mu.Unlock()
	return len(s.slots.all) + s.slots.slots
}
