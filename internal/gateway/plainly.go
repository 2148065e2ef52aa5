package gateway

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/varvel/varvel/internal/decision"
	"github.com/varvel/varvel/internal/workload"
)

// firstByteTime is how long a connection in http mode may be silent before its
// first request. It is net/http's limit for a header here (package oneconn).
const firstByteTime = 30 * time.Second

// alertProtocolVersion says that no version of TLS is spoken here (RFC 8446
// section 6.2).
const alertProtocolVersion = "\x15\x03\x01\x00\x02\x02\x46"

// readPlainly reads the first byte of c and returns a connection that still
// has it. A program that speaks TLS where plain HTTP is expected is the most
// usual mistake of all, and is told so; ok is false then, and if there is no
// first byte.
func (g *Gateway) readPlainly(ctx context.Context, c *net.TCPConn, run *workload.Run, dst netip.AddrPort, name Name) (plain net.Conn, ok bool) {
	first := make([]byte, 1)
	if c.SetReadDeadline(time.Now().Add(firstByteTime)) != nil {
		return nil, false
	}
	if n, err := c.Read(first); n == 0 || err != nil || c.SetReadDeadline(time.Time{}) != nil {
		return nil, false
	}
	if first[0] != recordHandshake { // no HTTP method begins with it
		return &unread{Conn: c, first: first}, true
	}
	g.refuseConn(ctx, run, dst, name, decision.Reason{Rule: "tls-not-plain", Text: fmt.Sprintf(
		"The program speaks TLS to the tool %s, which takes plain HTTP from it. Use http://%s:%d/; the gateway speaks TLS to the service where that is configured.",
		name.Tool.Name, name.Host, dst.Port())})
	_, _ = c.Write([]byte(alertProtocolVersion)) // closed next, whether or not it arrives
	linger(c)
	return nil, false
}

// unread is a connection whose first byte was read ahead.
type unread struct {
	net.Conn
	first []byte
}

// Read implements net.Conn.
func (u *unread) Read(b []byte) (int, error) {
	if len(u.first) > 0 && len(b) > 0 {
		n := copy(b, u.first)
		u.first = u.first[n:]
		return n, nil
	}
	return u.Conn.Read(b)
}
