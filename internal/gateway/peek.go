package gateway

import (
	"errors"
	"io"
	"net"
	"time"

	"github.com/varvel/varvel/internal/decision"
)

// drainTime is how long a refused peer is listened to.
const drainTime = 200 * time.Millisecond

// TLS alert records: fatal, and why (RFC 8446 section 6.2).
const (
	alertDecodeError      = "\x15\x03\x01\x00\x02\x02\x32"
	alertMissingExtension = "\x15\x03\x01\x00\x02\x02\x6d"
	alertUnrecognisedName = "\x15\x03\x01\x00\x02\x02\x70"
)

// peekHello reads from c until a ClientHello is complete. It returns all bytes
// that it has read, which belong to the upstream, and the server name.
func peekHello(c net.Conn, timeout time.Duration) (read []byte, name string, err error) {
	if err := c.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return nil, "", err
	}
	buf := make([]byte, 0, maxHello)
	for {
		n, err := c.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if n > 0 {
			name, parseErr := parseHello(buf)
			if !errors.Is(parseErr, errMore) {
				return buf, name, errors.Join(parseErr, c.SetReadDeadline(time.Time{}))
			}
		}
		if err != nil {
			return buf, "", err
		}
	}
}

// helloRefusal explains why a hello is refused, and which alert says so.
func helloRefusal(err error) (decision.Reason, string) {
	switch {
	case errors.Is(err, errNoSNI):
		return decision.Reason{Rule: "sni-missing", Text: "The TLS hello names no server, so nobody can say which name it is for."}, alertMissingExtension
	case errors.Is(err, errNotTLS):
		return decision.Reason{Rule: "not-tls", Text: "The first bytes are not TLS. A rule with opaque: true lets such bytes through."}, ""
	case errors.Is(err, errHello), errors.Is(err, errLong):
		return decision.Reason{Rule: "tls-malformed", Text: err.Error()}, alertDecodeError
	default:
		return decision.Reason{Rule: "hello-timeout", Text: "No complete TLS hello came in time."}, ""
	}
}

// drain reads for a moment what a refused peer is still sending.
func drain(c net.Conn) {
	if c.SetReadDeadline(time.Now().Add(drainTime)) == nil {
		_, _ = io.CopyN(io.Discard, c, maxHello)
	}
}
