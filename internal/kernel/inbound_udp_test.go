package kernel

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// expectGot waits until the program was given that word, and fails if it was given
// another one before.
func (p *process) expectGot(t testing.TB, word string) {
	t.Helper()
	p.expect(t, "got "+word)
}

// TestDatagramsAreJudgedBySender: also for a program that does not ask who sends.
func TestDatagramsAreJudgedBySender(t *testing.T) {
	e := newTestEnv(t)
	o := newOutside(t)
	cgroup, run := e.newRun(t, "run_a", false)
	e.allow(t, run, ports(1, 65535), "192.0.2.0/24", "2001:db8::/32") // a rule to send there is no grant
	events := e.collect(t)
	for _, w := range []inboundWay{
		{"udp4", "0.0.0.0:0", "udp4", "192.0.2.1", "192.0.2.2", "192.0.2.3"},
		{"udp", "[::]:0", "udp4", "192.0.2.1", "192.0.2.2", "192.0.2.3"},
		{"udp", "[::]:0", "udp6", "2001:db8::1", "2001:db8::2", "2001:db8::3"},
		{"udp6", "[::]:0", "udp6", "2001:db8::1", "2001:db8::2", "2001:db8::3"},
	} {
		for _, how := range []string{"from", "blind"} {
			control := start(t, "", "datagrams", how, w.network, w.listen)
			o.sends(t, w.dial, w.denied, net.JoinHostPort(w.host, portText(control.port(t))), "control")
			control.expectGot(t, "control")

			server := start(t, cgroup, "datagrams", how, w.network, w.listen)
			port := server.port(t)
			to := net.JoinHostPort(w.host, portText(port))
			e.grant(t, run, ports(port, port)) // nobody
			o.sends(t, w.dial, w.granted, to, "nobody")
			e.grant(t, run, ports(port+1, port+1), "192.0.2.0/24", "2001:db8::/32")
			o.sends(t, w.dial, w.granted, to, "port")
			e.grant(t, run, ports(port, port), "192.0.2.2/32", "2001:db8::2/128")
			o.sends(t, w.dial, w.denied, to, "peer")
			expectTurnedAway(t, events, run, "inbound", w.denied, port)
			o.sends(t, w.dial, w.granted, to, "granted")
			server.expectGot(t, "granted")
			if got := e.inboundFlows(t, run)["udp "+net.JoinHostPort(w.granted, portText(port))]; got != 1 {
				t.Errorf("%+v: %d inbound flows", w, got)
			}
		}
	}
}

func TestAnswersToRecentPeersOnly(t *testing.T) {
	e := newTestEnv(t)
	o := newOutside(t)
	cgroup, run := e.newRun(t, "run_a", false)
	for _, w := range []inboundWay{
		{"udp4", "0.0.0.0:0", "udp4", "192.0.2.1", "192.0.2.2", ""},
		{"udp", "[::]:0", "udp4", "192.0.2.1", "192.0.2.2", ""},
		{"udp6", "[::]:0", "udp6", "2001:db8::1", "2001:db8::2", ""},
	} {
		server := start(t, cgroup, "datagrams", "answer", w.network, w.listen)
		port := server.port(t)
		e.grant(t, run, ports(port, port), "192.0.2.2/32", "2001:db8::2/128")
		peer, err := o.dial(t.Context(), w.dial, w.granted, net.JoinHostPort(w.host, portText(port)))
		if err != nil {
			t.Fatal(err)
		}
		defer peer.Close()
		at := netip.MustParseAddrPort(peer.LocalAddr().String())
		mapped := at.String()
		if w.network == "udp" {
			mapped = netip.AddrPortFrom(netip.AddrFrom16(at.Addr().As16()), at.Port()).String()
		}
		ask := func(verb, want string) {
			t.Helper()
			server.say(t, verb)
			server.expect(t, want)
		}
		ask("send "+mapped, "send EPERM") // it has not sent yet
		peer.Write([]byte("hello"))
		server.expectGot(t, "hello")
		buf := make([]byte, 64)
		peer.SetReadDeadline(time.Now().Add(10 * trial))
		if n, err := peer.Read(buf); err != nil || string(buf[:n]) != "hello" {
			t.Errorf("%+v: the answer: %q, %v", w, buf[:n], err)
		}
		ask("send "+mapped, "send ok")
		other := netip.AddrPortFrom(netip.MustParseAddrPort(mapped).Addr(), at.Port()^1).String()
		ask("send "+other, "send EPERM") // the same host, another port
		ask("connect "+mapped, "connect ok")
		ask("write", "write ok")
		peer.Write([]byte("connected"))
		server.expectGot(t, "connected")
		e.grant(t, run, ports(port, port), "192.0.2.3/32")
		ask("write", "write EPERM") // the grant is gone
		peer.Write([]byte("gone"))
		waitFor(t, "the datagram to be refused", func() bool { return e.refused(t, run, "inbound") > 0 })
		e.grant(t, run, ports(port, port), "192.0.2.2/32", "2001:db8::2/128")
		peer.Write([]byte("back"))
		server.expectGot(t, "back")
	}
}

