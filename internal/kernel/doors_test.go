package kernel

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/varvel/varvel/internal/ruleset"
)

var tcp443 = []ruleset.PortRange{{First: 443, Last: 443, Protocol: ruleset.TCP}}

// visitor is what a door learned about one connection.
type visitor struct {
	run uint64
	dst netip.AddrPort
	err error
}

// openDoors opens the doors of a daemon and returns what comes to the TCP ones.
func (e *testEnv) openDoors(t testing.TB) (visitors chan visitor, d Doors) {
	t.Helper()
	visitors = make(chan visitor, 16)
	door := func(address string) uint16 {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				run, _, dst, err := e.Attribute(c.(*net.TCPConn))
				visitors <- visitor{run, dst, err}
				go func() {
					io.Copy(io.Discard, c) // until the visitor has gone
					c.Close()
				}()
			}
		}()
		return uint16(l.Addr().(*net.TCPAddr).Port)
	}
	d = Doors{TCP4: door("127.0.0.1:0"), TCP6: door("[::1]:0"), UDP4: e.openDNS(t, "127.0.0.1:0"), UDP6: e.openDNS(t, "[::1]:0")}
	if err := e.SetDoors(d); err != nil {
		t.Fatal(err)
	}
	return visitors, d
}

// openDNS answers each datagram of a run with the run's id, and others not at all.
func (e *testEnv) openDNS(t testing.TB, address string) uint16 {
	t.Helper()
	c, err := net.ListenPacket("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		buf := make([]byte, 512)
		for {
			_, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			remote := from.(*net.UDPAddr).AddrPort()
			if run, ok := e.PeerOf(netip.AddrPort{}, remote); ok {
				c.WriteTo([]byte(runWord(run)), from)
			}
		}
	}()
	return uint16(c.LocalAddr().(*net.UDPAddr).Port)
}

// next is the next visitor, or one with an error if none comes.
func next(t testing.TB, visitors <-chan visitor) visitor {
	t.Helper()
	select {
	case v := <-visitors:
		return v
	case <-time.After(3 * time.Second):
		return visitor{err: errors.New("nobody came")}
	}
}

func runWord(run uint64) string { return "run" + string(rune('0'+run%10)) }

func TestNamesGoThroughTheDoor(t *testing.T) {
	e := newTestEnv(t)
	cgroup, run := e.newRun(t, "run_a", false)
	other, _ := e.newRun(t, "run_b", false)
	visitors, _ := e.openDoors(t)
	for _, address := range []string{"198.18.0.7", "fd56:6172:7665:6c00::7"} {
		if err := e.AllowName(run, netip.MustParseAddr(address), tcp443); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct{ network, dial, dst string }{
		{"tcp4", "198.18.0.7:443", "198.18.0.7:443"},
		{"tcp6", "[fd56:6172:7665:6c00::7]:443", "[fd56:6172:7665:6c00::7]:443"},
		{"tcp6", "[::ffff:198.18.0.7]:443", "198.18.0.7:443"},
		{"tcp4", "169.254.170.2:80", "169.254.170.2:80"},
		{"tcp6", "[fd00:ec2::23]:80", "[fd00:ec2::23]:80"},
		{"tcp4", "203.0.113.9:53", "203.0.113.9:53"},
	} {
		got := in(t, cgroup, "dial", tt.network, tt.dial)
		if want := "ok " + tt.dial; got != want {
			t.Errorf("%s: got %q; getpeername must say %q", tt.dial, got, want)
		}
		v := next(t, visitors)
		if v.err != nil || v.run != run || v.dst.String() != tt.dst {
			t.Errorf("%s: the door saw %+v, want run %d and %s", tt.dial, v, run, tt.dst)
		}
	}
	for _, tt := range []struct{ cgroup, network, dial string }{
		{cgroup, "tcp4", "198.18.0.7:444"},
		{cgroup, "tcp4", "198.18.0.8:443"},
		{cgroup, "udp4", "198.18.0.7:443"},
		{cgroup, "tcp4", "169.254.170.2:81"},
		{cgroup, "tcp4", "169.254.169.254:80"},
		{other, "tcp4", "198.18.0.7:443"},
	} {
		if got := in(t, tt.cgroup, "dial", tt.network, tt.dial); !strings.Contains(got, "EPERM") {
			t.Errorf("%s %s: got %q, want EPERM", tt.network, tt.dial, got)
		}
	}
	if len(visitors) != 0 {
		t.Errorf("%d uninvited connections came", len(visitors))
	}
}

func TestDoorKnowsOutsiders(t *testing.T) {
	e := newTestEnv(t)
	cgroup, _ := e.newRun(t, "run_a", false)
	visitors, d := e.openDoors(t)
	door := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), d.TCP4).String()
	if got := in(t, "", "dial", "tcp4", door); !strings.HasPrefix(got, "ok") {
		t.Fatalf("outsider: %q", got)
	}
	if v := next(t, visitors); !errors.Is(v.err, ErrNotRedirected) {
		t.Errorf("outsider was taken for %+v", v)
	}
	if got := in(t, cgroup, "dial", "tcp4", door); got != "EPERM" {
		t.Errorf("a run that dials the door itself: %q, want EPERM", got)
	}
	for _, address := range []string{door, "0.0.0.0" + door[len("127.0.0.1"):], "[::]" + door[len("127.0.0.1"):]} {
		if got := in(t, cgroup, "bind", "tcp", address); got != "EPERM" {
			t.Errorf("bind to the door's port at %s: %q, want EPERM", address, got)
		}
	}
}

