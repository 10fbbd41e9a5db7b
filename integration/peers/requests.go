package main

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/bhome-bus/bhome/node"
	"github.com/bhome-bus/bhome/shmio"
)

// askers is how many goroutines ask at once for the second figure.
const askers = 16

// asker is a conn for requests: send has no meaning, ask is there and back, and may be called by many at once.
type asker interface {
	ask(payload []byte, read func([]byte)) error
	close() error
}

// service is one end of requests and their replies.
type service interface {
	serve(ctx context.Context, ready func(addr string), handle func([]byte) bool) error
	connect(ctx context.Context, addr string) (asker, error)
}

// measureRequests takes the client's figures: one request after another, then of many goroutines.
func measureRequests(ctx context.Context, c config, s service) (r result, err error) {
	k, err := s.connect(ctx, c.Addr)
	if err != nil {
		return r, err
	}
	defer k.close()
	payload := make([]byte, c.Size)
	each := time.Duration(c.EachNs)
	if r, err = roundTrips(each, func() error { return k.ask(payload, func(b []byte) { touch(b) }) }); err != nil {
		return r, err
	}
	var wg sync.WaitGroup
	var counts [askers]int
	var errs [askers]error
	begin := time.Now()
	for i := range askers {
		wg.Go(func() {
			for time.Since(begin) < each && errs[i] == nil {
				errs[i] = k.ask(payload, func(b []byte) { touch(b) })
				counts[i]++
			}
		})
	}
	wg.Wait()
	total := 0
	for _, n := range counts {
		total += n
	}
	r.Rate = float64(total) / time.Since(begin).Seconds()
	return r, errors.Join(errs[:]...)
}

const echoService = "echo"

// bhomeService answers by the library's Serve.
type bhomeService struct{ c config }

func newBhomeService(c config) service { return &bhomeService{c} }

func (b *bhomeService) attach(ctx context.Context, addr, name string) (*node.Node, error) {
	wait, err := shmio.ParseWaitStrategy(b.c.Wait)
	if err != nil {
		return nil, err
	}
	return node.Attach(ctx, node.Config{Name: name, Socket: addr, Wait: wait})
}

func (b *bhomeService) serve(ctx context.Context, ready func(string), handle func([]byte) bool) error {
	n, err := b.attach(ctx, b.c.Addr, "server")
	if err != nil {
		return err
	}
	defer closeNode(n)
	if _, err := n.Serve(ctx, echoService, func(_ context.Context, req *node.Request) ([]byte, error) {
		handle(req.Bytes())
		return req.Bytes(), nil
	}); err != nil {
		return err
	}
	ready(b.c.Addr)
	<-ctx.Done()
	return nil
}

type bhomeAsker struct {
	ctx context.Context
	n   *node.Node
}

func (b *bhomeService) connect(ctx context.Context, addr string) (asker, error) {
	n, err := b.attach(ctx, addr, "client")
	if err != nil {
		return nil, err
	}
	return &bhomeAsker{ctx, n}, n.WaitForService(ctx, echoService)
}

func (k *bhomeAsker) ask(payload []byte, read func([]byte)) error {
	r, err := k.n.Request(k.ctx, echoService, payload)
	if err != nil {
		return err
	}
	read(r.Bytes())
	return r.Release()
}

func (k *bhomeAsker) close() error { return closeNode(k.n) }

// grpcUnary answers unary calls.
type grpcUnary struct{ c config }

func newGRPCUnary(c config) service { return &grpcUnary{c} }

const grpcUnaryMethod = "Unary"

func (g *grpcUnary) serve(ctx context.Context, ready func(string), handle func([]byte) bool) error {
	path, remove, err := tempSocket()
	if err != nil {
		return err
	}
	defer remove()
	l, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	srv := grpc.NewServer()
	srv.RegisterService(&grpc.ServiceDesc{ServiceName: grpcService, HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{{
		MethodName: grpcUnaryMethod,
		Handler: func(_ any, _ context.Context, dec func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			m := new(wrapperspb.BytesValue)
			if err := dec(m); err != nil {
				return nil, err
			}
			handle(m.Value)
			return m, nil
		},
	}}}, nil)
	defer context.AfterFunc(ctx, srv.Stop)()
	ready(path)
	return srv.Serve(l)
}

type grpcAsker struct {
	ctx context.Context
	cc  *grpc.ClientConn
}

func (g *grpcUnary) connect(ctx context.Context, addr string) (asker, error) {
	cc, err := grpc.NewClient("unix:"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	return &grpcAsker{ctx, cc}, err
}

func (k *grpcAsker) ask(payload []byte, read func([]byte)) error {
	var in wrapperspb.BytesValue
	if err := k.cc.Invoke(k.ctx, "/"+grpcService+"/"+grpcUnaryMethod, &wrapperspb.BytesValue{Value: payload}, &in); err != nil {
		return err
	}
	read(in.Value)
	return nil
}

func (k *grpcAsker) close() error { return k.cc.Close() }

// natsService answers NATS requests.
type natsService struct{ c config }

func newNATSService(c config) service { return &natsService{c} }

func (b *natsService) serve(ctx context.Context, ready func(string), handle func([]byte) bool) error {
	nc, err := nats.Connect(b.c.Addr)
	if err != nil {
		return err
	}
	defer nc.Close()
	if _, err := nc.Subscribe(echoService, func(m *nats.Msg) {
		handle(m.Data)
		_ = m.Respond(m.Data) // whoever asked then waits in vain, and says so
	}); err != nil {
		return err
	}
	if err := nc.Flush(); err != nil {
		return err
	}
	ready(b.c.Addr)
	<-ctx.Done()
	return nil
}

type natsAsker struct{ nc *nats.Conn }

func (b *natsService) connect(_ context.Context, addr string) (asker, error) {
	nc, err := nats.Connect(addr)
	return &natsAsker{nc}, err
}

func (k *natsAsker) ask(payload []byte, read func([]byte)) error {
	m, err := k.nc.Request(echoService, payload, time.Minute)
	if err != nil {
		return err
	}
	read(m.Data)
	return nil
}

func (k *natsAsker) close() error {
	k.nc.Close()
	return nil
}