// TestAnswersComeBack: a run that asks gets the answers of those whom it has asked,
// of several at a time too, and nothing else from them.
func TestAnswersComeBack(t *testing.T) {
	e := newTestEnv(t)
	o := newOutside(t)
	cgroup, run := e.newRun(t, "run_a", false)
	servers := map[string]net.PacketConn{}
	for _, a := range []string{"192.0.2.2", "192.0.2.3"} {
		if err := o.ns.Do(func() (err error) {
			servers[a], err = net.ListenPacket("udp4", a+":0")
			return err
		}); err != nil {
			t.Fatal(err)
		}
		defer servers[a].Close()
	}
	e.allow(t, run, ports(1, 65535), "192.0.2.0/24")
	client := start(t, cgroup, "datagrams", "from", "udp4", "192.0.2.1:0")
	at := &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: int(client.port(t))}
	servers["192.0.2.2"].WriteTo([]byte("unsolicited"), at)
	waitFor(t, "it to be refused", func() bool { return e.refused(t, run, "inbound") == 1 })
	for _, s := range servers {
		client.say(t, "send "+s.LocalAddr().String())
		client.expect(t, "send ok")
	}
	for _, a := range []string{"192.0.2.2", "192.0.2.3"} {
		servers[a].WriteTo([]byte(a), at)
		client.expectGot(t, a)
	}
	if err := o.ns.Do(func() error {
		c, err := net.ListenPacket("udp4", "192.0.2.2:0") // the same host, another port
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.WriteTo([]byte("unsolicited"), at)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "it to be refused", func() bool { return e.refused(t, run, "inbound") == 2 })
	// The rule is gone, and so are the answers; the same under another rule comes.
	e.allow(t, run, ports(1, 65535), "192.0.2.3/32")
	servers["192.0.2.2"].WriteTo([]byte("late"), at)
	waitFor(t, "it to be refused", func() bool { return e.refused(t, run, "inbound") == 3 })
	servers["192.0.2.3"].WriteTo([]byte("still"), at)
	client.expectGot(t, "still")
}

// TestDatagramsOnLoopback: those of the same run pass, those of the host's programs
// need a grant.
func TestDatagramsOnLoopback(t *testing.T) {
	e := newTestEnv(t)
	cgroup, run := e.newRun(t, "run_a", false)
	other, otherRun := e.newRun(t, "run_b", false)
	for _, a := range [][2]string{{"127.0.0.1", "127.0.0.0/8"}, {"::1", "::1/128"}} {
		network := map[bool]string{true: "udp4", false: "udp6"}[strings.Contains(a[0], ".")]
		control := start(t, "", "datagrams", "answer", network, net.JoinHostPort(a[0], "0"))
		in(t, "", "sendto", network, net.JoinHostPort(a[0], portText(control.port(t))))
		control.expectGot(t, "hello")
		server := start(t, cgroup, "datagrams", "answer", network, net.JoinHostPort(a[0], "0"))
		port := server.port(t)
		to := net.JoinHostPort(a[0], portText(port))
		stranger, err := net.Dial(network, to)
		if err != nil {
			t.Fatal(err)
		}
		defer stranger.Close()
		before := e.refused(t, run, "peer-foreign")
		stranger.Write([]byte("stranger"))
		waitFor(t, "the stranger to be refused", func() bool { return e.refused(t, run, "peer-foreign") > before })
		if got := in(t, other, "sendto", network, to); got != "EPERM" || e.refused(t, otherRun, "loopback-foreign") == 0 {
			t.Errorf("another run: %q", got)
		}
		if got := in(t, cgroup, "query", "connected", to); !strings.HasPrefix(got, "question from") {
			t.Errorf("the run itself: %q", got)
		}
		server.expectGot(t, "question")
		e.grant(t, run, ports(port, port), a[1])
		stranger.Write([]byte("granted"))
		server.expectGot(t, "granted")
		buf := make([]byte, 64)
		stranger.SetReadDeadline(time.Now().Add(10 * trial))
		if n, err := stranger.Read(buf); err != nil || string(buf[:n]) != "granted" {
			t.Errorf("the answer: %q, %v", buf[:n], err)
		}
	}
}

// TestPeersAreBounded: what a socket has no room for is refused an answer, and
// another socket of the run is not touched.
func TestPeersAreBounded(t *testing.T) {
	e := newTestEnv(t)
	ip(t, "route add local 198.51.0.0/16 dev lo")
	cgroup, run := e.newRun(t, "run_a", false)
	server, quiet := start(t, cgroup, "datagrams", "from", "udp4", "192.0.2.1:0"), start(t, cgroup, "datagrams", "from", "udp4", "192.0.2.1:0")
	port, quietPort := server.port(t), quiet.port(t)
	e.grant(t, run, ports(1, 65535), "198.51.0.0/16")
	visit := func(p *process, from, to string) string {
		c, err := (&net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(netip.MustParseAddrPort(from + ":0"))}).Dial("udp4", to)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.Write([]byte("visit"))
		p.expectGot(t, "visit")
		return c.LocalAddr().String()
	}
	friend := visit(quiet, "198.51.1.1", "192.0.2.1:"+portText(quietPort))
	first := visit(server, "198.51.1.1", "192.0.2.1:"+portText(port))
	server.say(t, "send "+first)
	server.expect(t, "send ok")
	last := ""
	for i := range 3000 {
		last = visit(server, netip.AddrFrom4([4]byte{198, 51, byte(2 + i>>8), byte(i)}).String(), "192.0.2.1:"+portText(port))
	}
	server.say(t, "send "+first)
	server.expect(t, "send EPERM")
	server.say(t, "send "+last)
	server.expect(t, "send ok")
	quiet.say(t, "send "+friend)
	quiet.expect(t, "send ok")
}
