package egress

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// serveUDP runs the rig's server on a loopback address and returns it.
func (r *rig) serveUDP(t testing.TB, address string) string {
	t.Helper()
	pc, err := net.ListenPacket("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	r.servePackets(t, pc)
	return pc.LocalAddr().String()
}

// servePackets runs the rig's server on pc until the test ends.
func (r *rig) servePackets(t testing.TB, pc net.PacketConn) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.server.ServeUDP(ctx, pc) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("ServeUDP: %v", err)
		}
	})
}

// serveTCP runs the rig's server behind a listener at address, as the gateway
// does.
func (r *rig) serveTCP(t testing.TB, address string) string {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var open sync.WaitGroup
	open.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			open.Go(func() { r.server.ServeTCP(ctx, c, r.run) })
		}
	})
	t.Cleanup(func() { cancel(); _ = l.Close(); open.Wait() })
	return l.Addr().String()
}

func exchange(t testing.TB, network, server string, q *dns.Msg) *dns.Msg {
	t.Helper()
	c := dns.Client{Net: network, Timeout: 5 * time.Second}
	m, _, err := c.Exchange(q, server)
	if err != nil {
		t.Fatalf("%s %s: %v", network, q.Question[0].Name, err)
	}
	return m
}

func TestServeUDP(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		r := newRig(t, Limits{}, agentWith(named("api.example.com", 443)))
		server := r.serveUDP(t, address)
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 50 {
					addrOf(t, exchange(t, "udp", server, ask("api.example.com", dns.TypeA)))
				}
			})
		}
		wg.Wait()
		if m := exchange(t, "udp", server, ask("evil.example", dns.TypeA)); m.Rcode != dns.RcodeNameError {
			t.Errorf("%v", m)
		}
	}
}

// silence tests that a server leaves a question unanswered, once it has counted it.
func silence(t *testing.T, server, name string, before func() uint64) {
	t.Helper()
	c, err := net.Dial("udp", server)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	was := before()
	if _, err := c.Write(pack(t, ask(name, dns.TypeA))); err != nil {
		t.Fatal(err)
	}
	for before() == was {
		time.Sleep(time.Millisecond)
	}
	_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := c.Read(make([]byte, 512)); err == nil {
		t.Errorf("an answer of %d bytes", n)
	}
}

// TestAddressesThatLeadNowhereAreNotHandedOut: the family that cannot be redirected
// where the run lives is empty, so programs use the other one; it is back when it can.
func TestAddressesThatLeadNowhereAreNotHandedOut(t *testing.T) {
	r := newRig(t, Limits{}, agentWith(named("api.example.com", 443)))
	has := map[uint16]bool{dns.TypeA: true, dns.TypeAAAA: true}
	var asked uint64
	state, _ := r.state(testCgroup)
	r.run.Netns = 77
	state.families = func(netns uint64) (bool, bool) {
		asked = netns
		return has[dns.TypeA], has[dns.TypeAAAA]
	}
	for _, tt := range []struct{ has4, has6 bool }{{true, true}, {true, false}, {false, true}, {true, true}} {
		has[dns.TypeA], has[dns.TypeAAAA] = tt.has4, tt.has6
		for qtype, there := range has {
			m := r.ask(t, ask("api.example.com", qtype))
			if m.Rcode != dns.RcodeSuccess || (len(m.Answer) == 1) != there {
				t.Errorf("%+v, %s: %v", tt, dns.Type(qtype), m)
			}
			if !there && (len(m.Ns) != 1 || m.Ns[0].Header().Ttl != negativeTTL) {
				t.Errorf("%+v, %s: how long it holds is not said: %v", tt, dns.Type(qtype), m)
			}
		}
	}
	if asked != 77 {
		t.Errorf("asked about the namespace %d", asked)
	}
	if events := r.events.taken(); len(events) != 0 {
		t.Errorf("events: %+v", events)
	}
	if s := r.stats(t); s.Empty != 2 || s.Denied != 0 {
		t.Errorf("counted: %+v", s)
	}
}

func TestUnknownPeersAreDropped(t *testing.T) {
	r := newRig(t, Limits{}, agentWith(named("api.example.com", 443)))
	r.server.peers = nobody{}
	silence(t, r.serveUDP(t, "127.0.0.1:0"), "api.example.com", r.server.UnknownPeers)
	r = newRig(t, Limits{}, agentWith(named("api.example.com", 443)))
	r.server.peers = everybody(testCgroup + 1) // a cgroup that is no run
	silence(t, r.serveUDP(t, "127.0.0.1:0"), "api.example.com", r.server.UnknownPeers)
}

func TestFastQuestionsAreDropped(t *testing.T) {
	r := newRig(t, Limits{Queries: 1e-9, QueryBurst: 1}, agentWith(named("api.example.com", 443)))
	server := r.serveUDP(t, "127.0.0.1:0")
	addrOf(t, exchange(t, "udp", server, ask("api.example.com", dns.TypeA)))
	silence(t, server, "api.example.com", func() uint64 { return r.stats(t).Limited })
}

func TestServeUDPReportsALostSocket(t *testing.T) {
	r := newRig(t, Limits{}, agentWith())
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = pc.Close()
	if err := r.server.ServeUDP(t.Context(), pc); err == nil {
		t.Error("a closed socket is no error")
	}
}

