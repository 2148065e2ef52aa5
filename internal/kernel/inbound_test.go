package kernel

import (
	"context"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// inboundWay is a kind of listener, and an address at which the outside finds it.
type inboundWay struct{ network, listen, dial, host, granted, denied string }

func inboundWays() []inboundWay {
	return []inboundWay{
		{"tcp4", "0.0.0.0:0", "tcp4", "192.0.2.1", "192.0.2.2", "192.0.2.3"},
		{"tcp4", "192.0.2.1:0", "tcp4", "192.0.2.1", "192.0.2.2", "192.0.2.3"},
		{"tcp", "[::]:0", "tcp4", "192.0.2.1", "192.0.2.2", "192.0.2.3"}, // dual-stack, IPv4-mapped peer
		{"tcp", "[::]:0", "tcp6", "2001:db8::1", "2001:db8::2", "2001:db8::3"},
		{"tcp6", "[::]:0", "tcp6", "2001:db8::1", "2001:db8::2", "2001:db8::3"}, // IPV6_V6ONLY
		{"unbound", "", "tcp4", "192.0.2.1", "192.0.2.2", "192.0.2.3"},
	}
}

func TestListenIsGrantedByPortAndPeer(t *testing.T) {
	e := newTestEnv(t)
	o := newOutside(t)
	cgroup, run := e.newRun(t, "run_a", false)
	e.allow(t, run, ports(1, 65535), "203.0.113.0/24")
	events := e.collect(t)
	for _, w := range inboundWays() {
		control := start(t, "", "echo", w.network, w.listen)
		if got := o.says(t, w.dial, w.denied, net.JoinHostPort(w.host, portText(control.port(t))), "word"); got != "word" {
			t.Errorf("%+v, control, unconfined: %q", w, got)
		}
		server := start(t, cgroup, "echo", w.network, w.listen)
		port := server.port(t)
		to := net.JoinHostPort(w.host, portText(port))

		e.grant(t, run, ports(port, port)) // nobody
		if got := o.says(t, w.dial, w.granted, to, "word"); got != "no connection" {
			t.Errorf("%+v, nothing granted: %q", w, got)
		}
		expectTurnedAway(t, events, run, "inbound", w.granted, port)
		e.grant(t, run, ports(port+1, port+1), "192.0.2.0/24", "2001:db8::/32")
		if got := o.says(t, w.dial, w.granted, to, "word"); got != "no connection" {
			t.Errorf("%+v, another port granted: %q", w, got)
		}
		e.grant(t, run, ports(port, port), w.granted+"/"+map[bool]string{true: "32", false: "128"}[strings.Contains(w.granted, ".")])
		if got := o.says(t, w.dial, w.denied, to, "word"); got != "no connection" {
			t.Errorf("%+v, another peer granted: %q", w, got)
		}
		expectTurnedAway(t, events, run, "inbound", w.denied, port)
		if got := o.says(t, w.dial, w.granted, to, "word"); got != "word" {
			t.Errorf("%+v, granted: %q", w, got)
		}
		// The first that the program was given is the one that was granted.
		if line := server.line(t); !strings.Contains(line, w.granted) {
			t.Errorf("%+v: the program got %q first", w, line)
		}
		if got := e.inboundFlows(t, run)["tcp "+net.JoinHostPort(w.granted, portText(port))]; got != 1 {
			t.Errorf("%+v: %d inbound flows", w, got)
		}
	}
}

func portText(p uint16) string { return netip.AddrPortFrom(netip.IPv4Unspecified(), p).String()[8:] }

// inboundFlows reads who has come in.
func (e *testEnv) inboundFlows(t *testing.T, run uint64) map[string]uint64 {
	t.Helper()
	all, err := e.TakeFlows()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]uint64{}
	for _, f := range all {
		if f.CgroupID == run && f.Inbound {
			got[protocolOf(f.Protocol)+" "+f.To.String()] += f.Count
		}
	}
	return got
}

