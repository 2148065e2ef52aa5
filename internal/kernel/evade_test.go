package kernel

import (
	"net"
	"net/netip"
	"strings"
	"testing"
)

// TestSidewaysIsJudged: ways to name an address that are not connect or sendto
// of it.
func TestSidewaysIsJudged(t *testing.T) {
	e := newTestEnv(t)
	cgroup, run := e.newRun(t, "run_a", false)
	udp, tcp := receive(t, "udp4", "192.0.2.1:0"), receive(t, "tcp4", "192.0.2.1:0")
	for _, tt := range []struct {
		how      string
		unlisted *receiver
		arrives  int64 // unconfined
	}{
		{"fastopen", tcp, 1}, {"dissolve tcp", tcp, 1}, {"unspecified family", udp, 1},
		{"connected sendto", udp, 1}, {"many", udp, 1}, {"segments", udp, 3},
		{"more", udp, 0}, // the kernel keeps to the first address
		{"cork", udp, 1}, // and here to the second
	} {
		network := map[*receiver]string{udp: "udp4", tcp: "tcp4"}[tt.unlisted]
		listed := receive(t, network, "192.0.2.1:0")
		port := netip.MustParseAddrPort(listed.addr).Port()
		e.allow(t, run, ports(port, port), "192.0.2.1/32")
		before := tt.unlisted.settle()
		control := in(t, "", "evade", tt.how, listed.addr, tt.unlisted.addr)
		if n := tt.unlisted.settle() - before; control != "ok" || n != tt.arrives {
			t.Errorf("%s, control: %q, %d arrived, want %d", tt.how, control, n, tt.arrives)
		}
		before = tt.unlisted.settle()
		got := in(t, cgroup, "evade", tt.how, listed.addr, tt.unlisted.addr)
		if n := tt.unlisted.settle() - before; n != 0 {
			t.Errorf("%s: %d arrived", tt.how, n)
		}
		if want := "EPERM"; got != want && tt.how != "more" {
			t.Errorf("%s: got %q, want %q", tt.how, got, want)
		}
	}
	if c, err := e.Counters(run); err != nil || c.Refused["no-rule"] == 0 {
		t.Errorf("counters %+v, %v", c, err)
	}
}

// TestSourceRouteIsRefused: the address that is asked for is allowed, but the
// packet goes somewhere else first.
func TestSourceRouteIsRefused(t *testing.T) {
	e := newTestEnv(t)
	cgroup, run := e.newRun(t, "run_a", false)
	for _, how := range []string{"source route udp", "source route tcp"} {
		r := receive(t, how[len(how)-3:]+"4", "192.0.2.1:0")
		port := netip.MustParseAddrPort(r.addr).Port()
		e.allow(t, run, ports(port, port), "192.0.2.1/32")
		control := in(t, "", "evade", how, r.addr, "198.51.100.9:9")
		if strings.HasPrefix(control, "option") {
			t.Skipf("this kernel does not take a source route from a program: %s", control)
		}
		before, err := e.Counters(run)
		if err != nil {
			t.Fatal(err)
		}
		if got := in(t, cgroup, "evade", how, r.addr, "198.51.100.9:9"); got == "ok" {
			t.Errorf("%s: sent (unconfined: %q)", how, control)
		}
		if c, err := e.Counters(run); err != nil || c.Refused["no-rule"] == before.Refused["no-rule"] {
			t.Errorf("%s: counters %+v, %v", how, c, err)
		}
	}
}

