package bench

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/miekg/dns"
)

// questions asks N times for a name's address and waits for each answer. An echo
// will do as one: it has the question's id. The figure is microseconds.
func (c *client) questions(o order) ([]float64, error) {
	conn, err := net.Dial("udp4", o.Address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	msg := new(dns.Msg).SetQuestion(dns.Fqdn(o.Name), dns.TypeA)
	buf := make([]byte, 1500)
	ns, err := perOp(o.N, wallClock, func() error {
		for i := range o.N {
			msg.Id = uint16(i)
			if err := question(conn, msg, buf); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return []float64{ns[0] / 1000}, nil
}

func question(conn net.Conn, msg *dns.Msg, buf []byte) error {
	raw, err := msg.Pack()
	if err != nil {
		return err
	}
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	if _, err := conn.Write(raw); err != nil {
		return err
	}
	n, err := conn.Read(buf)
	if err != nil {
		return err
	}
	var answer dns.Msg
	if err := answer.Unpack(buf[:n]); err != nil {
		return err
	}
	if answer.Id != msg.Id || answer.Rcode != dns.RcodeSuccess {
		return fmt.Errorf("the answer to question %d is %d, %s", msg.Id, answer.Id, dns.RcodeToString[answer.Rcode])
	}
	return nil
}

// serveEcho sends every datagram back until ctx ends. It returns its address.
func serveEcho(ctx context.Context) (string, error) {
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	context.AfterFunc(ctx, func() { conn.Close() })
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			// Who does not get an answer will say so.
			_, _ = conn.WriteTo(buf[:n], from)
		}
	}()
	return conn.LocalAddr().String(), nil
}
