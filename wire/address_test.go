package wire

import (
	"errors"
	"testing"
)

func TestAddresses(t *testing.T) {
	for _, c := range []struct {
		name      string
		got, want uint64
	}{
		{"default sender", AddrDefaultSender, 99}, {"center", AddrCenter, 100}, {"bus", AddrBus, 101}, {"reserved", AddressesPerSession, 10},
		{"node", Session(1000).Address(SocketNode), 1000}, {"server", Session(1000).Address(SocketServer), 1001},
		{"subscriber", Session(1000).Address(SocketSub), 1002}, {"client", Session(1000).Address(SocketClient), 1003},
		{"sockets", SocketCount, 4}, {"ABI version", uint64(ABIVersion), 0x10000}, {"largest message", MaxMessage, 4294967295},
		{"publish", uint64(KindPublish), 0}, {"request", uint64(KindRequest), 1}, {"reply", uint64(KindReply), 2},
		{"error reply", uint64(KindErrorReply), 3}, {"cancel", uint64(KindCancel), 4}, {"control", uint64(KindControl), 5},
	} {
		if c.got != c.want {
			t.Errorf("%s: %d, want %d", c.name, c.got, c.want)
		}
	}
}

func TestSessionValidate(t *testing.T) {
	const last = 1<<60 - 10 // its ten addresses end with the 60 bits
	for _, s := range []Session{102, 1000, last - 1} {
		if err := s.Validate(); err != nil {
			t.Errorf("%d: %v", s, err)
		}
		if s.Address(9) >= 1<<60 {
			t.Errorf("%d: its last address doesn't fit", s)
		}
	}
	for _, s := range []Session{0, 1, 92, 99, 100, 101, last + 1, 1 << 60, 1<<64 - 1} {
		if err := s.Validate(); !errors.Is(err, ErrRange) {
			t.Errorf("%d: %v, want ErrRange", s, err)
		}
	}
}