// TestNobodyAsksInAnothersName: who asks the name server is known by the socket
// that its answer reaches, not by the source that a datagram claims.
func TestNobodyAsksInAnothersName(t *testing.T) {
	e := newTestEnv(t)
	victim, run := e.newRun(t, "run_a", false)
	attacker, attackerRun := e.newRun(t, "run_b", false)
	e.openDoors(t)
	asker := start(t, victim, "asker", "203.0.113.53:53")
	own := func() string {
		t.Helper()
		asker.say(t, "ask")
		return asker.line(t)
	}
	local, answer, _ := strings.Cut(own(), " ")
	if answer != runWord(run) {
		t.Fatalf("control: the asker at %s is taken for %q", local, answer)
	}
	if got := in(t, attacker, "impersonate", local, "203.0.113.53:53"); got != "EPERM" {
		t.Errorf("asking from %s: got %q, want EPERM", local, got)
	}
	if got := own(); got != local+" "+runWord(run) {
		t.Errorf("the asker is now taken for %q", got)
	}
	// The answer to a question in a host program's name would reach that program.
	host := receive(t, "udp4", "127.0.0.1:0")
	if got := in(t, attacker, "impersonate", host.addr, "203.0.113.53:53"); got != "EPERM" {
		t.Errorf("asking from %s: got %q, want EPERM", host.addr, got)
	}
	if n := host.settle(); n != 0 {
		t.Errorf("%d answers reached the host's program", n)
	}
	if c, err := e.Counters(attackerRun); err != nil || c.Refused["peer-foreign"] != 2 {
		t.Errorf("counters %+v, %v", c, err)
	}
}

// TestSocketStaysItsRuns: a socket that comes into another run's hands is judged
// by the rules of the run that it was born in, and by none once that has ended.
func TestSocketStaysItsRuns(t *testing.T) {
	e := newTestEnv(t)
	first, firstRun := e.newRun(t, "run_a", false)
	second, secondRun := e.newRun(t, "run_b", false)
	r := receive(t, "udp4", "192.0.2.1:0")
	port := netip.MustParseAddrPort(r.addr).Port()
	e.allow(t, secondRun, ports(port, port), "192.0.2.1/32")
	p := start(t, first, "late", r.addr)
	p.expect(t, "ready")
	for _, step := range []struct {
		what, want string
		do         func() error
	}{
		{"unlisted in its own run", "EPERM", func() error { return nil }},
		{"in the hands of a run that may", "EPERM", func() error { return p.moveTo(second) }},
		{"control: its own run may", "ok", func() error { e.allow(t, firstRun, ports(port, port), "192.0.2.1/32"); return nil }},
		{"its own run has ended", "EPERM", func() error { return e.RemoveRun(firstRun) }},
	} {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		p.say(t, "go")
		if got := p.line(t); got != step.want {
			t.Errorf("%s: got %q, want %q", step.what, got, step.want)
		}
	}
	if n := r.settle(); n != 1 {
		t.Errorf("%d arrived, want the control", n)
	}
}

// TestFailedConnectLeavesNoIdentity: the port of a connection that failed is free
// for anybody, also while the socket that had it is open.
func TestFailedConnectLeavesNoIdentity(t *testing.T) {
	e := newTestEnv(t)
	cgroup, run := e.newRun(t, "run_a", false)
	visitors, d := e.openDoors(t)
	away := d
	away.TCP4 = closedPort(t)
	if err := e.SetDoors(away); err != nil {
		t.Fatal(err)
	}
	p := start(t, cgroup, "keep", "169.254.170.2:80")
	p.expect(t, "ECONNREFUSED")
	if err := e.SetDoors(d); err != nil {
		t.Fatal(err)
	}
	var key abiVarvelRedirectKey
	var origin abiVarvelOrigin
	if !e.objects.maps["redirects"].Iterate().Next(&key, &origin) {
		return // nothing is left that somebody could find
	}
	t.Errorf("port %d still stands for run %d", key.Port, origin.Run)
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(key.Port)}}
	c, err := dialer.Dial("tcp4", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), d.TCP4).String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if v := next(t, visitors); v.err == nil {
		t.Errorf("an outsider was taken for run %d (%d)", v.run, run)
	}
}

// closedPort is a port of 127.0.0.1 at which nobody listens.
func closedPort(t testing.TB) uint16 {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

// TestConnectedPairOnLoopback: both ends are the run's, and each is connected to
// the other.
func TestConnectedPairOnLoopback(t *testing.T) {
	e := newTestEnv(t)
	cgroup, _ := e.newRun(t, "run_a", false)
	for _, tt := range [][2]string{{"udp4", "127.0.0.1:0"}, {"udp6", "[::1]:0"}} {
		if got := in(t, "", "pair", tt[0], tt[1]); got != "ok" {
			t.Fatalf("%s, control: %q", tt[0], got)
		}
		if got := in(t, cgroup, "pair", tt[0], tt[1]); got != "ok" {
			t.Errorf("%s: %q", tt[0], got)
		}
	}
}
