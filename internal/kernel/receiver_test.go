package kernel

import (
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"
)

// receiver counts what really arrives: denials are judged here, not by what the
// sender was told.
type receiver struct {
	addr     string
	arrived  atomic.Int64 // connections or datagrams
	received atomic.Int64 // bytes
}

func receive(t testing.TB, network, address string) *receiver {
	t.Helper()
	r := &receiver{}
	if network[:3] == "udp" {
		c, err := net.ListenPacket(network, address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		r.addr = c.LocalAddr().String()
		go r.datagrams(c)
		return r
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	r.addr = l.Addr().String()
	go r.connections(l)
	return r
}

func (r *receiver) datagrams(c net.PacketConn) {
	buf := make([]byte, 2048)
	for {
		n, _, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		r.received.Add(int64(n))
		r.arrived.Add(1)
	}
}

func (r *receiver) connections(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		r.arrived.Add(1)
		go func() {
			defer c.Close()
			buf := make([]byte, 2048)
			for {
				n, err := c.Read(buf)
				r.received.Add(int64(n))
				if err == io.EOF || err != nil {
					return
				}
			}
		}()
	}
}

// settle waits until what was sent has had time to arrive, and returns how many
// connections or datagrams did.
func (r *receiver) settle() int64 {
	time.Sleep(50 * time.Millisecond)
	return r.arrived.Load()
}
