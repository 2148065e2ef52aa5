package world

import (
	"context"
	"io"
	"net"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// Unlisted is a host that takes whatever comes: it accepts every connection,
// reads every datagram, and writes down each byte.
type Unlisted struct{ Log *Log }

// idle is how long a connection may say nothing before it is closed.
const idle = 10 * time.Second

// ServeTCP accepts connections until the context ends. Each gets "reached" back.
func (u *Unlisted) ServeTCP(ctx context.Context, l net.Listener) error {
	defer context.AfterFunc(ctx, func() { l.Close() })()
	group := new(errgroup.Group)
	for {
		conn, err := l.Accept()
		if err != nil {
			group.Wait()
			return unlessDone(ctx, err)
		}
		u.Log.Append(Entry{Event: "accept", Peer: conn.RemoteAddr().String(), Type: "tcp"})
		group.Go(func() error {
			u.take(ctx, conn)
			return nil
		})
	}
}

func (u *Unlisted) take(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	buf := make([]byte, 4096)
	for {
		conn.SetDeadline(time.Now().Add(idle))
		n, err := conn.Read(buf)
		if n > 0 {
			u.Log.Append(Entry{Event: "bytes", Peer: conn.RemoteAddr().String(), Type: "tcp", Data: printable(buf[:n])})
			io.WriteString(conn, "reached\n")
		}
		if err != nil {
			return
		}
	}
}

// ServeUDP reads datagrams until the context ends. Each gets "reached" back.
func (u *Unlisted) ServeUDP(ctx context.Context, conn net.PacketConn) error {
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	buf := make([]byte, 64<<10)
	for {
		n, peer, err := conn.ReadFrom(buf)
		if err != nil {
			return unlessDone(ctx, err)
		}
		u.Log.Append(Entry{Event: "bytes", Peer: peer.String(), Type: "udp", Data: printable(buf[:n])})
		conn.WriteTo([]byte("reached\n"), peer)
	}
}

// printable makes received bytes harmless for a log that people read.
func printable(b []byte) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' || r == 0x7f {
			return '.'
		}
		return r
	}, strings.ToValidUTF8(string(b), "."))
}
