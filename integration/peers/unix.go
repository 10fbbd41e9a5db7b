package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"net"
	"os"
	"path/filepath"
)

type unixSocket struct{ c config }

func newUnix(c config) transport { return &unixSocket{c} }

type unixConn struct {
	c   net.Conn
	r   *bufio.Reader
	in  []byte
	out []byte
}

func newUnixConn(c net.Conn, size int) *unixConn {
	return &unixConn{c: c, r: bufio.NewReaderSize(c, 64<<10), in: make([]byte, size), out: make([]byte, 4+size)}
}

func (k *unixConn) send(payload []byte) error {
	binary.NativeEndian.PutUint32(k.out, uint32(len(payload)))
	copy(k.out[4:], payload)
	_, err := k.c.Write(k.out[:4+len(payload)])
	return err
}

func (k *unixConn) recv(read func([]byte)) error {
	var n [4]byte
	if _, err := io.ReadFull(k.r, n[:]); err != nil {
		return err
	}
	b := k.in[:min(int(binary.NativeEndian.Uint32(n[:])), len(k.in))]
	if _, err := io.ReadFull(k.r, b); err != nil {
		return err
	}
	read(b)
	return nil
}

func (k *unixConn) close() error { return k.c.Close() }

// tempSocket is a path for a socket, and what removes it.
func tempSocket() (path string, remove func(), err error) {
	dir, err := os.MkdirTemp("", "bhome-peers-")
	return filepath.Join(dir, "s"), func() { os.RemoveAll(dir) }, err
}

func (u *unixSocket) serve(ctx context.Context, ready func(string), handle func([]byte) bool) error {
	path, remove, err := tempSocket()
	if err != nil {
		return err
	}
	defer remove()
	l, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	defer l.Close()
	ready(path)
	c, err := l.Accept()
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { c.Close() })()
	k := newUnixConn(c, u.c.Size)
	for {
		answer := false
		if err := k.recv(func(b []byte) { answer = handle(b) }); err != nil {
			return nil // the client is done
		}
		if answer {
			if err := k.send(k.in); err != nil {
				return nil
			}
		}
	}
}

func (u *unixSocket) dial(ctx context.Context, addr string) (conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", addr)
	if err != nil {
		return nil, err
	}
	return newUnixConn(c, u.c.Size), nil
}