func TestQuestionsGoToTheNameServer(t *testing.T) {
	e := newTestEnv(t)
	cgroup, run := e.newRun(t, "run_a", false)
	e.openDoors(t)
	for _, how := range []string{"connected", "unconnected"} {
		for _, server := range []string{"203.0.113.53:53", "127.0.0.53:53", "[2001:db8::53]:53", "[::1]:53"} {
			want := runWord(run) + " from " + server
			if got := in(t, cgroup, "query", how, server); got != want {
				t.Errorf("%s %s: got %q, want %q", how, server, got, want)
			}
		}
	}
	var key abiVarvelRedirectKey
	var origin abiVarvelOrigin
	waitFor(t, "the entries of closed sockets to go", func() bool {
		return !e.objects.maps["redirects"].Iterate().Next(&key, &origin)
	})
}

func TestLoopbackIsTheRunsOwn(t *testing.T) {
	e := newTestEnv(t)
	cgroup, run := e.newRun(t, "run_a", false)
	host4, host6 := receive(t, "tcp4", "127.0.0.1:0"), receive(t, "tcp6", "[::1]:0")
	hostUDP := receive(t, "udp4", "127.0.0.1:0")
	for _, tt := range []struct {
		network, address string
		r                *receiver
	}{
		{"tcp4", host4.addr, host4}, {"tcp6", host6.addr, host6}, {"udp4", hostUDP.addr, hostUDP},
		{"tcp4", "0.0.0.0:" + portOf(host4), host4}, {"tcp6", "[::ffff:127.0.0.1]:" + portOf(host4), host4},
		{"tcp4", "127.0.0.2:" + portOf(receive(t, "tcp4", "0.0.0.0:0")), nil},
	} {
		if got := in(t, cgroup, "dial", tt.network, tt.address); !strings.Contains(got, "EPERM") {
			t.Errorf("%s %s: got %q, want EPERM", tt.network, tt.address, got)
		}
		if tt.r != nil && tt.r.settle() != 0 {
			t.Errorf("%s %s: it arrived", tt.network, tt.address)
		}
	}
	if got := in(t, "", "dial", "tcp4", host4.addr); !strings.HasPrefix(got, "ok") {
		t.Errorf("control: %q", got)
	}
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		if got := in(t, cgroup, "self", address); got != "ok welcome" {
			t.Errorf("own listener at %s: %q", address, got)
		}
	}
	if got := in(t, cgroup, "dial", "tcp4", "127.0.0.1:9"); got != "ECONNREFUSED" {
		t.Errorf("no listener: %q, want ECONNREFUSED", got)
	}
	if c, err := e.Counters(run); err != nil || c.Refused["loopback-foreign"] == 0 {
		t.Errorf("counters %+v, %v", c, err)
	}
}

func TestOutsiderCannotReachARunsListener(t *testing.T) {
	e := newTestEnv(t)
	cgroup, _ := e.newRun(t, "run_a", false)
	l := start(t, cgroup, "serve", "127.0.0.1:4711")
	l.expect(t, "listening")
	c, err := net.DialTimeout("tcp", "127.0.0.1:4711", 300*time.Millisecond)
	if err == nil {
		c.Close()
		t.Error("a process outside the run reached its listener")
	}
}

