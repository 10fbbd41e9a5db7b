// Package actors is the center: each of its roles is a protoactor-go actor, to be spawned by bhomed or embedded in
// somebody else's actor system.
//
//	Center        supervises the rest, admits sessions, the timer, queries, shutdown
//	ProcRecords   process name ↔ index, and who has which name
//	MsgRecords    the only allocator of every node's data segments
//	Session       one per node: its link, its state; the only writer of the center's half
//	Registry      services: topic → providers, and the routes of their clients
//	PubSub        subscriptions and the routes of their publishers
//
// It owns the truth about the bus. Actors share nothing: no lock, no package variable, no map that two of them hold; what
// is sent is given away. What blocks (sockets, closing descriptors) is done in goroutines of the connections. It must
// never trust a word of a node, block on one, or grow without bound because of one. It creates no actor system and sets
// nothing global.
package actors
