// Package oneconn serves HTTP/1.1 on one connection that somebody else has
// accepted, with net/http's own server and strict limits.
package oneconn

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// The limits of a connection from a workload.
const (
	maxHeader     = 64 << 10 // bytes of request line and header
	headerTimeout = 30 * time.Second
	idleTimeout   = 2 * time.Minute
)

// Serve answers the requests on c with h until the peer closes, a limit is
// passed, or ctx ends; then it closes c and returns. Handlers have returned
// before Serve does. The requests' contexts descend from ctx.
func Serve(ctx context.Context, c net.Conn, h http.Handler, log *slog.Logger) {
	l := &listener{conn: &closer{Conn: c, closed: make(chan struct{})}}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	srv := &http.Server{
		Handler:           h,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		// net/http adds 4 KiB of its own to this limit.
		MaxHeaderBytes:               maxHeader - 4<<10,
		Protocols:                    &protocols,
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() { _ = c.Close() }) // handlers end with their context
	defer stop()
	_ = srv.Serve(l) // always net.ErrClosed, when the connection is done
}

// listener gives its connection once, then waits until it is closed.
type listener struct {
	conn *closer
	once sync.Once
}

func (l *listener) Accept() (net.Conn, error) {
	first := false
	l.once.Do(func() { first = true })
	if first {
		return l.conn, nil
	}
	<-l.conn.closed
	return nil, net.ErrClosed
}

func (l *listener) Close() error   { return nil }
func (l *listener) Addr() net.Addr { return l.conn.LocalAddr() }

// closer tells when net/http is done with the connection, which is after the
// last handler has returned.
type closer struct {
	net.Conn
	once   sync.Once
	closed chan struct{}
}

func (c *closer) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { close(c.closed) })
	if errors.Is(err, net.ErrClosed) {
		return nil // ctx ended first
	}
	return err
}

// CloseWrite lets net/http end the stream before it closes, so that a client
// that is still sending reads the reply to a request that was too long.
func (c *closer) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
