package main

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

type natsBus struct{ c config }

func newNATS(c config) transport { return &natsBus{c} }

// natsServer is the broker, with NATS's own defaults but for the largest payload.
func natsServer(ctx context.Context, _ config, ready func(string)) error {
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, MaxPayload: 8 << 20, MaxPending: 256 << 20, NoLog: true, NoSigs: true})
	if err != nil {
		return err
	}
	go s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		return errors.New("the NATS server isn't ready")
	}
	ready(s.ClientURL())
	<-ctx.Done()
	s.Shutdown()
	return nil
}

type natsConn struct {
	nc  *nats.Conn
	sub *nats.Subscription
	to  string
	n   int
}

func natsDial(addr, in, out string) (*natsConn, error) {
	nc, err := nats.Connect(addr)
	if err != nil {
		return nil, err
	}
	k := &natsConn{nc: nc, to: out}
	if k.sub, err = nc.SubscribeSync(in); err == nil {
		if err = k.sub.SetPendingLimits(-1, -1); err == nil {
			err = nc.Flush()
		}
	}
	return k, err
}

func (b *natsBus) serve(ctx context.Context, ready func(string), handle func([]byte) bool) error {
	k, err := natsDial(b.c.Addr, "there", "back")
	if err != nil {
		return err
	}
	defer k.close()
	ready(b.c.Addr)
	for {
		m, err := k.sub.NextMsgWithContext(ctx)
		if err != nil {
			return nil // told to end
		}
		if handle(m.Data) {
			if err := k.nc.Publish(k.to, m.Data); err != nil {
				return err
			}
		}
	}
}

func (b *natsBus) dial(_ context.Context, addr string) (conn, error) {
	return natsDial(addr, "back", "there")
}

func (k *natsConn) send(payload []byte) error {
	// It is lossy when the server's buffers fill up: as few as may wait elsewhere are let out unconfirmed here.
	if k.n += len(payload); k.n > 4<<20 {
		k.n = 0
		if err := k.nc.FlushTimeout(time.Minute); err != nil {
			return err
		}
	}
	return k.nc.Publish(k.to, payload)
}

func (k *natsConn) recv(read func([]byte)) error {
	m, err := k.sub.NextMsg(time.Minute)
	if err != nil {
		return err
	}
	read(m.Data)
	return nil
}

func (k *natsConn) close() error {
	k.nc.Close()
	return nil
}