func TestPrunedNamesAreRefused(t *testing.T) {
	e := newTestEnv(t)
	cgroup, run := e.newRun(t, "run_a", false)
	visitors, _ := e.openDoors(t)
	for _, address := range []string{"198.18.0.7", "198.18.0.8"} {
		if err := e.AllowName(run, netip.MustParseAddr(address), tcp443); err != nil {
			t.Fatal(err)
		}
	}
	talker := start(t, cgroup, "talk", "198.18.0.7:443")
	if v := next(t, visitors); v.err != nil {
		t.Fatal(v.err)
	}
	keep := netip.MustParseAddrPort("198.18.0.8:443")
	if err := e.PruneNames(run, func(dst netip.AddrPort) bool { return dst == keep }); err != nil {
		t.Fatal(err)
	}
	if got := in(t, cgroup, "dial", "tcp4", "198.18.0.7:443"); got != "EPERM" {
		t.Errorf("the withdrawn name: %q, want EPERM", got)
	}
	if got := in(t, cgroup, "dial", "tcp4", keep.String()); !strings.HasPrefix(got, "ok") {
		t.Errorf("the other name: %q", got)
	}
	talker.say(t, "hello")
	waitFor(t, "the open connection to be refused", func() bool {
		c, err := e.Counters(run)
		return err == nil && c.Refused["stale"] > 0
	})
}

// shareable listens as a host's service does that lets others of its user join its
// port (SO_REUSEPORT, socket(7)).
func shareable(t testing.TB, network, address string) *receiver {
	t.Helper()
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
	}}
	l, err := lc.Listen(t.Context(), network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	host := &receiver{addr: l.Addr().String()}
	go host.connections(l)
	return host
}

const shareTries = "40" // none of them would reach the host once in 2^40

// TestForeignPortIsNotShared: a run can't join the port group of a host's service
// that the same user runs, and can't take its place on one of its addresses.
func TestForeignPortIsNotShared(t *testing.T) {
	e := newTestEnv(t)
	cgroup, run := e.newRun(t, "run_a", false)
	observed, watched := e.newRun(t, "run_b", true)
	for i, tt := range []struct{ network, listen, join string }{
		{"tcp4", "127.0.0.1:0", "127.0.0.1:"}, {"tcp4", "0.0.0.0:0", "127.0.0.1:"},
		{"tcp4", "127.0.0.1:0", "0.0.0.0:"}, {"tcp4", "192.0.2.1:0", "192.0.2.1:"},
		{"tcp6", "[::1]:0", "[::1]:"}, {"tcp6", "[::]:0", "[::]:"},
		{"tcp", "[::]:0", "127.0.0.1:"}, {"tcp6", "[2001:db8::1]:0", "[2001:db8::1]:"},
	} {
		host := shareable(t, tt.network, tt.listen)
		join := tt.join + portOf(host)
		if got := in(t, cgroup, "share", join, "0"); got != "listen EADDRINUSE" {
			t.Errorf("%s beside %s: %q", join, host.addr, got)
		}
		if c, err := e.Counters(run); err != nil || c.Refused["port-foreign"] != uint64(i+1) {
			t.Errorf("%s beside %s: counters %+v, %v", join, host.addr, c, err)
		}
		for name, other := range map[string]string{"unconfined": "", "in observe": observed} {
			if got := in(t, other, "share", join, "0"); got != "listening\nok 0" {
				t.Errorf("%s, %s beside %s: %q", name, join, host.addr, got)
			}
		}
	}
	if c, err := e.Counters(watched); err != nil || c.Refused["port-foreign"] != 8 {
		t.Errorf("in observe: counters %+v, %v", c, err)
	}
	if got := in(t, cgroup, "share", "127.0.0.1:4712", "3"); got != "listening\nok 3" {
		t.Errorf("a free port: %q", got)
	}
}

// TestSharedPortDoesNotLeadOut: a host's service may join the port group of a run's
// listener. Which of the group gets a connection is known only when its port is,
// and may be chosen by a program of the run.
func TestSharedPortDoesNotLeadOut(t *testing.T) {
	e := newTestEnv(t)
	cgroup, run := e.newRun(t, "run_a", false)
	reached := func(cgroup, action, address string) int64 {
		p := start(t, cgroup, action, address, shareTries)
		p.expect(t, "listening")
		host := shareable(t, "tcp4", address)
		p.say(t, "go on")
		if line, _ := p.stdout.ReadString('\n'); !strings.HasPrefix(line, "ok ") {
			t.Errorf("%s: %q", action, line)
		}
		return host.settle()
	}
	for i, action := range []string{"share", "steer"} {
		if reached("", action, fmt.Sprintf("127.0.0.1:%d", 4713+2*i)) == 0 {
			t.Errorf("control, %s: nothing reached the host's service", action)
		}
		before, err := e.Counters(run)
		if err != nil {
			t.Fatal(err)
		}
		if n := reached(cgroup, action, fmt.Sprintf("127.0.0.1:%d", 4714+2*i)); n != 0 {
			t.Errorf("%s: %d connections reached the host's service", action, n)
		}
		if c, err := e.Counters(run); err != nil || c.Total() == before.Total() {
			t.Errorf("%s: counters %+v, %v", action, c, err)
		}
	}
}
