package admin

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"

	"github.com/varvel/varvel/internal/admin/peer"
)

// peerListener asks the kernel about each peer as soon as it is accepted, and
// bounds the connections of each user.
type peerListener struct {
	net.Listener
	log *slog.Logger

	mu   sync.Mutex
	open map[uint32]int // connections by uid
}

// peerConn is a connection with the process at its other end. Without a peer
// it is refused everything, with the reason.
type peerConn struct {
	net.Conn
	peer  *peer.Peer
	err   error
	close func() error
}

func (c *peerConn) Close() error { return c.close() }

// Accept returns the next connection, a *peerConn.
func (l *peerListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		pc := &peerConn{Conn: c}
		pc.peer, pc.err = peerOf(c)
		if l.enter(pc) {
			pc.close = sync.OnceValue(func() error { return l.leave(pc) })
			return pc, nil
		}
		l.log.Warn("admin connection refused, too many of one user", "uid", pc.peer.UID, "limit", maxConnections)
		if err := errors.Join(pc.peer.Close(), c.Close()); err != nil {
			l.log.Debug("admin connection not closed", "error", err)
		}
	}
}

func peerOf(c net.Conn) (*peer.Peer, error) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return nil, errors.New("the connection is not over a unix socket")
	}
	return peer.Of(u)
}

func (l *peerListener) enter(c *peerConn) bool {
	if c.peer == nil {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	uid := c.peer.UID
	if uid != 0 && l.open[uid] >= maxConnections {
		return false
	}
	l.open[uid]++
	return true
}

func (l *peerListener) leave(c *peerConn) error {
	err := c.Conn.Close()
	if c.peer == nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[c.peer.UID]--; l.open[c.peer.UID] == 0 {
		delete(l.open, c.peer.UID)
	}
	return errors.Join(err, c.peer.Close())
}

type connKey struct{}

// withConn makes the connection known to its requests.
func withConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

func connOf(ctx context.Context) (*peer.Peer, error) {
	c, ok := ctx.Value(connKey{}).(*peerConn)
	switch {
	case !ok:
		return nil, errors.New("the connection has no peer")
	case c.err != nil:
		return nil, c.err
	}
	return c.peer, nil
}
