package main

import (
	"context"
	"encoding/binary"
)

// contestant is one way to exchange messages, and how its receivers wait.
type contestant struct {
	name   string // as in tables
	wait   string // bhome: adaptive, park, spin
	make   func(c config) transport
	serves func(c config) service                                             // requests and replies instead of messages
	broker func(ctx context.Context, c config, ready func(addr string)) error // a third process; nil: none
	extern string                                                             // a program of install.sh's instead of make
	daemon bool                                                               // it is its own broker, too
	spins  bool                                                               // a peer whose receivers never sleep
	what   string                                                             // for the page
}

// config is what both processes are told.
type config struct {
	Name     string
	Wait     string
	Size     int
	EachNs   int64
	Addr     string // of the server, or of the broker
	Bhomed   string
	External string
}

// transport is one end of a pair.
type transport interface {
	// serve answers each message for which handle says so with the same bytes, until ctx ends. ready says where.
	serve(ctx context.Context, ready func(addr string), handle func([]byte) bool) error
	dial(ctx context.Context, addr string) (conn, error)
}

// conn is the client's end.
type conn interface {
	send(payload []byte) error
	recv(read func([]byte)) error // one answer
	close() error
}

// The first byte of a payload says what the server does with it.
const (
	kindEcho = 0 // answer
	kindSink = 2 // count
	kindLast = 1 // answer: all before it have been counted
)

// touch reads one word of every cache line.
func touch(b []byte) (sum uint64) {
	for ; len(b) >= 64; b = b[64:] {
		sum += binary.NativeEndian.Uint64(b)
	}
	if len(b) >= 8 {
		sum += binary.NativeEndian.Uint64(b)
	}
	return sum
}

// contestants are all that are compared, the first being what the others are compared to.
func contestants() []contestant {
	return []contestant{
		{name: "bhome spin", wait: "spin", make: newBhome, broker: bhomed, what: "pub-sub each way, receivers spin"},
		{name: "bhome adaptive", wait: "adaptive", make: newBhome, broker: bhomed, what: "the same, the default wait strategy"},
		{name: "bhome batch", wait: "adaptive", make: newBhome, broker: bhomed, what: "the same, short messages one way published and received in batches of up to 64"},
		{name: "bhome park", wait: "park", make: newBhome, broker: bhomed, what: "the same, receivers sleep at once"},
		{name: "unix", make: newUnix, what: "a Unix stream socket, a length before each message (Go)"},
		{name: "grpc", make: newGRPC, what: "a bidirectional gRPC stream over a Unix socket (Go)"},
		{name: "nats", make: newNATS, broker: natsServer, what: "core NATS through a server on loopback (Go)"},
		{name: "zeromq", extern: "zeromq", what: "PAIR sockets over ipc:// (libzmq, C++)"},
		{name: "iceoryx spin", extern: "iceoryx", daemon: true, spins: true, what: "iceoryx 2 untyped pub-sub through RouDi, takers spin (C++)"},
		{name: "iceoryx wait", extern: "iceoryx-wait", daemon: true, what: "the same, takers wait in a WaitSet (C++)"},
		{name: "bhome request spin", wait: "spin", serves: newBhomeService, broker: bhomed, what: "requests to a service, all spin"},
		{name: "bhome request", wait: "adaptive", serves: newBhomeService, broker: bhomed, what: "the same, the default wait strategy"},
		{name: "bhome request park", wait: "park", serves: newBhomeService, broker: bhomed, what: "the same, all sleep at once"},
		{name: "grpc unary", serves: newGRPCUnary, what: "unary gRPC calls over a Unix socket (Go)"},
		{name: "nats request", serves: newNATSService, broker: natsServer, what: "NATS requests through a server on loopback (Go)"},
		{name: "boost", extern: "boost", what: "boost::interprocess message_queue, blocking (C++)"},
	}
}
