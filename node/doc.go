// Package node is the client library of bhome: what a process uses to publish, subscribe, serve and request.
//
// It owns this process's segments (its words, its message blocks), its end of the link to the center and of every route,
// and the read-only mappings of its peers. It writes nothing else: whatever it reads in a peer's memory is loaded once,
// checked, then used. It never imports the actor package, starts a process or installs a signal handler, and nothing in
// it is global: two Nodes in one process are two nodes of the bus.
//
// # Ownership
//
// A [Loan] is the caller's from [Publisher.Loan] until [Publisher.Send] or [Loan.Release]. A [Message] and a [Reply] are the
// caller's until Release; their bytes are the sender's memory, read-only (a write faults), valid until Release. A sender
// that is hostile can change bytes while they are read: [Message.Copy] gives bytes that can't change.
package node