func TestServeTCP(t *testing.T) {
	r := newRig(t, Limits{}, agentWith(named("api.example.com", 443)))
	server := r.serveTCP(t, "127.0.0.1:0")
	addrOf(t, exchange(t, "tcp", server, ask("api.example.com", dns.TypeAAAA)))
	c, err := net.Dial("tcp", server)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const pipelined = 100
	var all []byte
	for i := range uint16(pipelined) {
		q := ask("api.example.com", dns.TypeA)
		q.Id = i
		wire := pack(t, q)
		all = append(binary.BigEndian.AppendUint16(all, uint16(len(wire))), wire...)
	}
	for len(all) > 0 { // in pieces that do not fit the messages
		n := min(len(all), 7)
		if _, err := c.Write(all[:n]); err != nil {
			t.Fatal(err)
		}
		all = all[n:]
	}
	for i := range uint16(pipelined) {
		raw, err := readFrame(c)
		if err != nil {
			t.Fatal(err)
		}
		m := new(dns.Msg)
		if err := m.Unpack(raw); err != nil || m.Id != i || len(m.Answer) != 1 {
			t.Fatalf("answer %d: %v, %v", i, err, m)
		}
	}
}

// converse hands one end of a connection to the server, and returns the other.
func (r *rig) converse(t *testing.T, ctx context.Context) (net.Conn, <-chan struct{}) {
	t.Helper()
	ours, theirs := net.Pipe()
	ended := make(chan struct{})
	go func() { defer close(ended); r.server.ServeTCP(ctx, theirs, r.run) }()
	t.Cleanup(func() { _ = ours.Close(); <-ended })
	return ours, ended
}

func TestServeTCPEnds(t *testing.T) {
	question := func() []byte {
		wire := pack(t, ask("api.example.com", dns.TypeA))
		return append(binary.BigEndian.AppendUint16(nil, uint16(len(wire))), wire...)
	}
	for name, tt := range map[string]struct {
		limits Limits
		say    func(c net.Conn)
	}{
		"when idle":                 {Limits{Idle: time.Millisecond}, func(net.Conn) {}},
		"when half a length came":   {Limits{Idle: 5 * time.Millisecond}, func(c net.Conn) { _, _ = c.Write([]byte{0}) }},
		"when half a question came": {Limits{Idle: 5 * time.Millisecond}, func(c net.Conn) { _, _ = c.Write(question()[:20]) }},
		"when nobody reads":         {Limits{Idle: 5 * time.Millisecond}, func(c net.Conn) { _, _ = c.Write(question()) }},
		"at once on an answer":      {Limits{Idle: time.Hour}, func(c net.Conn) { _, _ = c.Write([]byte{0, 12, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0}) }},
		"at once on nothing":        {Limits{Idle: time.Hour}, func(c net.Conn) { _, _ = c.Write([]byte{0, 0}) }},
		"after its share": {Limits{Idle: time.Hour, Pipeline: 2}, func(c net.Conn) {
			for range 2 {
				_, _ = c.Write(question())
				_, _ = readFrame(c)
			}
		}},
		"when asked too fast": {Limits{Idle: 20 * time.Millisecond, Queries: 1e-9, QueryBurst: 1}, func(c net.Conn) {
			_, _ = c.Write(question())
			_, _ = readFrame(c)
			_, _ = c.Write(question())
		}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, tt.limits, agentWith(named("api.example.com", 443)))
			c, ended := r.converse(t, t.Context())
			tt.say(c)
			<-ended
			if _, err := c.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("the connection is not closed: %v", err)
			}
		})
	}
}

func TestServeTCPEndsWithItsContext(t *testing.T) {
	r := newRig(t, Limits{Idle: time.Hour}, agentWith())
	ctx, cancel := context.WithCancel(t.Context())
	_, ended := r.converse(t, ctx)
	cancel()
	<-ended
}

func TestServeTCPIsBoundedAndForRunsOnly(t *testing.T) {
	r := newRig(t, Limits{Idle: time.Hour, Connections: 1}, agentWith(named("api.example.com", 443)))
	first, _ := r.converse(t, t.Context())
	wire := pack(t, ask("api.example.com", dns.TypeA))
	if err := writeFrame(first, wire); err != nil {
		t.Fatal(err)
	}
	if _, err := readFrame(first); err != nil {
		t.Fatal(err)
	}
	_, ended := r.converse(t, t.Context())
	<-ended
	if s := r.stats(t); s.Limited != 1 {
		t.Errorf("%+v", s)
	}
	r.run = newRun(testCgroup+1, agentWith())
	_, ended = r.converse(t, t.Context())
	<-ended
	if n := r.server.UnknownPeers(); n != 1 {
		t.Errorf("%d unknown peers", n)
	}
}

// packetConn hides the type of a UDP socket.
type packetConn struct{ net.PacketConn }

func TestServeUDPOverAnyPacketConn(t *testing.T) {
	r := newRig(t, Limits{}, observing(named("api.example.com", 443)))
	r.server.upstream = upstreamFunc(func(context.Context, string) ([]netip.Addr, error) { return addrs("192.0.2.7"), nil })
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.servePackets(t, packetConn{pc})
	addrOf(t, exchange(t, "udp", pc.LocalAddr().String(), ask("api.example.com", dns.TypeA)))
	if got := addrOf(t, exchange(t, "udp", pc.LocalAddr().String(), ask("other.example", dns.TypeA))); got.String() != "192.0.2.7" {
		t.Errorf("observed: %s", got)
	}
}
