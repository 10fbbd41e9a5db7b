package main

import (
	"context"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

type grpcStream struct{ c config }

func newGRPC(c config) transport { return &grpcStream{c} }

const (
	grpcService = "bhome.peers.Echo"
	grpcMethod  = "Stream"
)

var streamDesc = grpc.StreamDesc{StreamName: grpcMethod, ServerStreams: true, ClientStreams: true}

func (g *grpcStream) serve(ctx context.Context, ready func(string), handle func([]byte) bool) error {
	path, remove, err := tempSocket()
	if err != nil {
		return err
	}
	defer remove()
	l, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	desc := streamDesc
	desc.Handler = func(_ any, s grpc.ServerStream) error {
		var m wrapperspb.BytesValue
		for {
			if err := s.RecvMsg(&m); err != nil {
				return nil // the client is done
			}
			if handle(m.Value) {
				if err := s.SendMsg(&m); err != nil {
					return err
				}
			}
		}
	}
	srv := grpc.NewServer(grpc.MaxRecvMsgSize(16<<20), grpc.MaxSendMsgSize(16<<20))
	srv.RegisterService(&grpc.ServiceDesc{ServiceName: grpcService, HandlerType: (*any)(nil), Streams: []grpc.StreamDesc{desc}}, nil)
	defer context.AfterFunc(ctx, srv.Stop)()
	ready(path)
	return srv.Serve(l)
}

type grpcConn struct {
	cc     *grpc.ClientConn
	s      grpc.ClientStream
	cancel context.CancelFunc
	out    wrapperspb.BytesValue
	in     wrapperspb.BytesValue
}

func (g *grpcStream) dial(ctx context.Context, addr string) (conn, error) {
	cc, err := grpc.NewClient("unix:"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20), grpc.MaxCallSendMsgSize(16<<20)))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	s, err := cc.NewStream(ctx, &streamDesc, "/"+grpcService+"/"+grpcMethod)
	if err != nil {
		cancel()
		return nil, err
	}
	return &grpcConn{cc: cc, s: s, cancel: cancel}, nil
}

func (k *grpcConn) send(payload []byte) error {
	k.out.Value = payload
	return k.s.SendMsg(&k.out)
}

func (k *grpcConn) recv(read func([]byte)) error {
	if err := k.s.RecvMsg(&k.in); err != nil {
		return err
	}
	read(k.in.Value)
	return nil
}

func (k *grpcConn) close() error {
	k.cancel()
	return k.cc.Close()
}
