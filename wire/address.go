package wire

import "fmt"

// Well-known addresses.
const (
	AddrDefaultSender uint64 = 99
	AddrCenter        uint64 = 100 // commands, registration, heartbeats, queries
	AddrBus           uint64 = 101 // subscriptions and routes
)

// AddressesPerSession is how many addresses a session reserves from its base id on.
const AddressesPerSession = 10

// Socket is which of a session's queues an address means.
type Socket uint8

// The sockets of a session.
const (
	SocketNode   Socket = 0
	SocketServer Socket = 1
	SocketSub    Socket = 2
	SocketClient Socket = 3
	SocketCount         = 4
)

// Session is the base id of a node's session.
type Session uint64

// Address is the session's address for a socket.
func (s Session) Address(sock Socket) uint64 { return uint64(s) + uint64(sock) }

// Validate refuses bases whose ten addresses meet the well-known ones or don't fit 60 bits.
func (s Session) Validate() error {
	if s <= Session(AddrBus) || s > maxSession-AddressesPerSession {
		return fmt.Errorf("session %d: %w: a base id is above %d and fits 60 bits", uint64(s), ErrRange, AddrBus)
	}
	return nil
}