// TestEgressRuleOpensNothing: that a run may go to a peer does not let the peer in.
func TestEgressRuleOpensNothing(t *testing.T) {
	e := newTestEnv(t)
	o := newOutside(t)
	cgroup, run := e.newRun(t, "run_a", false)
	e.allow(t, run, ports(1, 65535), "192.0.2.0/24", "2001:db8::/32")
	server := start(t, cgroup, "echo", "tcp", "[::]:0")
	port := portText(server.port(t))
	for _, tt := range [][3]string{{"tcp4", "192.0.2.2", "192.0.2.1"}, {"tcp6", "2001:db8::2", "2001:db8::1"}} {
		if got := o.says(t, tt[0], tt[1], net.JoinHostPort(tt[2], port), "word"); got != "no connection" {
			t.Errorf("%v: %q", tt, got)
		}
	}
	if e.refused(t, run, "inbound") == 0 {
		t.Error("nothing was counted")
	}
}

// TestGrantIsNoRule: a peer that may come in may not be dialled, also not from the
// port that it may come to.
func TestGrantIsNoRule(t *testing.T) {
	e := newTestEnv(t)
	o := newOutside(t)
	cgroup, run := e.newRun(t, "run_a", false)
	var tcp, udp *receiver
	if err := o.ns.Do(func() error {
		tcp, udp = receive(t, "tcp4", "192.0.2.2:0"), receive(t, "udp4", "192.0.2.2:0")
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	e.grant(t, run, ports(1, 65535), "192.0.2.0/24")
	for _, where := range []string{"", cgroup} {
		for _, args := range [][]string{
			{"dial", "tcp4", tcp.addr}, {"dialfrom", "tcp4", "192.0.2.1:8080", tcp.addr},
			{"dialfrom", "udp4", "192.0.2.1:8080", udp.addr}, {"sendto", "udp4", udp.addr},
		} {
			got := in(t, where, args[0], args[1:]...)
			if denied := got == "EPERM"; denied != (where != "") {
				t.Errorf("%v in %q: %q", args, where, got)
			}
		}
	}
	if tcp.settle(); tcp.arrived.Load() != 2 || udp.arrived.Load() != 2 {
		t.Errorf("%d and %d arrived, want the controls, two each", tcp.arrived.Load(), udp.arrived.Load())
	}
}

// TestWithdrawnGrantEndsTheConversation: what is accepted is judged again under new
// rules, and a listener that has gone does not change that.
func TestWithdrawnGrantEndsTheConversation(t *testing.T) {
	e := newTestEnv(t)
	o := newOutside(t)
	cgroup, run := e.newRun(t, "run_a", false)
	server := start(t, cgroup, "echo", "tcp4", "0.0.0.0:0")
	port := server.port(t)
	e.allow(t, run, ports(1, 65535), "192.0.2.0/24") // an egress rule for the peer makes no difference
	e.grant(t, run, ports(port, port), "192.0.2.2/32")
	c, err := o.dial(t.Context(), "tcp4", "192.0.2.2", "192.0.2.1:"+portText(port))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	server.line(t)
	hears := func() string {
		server.say(t, "news")
		c.SetReadDeadline(time.Now().Add(trial))
		buf := make([]byte, 64)
		n, err := c.Read(buf)
		if err != nil {
			return word(err)
		}
		return strings.TrimSpace(string(buf[:n]))
	}
	if got := hears(); got != "news" {
		t.Fatalf("granted: %q", got)
	}
	e.grant(t, run, ports(port, port), "192.0.2.0/24") // another grant for the same peer
	if got := hears(); got != "news" {
		t.Errorf("granted by another rule: %q", got)
	}
	e.grant(t, run, ports(port, port), "192.0.2.3/32")
	if got := hears(); got == "news" {
		t.Error("the peer hears the run, and its grant is gone")
	}
	if e.refused(t, run, "stale") == 0 {
		t.Error("nothing was counted as stale")
	}
}

func word(err error) string {
	if os.IsTimeout(err) {
		return "timeout"
	}
	return err.Error()
}

// TestDataInTheSYNIsJudged: with TCP Fast Open a program gets data before the
// handshake has ended.
func TestDataInTheSYNIsJudged(t *testing.T) {
	e := newTestEnv(t)
	o := newOutside(t)
	// Both sides, and no cookie is asked for (Documentation/networking/ip-sysctl.rst).
	const both = "519"
	for _, do := range []func(func() error) error{o.ns.Do, func(f func() error) error { return f() }} {
		if err := do(func() error { return os.WriteFile("/proc/sys/net/ipv4/tcp_fastopen", []byte(both), 0) }); err != nil {
			t.Skipf("TCP Fast Open cannot be switched on: %v", err)
		}
	}
	send := func(to string) {
		if err := o.ns.Do(func() error {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			ap := netip.MustParseAddrPort(to)
			err = unix.Sendto(fd, []byte("word"), unix.MSG_FASTOPEN, &unix.SockaddrInet4{Port: int(ap.Port()), Addr: ap.Addr().As4()})
			if err != nil && err != unix.EINPROGRESS {
				return err
			}
			time.Sleep(trial)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	control := start(t, "", "echo", "fastopen", "192.0.2.1:0")
	send("192.0.2.1:" + portText(control.port(t)))
	if line := control.line(t); !strings.HasPrefix(line, "accepted") {
		t.Fatalf("control: %q", line)
	}
	cgroup, run := e.newRun(t, "run_a", false)
	server := start(t, cgroup, "echo", "fastopen", "192.0.2.1:0")
	port := server.port(t)
	send("192.0.2.1:" + portText(port))
	if e.refused(t, run, "inbound") == 0 {
		t.Error("nothing was refused")
	}
	e.grant(t, run, ports(port, port), "192.0.2.3/32")
	ctx, cancel := context.WithTimeout(t.Context(), 10*trial)
	defer cancel()
	if c, err := o.dial(ctx, "tcp4", "192.0.2.3", "192.0.2.1:"+portText(port)); err != nil {
		t.Error(err)
	} else {
		c.Close()
	}
	if line := server.line(t); !strings.Contains(line, "192.0.2.3") {
		t.Errorf("the program got %q first", line)
	}
}

// TestHostIsAnOutsider: programs of the same host that are in no run come in on
// loopback if the grant says so.
func TestHostIsAnOutsider(t *testing.T) {
	e := newTestEnv(t)
	cgroup, run := e.newRun(t, "run_a", false)
	for _, tt := range [][3]string{{"tcp4", "127.0.0.1", "127.0.0.0/8"}, {"tcp6", "::1", "::1/128"}} {
		server := start(t, cgroup, "echo", tt[0], net.JoinHostPort(tt[1], "0"))
		port := server.port(t)
		to := net.JoinHostPort(tt[1], portText(port))
		host := func() error {
			c, err := net.DialTimeout(tt[0], to, trial)
			if err == nil {
				c.Close()
			}
			return err
		}
		e.grant(t, run, ports(port, port), "192.0.2.0/24")
		before := e.refused(t, run, "peer-foreign")
		if err := host(); err == nil {
			t.Errorf("%v: a stranger came in", tt)
		}
		if e.refused(t, run, "peer-foreign") == before {
			t.Errorf("%v: nothing was counted", tt)
		}
		if got := in(t, cgroup, "dial", tt[0], to); !strings.HasPrefix(got, "ok") {
			t.Errorf("%v: the run itself: %q", tt, got)
		}
		e.grant(t, run, ports(port, port), tt[2])
		if err := host(); err != nil {
			t.Errorf("%v: granted: %v", tt, err)
		}
	}
}

// TestObserveLetsInAndTells: what would be refused happens, and is answered.
func TestObserveLetsInAndTells(t *testing.T) {
	e := newTestEnv(t)
	o := newOutside(t)
	cgroup, run := e.newRun(t, "run_a", true)
	events := e.collect(t)
	tcp := start(t, cgroup, "echo", "tcp4", "0.0.0.0:0")
	if got := o.says(t, "tcp4", "192.0.2.2", "192.0.2.1:"+portText(tcp.port(t)), "word"); got != "word" {
		t.Errorf("tcp: %q", got)
	}
	udp := start(t, cgroup, "datagrams", "answer", "udp4", "0.0.0.0:0")
	if got := o.says(t, "udp4", "192.0.2.2", "192.0.2.1:"+portText(udp.port(t)), "word"); got != "word" {
		t.Errorf("udp: %q", got)
	}
	for _, protocol := range []uint8{6, 17} {
		expectEvent(t, events, func(ev Event) bool {
			return ev.Kind == EventWouldDeny && ev.CgroupID == run && ev.Reason == "inbound" && ev.Protocol == protocol && ev.Hook == "ingress"
		})
	}
}

// TestGrantsOutliveTheDaemon: an adopted run has its grants, and what was accepted
// goes on; taking them back works too.
func TestGrantsOutliveTheDaemon(t *testing.T) {
	e := newTestEnv(t)
	o := newOutside(t)
	cgroup, run := e.newRun(t, "run_a", false)
	server := start(t, cgroup, "echo", "tcp4", "0.0.0.0:0")
	port := server.port(t)
	to := "192.0.2.1:" + portText(port)
	e.grant(t, run, ports(port, port), "192.0.2.2/32")
	c, err := o.dial(t.Context(), "tcp4", "192.0.2.2", to)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 2 {
		e.reopen(t)
		c.SetDeadline(time.Now().Add(10 * trial))
		buf := make([]byte, 4)
		if _, err := c.Write([]byte("word")); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(buf); err != nil || string(buf) != "word" {
			t.Errorf("what was accepted before: %q, %v", buf, err)
		}
		if got := o.says(t, "tcp4", "192.0.2.2", to, "word"); got != "word" {
			t.Errorf("granted: %q", got)
		}
		if got := o.says(t, "tcp4", "192.0.2.3", to, "word"); got != "no connection" {
			t.Errorf("not granted: %q", got)
		}
	}
	e.grant(t, run, ports(port, port))
	if got := o.says(t, "tcp4", "192.0.2.2", to, "word"); got != "no connection" {
		t.Errorf("taken back: %q", got)
	}
	e.grant(t, run, ports(port, port), "192.0.2.2/32")
	if err := e.Revoke(run); err != nil {
		t.Fatal(err)
	}
	if got := o.says(t, "tcp4", "192.0.2.2", to, "word"); got != "no connection" {
		t.Errorf("revoked: %q", got)
	}
}

// TestPortGroupIsNotJoined: a run can't take a share of what comes to a host's
// service, to another run or to Varvel by sharing their port, with a grant or
// without.
func TestPortGroupIsNotJoined(t *testing.T) {
	e := newTestEnv(t)
	o := newOutside(t)
	_, doors := e.openDoors(t)
	cgroup, run := e.newRun(t, "run_a", false)
	other, _ := e.newRun(t, "run_b", false)
	e.grant(t, run, ports(1, 65535), "0.0.0.0/0")
	for name, owner := range map[string]string{"the host": "", "another run": other} {
		service := start(t, owner, "echo", "shared", "0.0.0.0:0")
		port := portText(service.port(t))
		control := start(t, owner, "echo", "shared", "0.0.0.0:"+port)
		control.port(t)
		for _, address := range []string{"0.0.0.0:", "192.0.2.1:", "127.0.0.1:"} {
			if got := in(t, cgroup, "echo", "shared", address+port); got != "listen EADDRINUSE" {
				t.Errorf("%s, %s: %q", name, address, got)
			}
		}
		if owner == "" {
			for range 20 {
				if got := o.says(t, "tcp4", "192.0.2.2", "192.0.2.1:"+port, "word"); got != "word" {
					t.Errorf("the service answers %q", got)
				}
			}
		}
	}
	if e.refused(t, run, "port-foreign") == 0 {
		t.Error("nothing was counted")
	}
	if got := in(t, cgroup, "echo", "shared", "127.0.0.1:"+portText(doors.TCP4)); got != "listen EPERM" {
		t.Errorf("the door: %q", got)
	}
	// Its own port it may share with itself.
	own := start(t, cgroup, "echo", "shared", "0.0.0.0:0")
	again := start(t, cgroup, "echo", "shared", "0.0.0.0:"+portText(own.port(t)))
	again.port(t)
}
