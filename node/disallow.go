package node

import "context"

// What happens to what this process publishes, subscribes to and serves when a center that came later doesn't allow it any
// more: its routes have been closed, and whoever goes on using it is told why.

// disallow has the topic's sends fail.
func (tp *topicPub) disallow(why error) {
	tp.n.log.Error("publishing is not allowed any more", "topic", tp.topic, "error", why)
	tp.disallowed.Store(&why)
}

// disallow ends the subscription; what was received stays the caller's.
func (s *Subscription) disallow(why error) {
	s.n.log.Error("a subscription is not allowed any more", "pattern", s.Pattern(), "error", why)
	s.disallowed.Store(&why)
	s.shut()
}

// disallow ends the service: its handlers' contexts end.
func (s *Service) disallow(why error) {
	s.n.log.Error("serving is not allowed any more", "topic", s.topic, "error", why)
	s.n.background(func(context.Context) { s.shut() })
}
