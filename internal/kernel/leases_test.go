package kernel

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/varvel/varvel/internal/ruleset"
)

func (e *testEnv) lease(t testing.TB, run uint64, address string, protocol ruleset.Protocol, period time.Duration) {
	t.Helper()
	ap := netip.MustParseAddrPort(address)
	ports := []ruleset.PortRange{{First: ap.Port(), Last: ap.Port(), Protocol: protocol}}
	if err := e.Lease(run, ap.Addr(), ports, period); err != nil {
		t.Fatal(err)
	}
}

func (e *testEnv) withdraw(t testing.TB, run uint64, address string, protocol ruleset.Protocol) {
	t.Helper()
	ap := netip.MustParseAddrPort(address)
	ports := []ruleset.PortRange{{First: ap.Port(), Last: ap.Port(), Protocol: protocol}}
	if err := e.Withdraw(run, ap.Addr(), ports); err != nil {
		t.Fatal(err)
	}
}

func TestExpiredLeaseIsRefusedByName(t *testing.T) {
	e := newTestEnv(t)
	cgroup, run := e.newRun(t, "run_lease", false)
	events := e.collect(t)
	for i, d := range destinations() {
		r := receive(t, d.network, d.listen)
		network, address := d.target(r)
		protocol := ruleset.TCP
		if strings.HasPrefix(d.network, "udp") {
			protocol = ruleset.UDP
		}
		e.lease(t, run, r.addr, protocol, time.Hour)
		if got := in(t, cgroup, "dial", network, address); !strings.HasPrefix(got, "ok") {
			t.Errorf("%s leased: %q", d.name, got)
		}
		e.lease(t, run, r.addr, protocol, 0)
		if got := in(t, cgroup, "dial", network, address); got != "EPERM" {
			t.Errorf("%s expired: %q, want EPERM", d.name, got)
		}
		ev := expectEvent(t, events, func(ev Event) bool { return ev.Kind == EventDenied })
		if ev.CgroupID != run || ev.Reason != "lease-expired" || ev.Address != netip.MustParseAddrPort(r.addr) {
			t.Errorf("%s: event %+v", d.name, ev)
		}
		if c, err := e.Counters(run); err != nil || c.Refused["lease-expired"] != uint64(i+1) || c.Total() != uint64(i+1) {
			t.Errorf("%s: counters %+v, %v", d.name, c, err)
		}
		if got := in(t, "", "dial", network, address); !strings.HasPrefix(got, "ok") {
			t.Errorf("%s control, unconfined: %q", d.name, got)
		}
		if n := r.settle(); n != 2 {
			t.Errorf("%s: %d arrived, want the leased one and the control", d.name, n)
		}
	}
}

// The clock is the kernel's: nobody in user space ends the lease.
func TestLeaseExpiresByItself(t *testing.T) {
	e := newTestEnv(t)
	cgroup, run := e.newRun(t, "run_lease", false)
	r := receive(t, "tcp4", "192.0.2.1:0")
	e.lease(t, run, r.addr, ruleset.TCP, 400*time.Millisecond)
	waitFor(t, "the lease to expire", func() bool { return in(t, cgroup, "dial", "tcp4", r.addr) == "EPERM" })
	c, err := e.Counters(run)
	if err != nil || c.Refused["lease-expired"] == 0 {
		t.Errorf("counters %+v, %v", c, err)
	}
	e.lease(t, run, r.addr, ruleset.TCP, time.Hour)
	if got := in(t, cgroup, "dial", "tcp4", r.addr); !strings.HasPrefix(got, "ok") {
		t.Errorf("renewed: %q", got)
	}
}

func TestLeaseEndsButWhatItOpenedGoesOn(t *testing.T) {
	e := newTestEnv(t)
	cgroup, run := e.newRun(t, "run_lease", false)
	r := receive(t, "tcp4", "192.0.2.1:0")
	e.lease(t, run, r.addr, ruleset.TCP, time.Hour)
	talker := start(t, cgroup, "talk", r.addr)
	talker.say(t, "one")
	waitFor(t, "the first line", func() bool { return r.received.Load() == 4 })
	e.lease(t, run, r.addr, ruleset.TCP, 0)
	talker.say(t, "two")
	waitFor(t, "a line after the lease", func() bool { return r.received.Load() == 8 })
	e.allow(t, run, ports(1, 1), "198.51.100.1/32") // every socket is judged again
	talker.say(t, "six")
	waitFor(t, "a line after the socket was judged again", func() bool { return r.received.Load() == 12 })
	if got := in(t, cgroup, "dial", "tcp4", r.addr); got != "EPERM" {
		t.Errorf("a new connection: %q, want EPERM", got)
	}
	e.withdraw(t, run, r.addr, ruleset.TCP)
	talker.say(t, "ten")
	if r.settle(); r.received.Load() != 12 {
		t.Errorf("%d bytes arrived, one line after the lease was withdrawn", r.received.Load())
	}
	if c, err := e.Counters(run); err != nil || c.Refused["stale"] == 0 {
		t.Errorf("counters %+v, %v", c, err)
	}
}

func TestLeasedDatagramsGoOn(t *testing.T) {
	e := newTestEnv(t)
	cgroup, run := e.newRun(t, "run_lease", false)
	r, other := receive(t, "udp4", "192.0.2.1:0"), receive(t, "udp4", "192.0.2.1:0")
	e.lease(t, run, r.addr, ruleset.UDP, time.Hour)
	e.lease(t, run, other.addr, ruleset.UDP, 0)
	old, young := start(t, cgroup, "stream", "udp4"), start(t, cgroup, "stream", "udp4")
	send := func(p *process, to, want string) {
		t.Helper()
		p.say(t, to)
		p.expect(t, want)
	}
	send(old, r.addr, "ok")
	e.lease(t, run, r.addr, ruleset.UDP, 0)
	send(old, r.addr, "ok")
	send(young, r.addr, "EPERM")   // a socket that it has not opened anything for
	send(old, other.addr, "EPERM") // nor the same socket elsewhere
	send(old, r.addr, "ok")        // a refusal takes nothing away
	e.allow(t, run, ports(1, 1), "198.51.100.1/32")
	send(old, r.addr, "ok")
	waitFor(t, "what was sent", func() bool { return r.arrived.Load() == 4 })
	e.withdraw(t, run, r.addr, ruleset.UDP)
	send(old, r.addr, "EPERM")
	if n := r.settle(); n != 4 || other.settle() != 0 {
		t.Errorf("%d and %d arrived, want 4 and 0", n, other.settle())
	}
}

// Resolvers connect UDP sockets to what they were answered, at any port; glibc at
// the service's, musl at 65535, Go at 53. It is neither refused nor told, and
// sends nothing.
func TestRouteProbesAreSilent(t *testing.T) {
	e := newTestEnv(t)
	cgroup, run := e.newRun(t, "run_lease", false)
	e.openDoors(t)
	events := e.collect(t)
	tcp4, tcp6 := receive(t, "udp4", "192.0.2.1:0"), receive(t, "udp6", "[2001:db8::1]:0")
	for _, r := range []*receiver{tcp4, tcp6} {
		e.lease(t, run, r.addr, ruleset.TCP, time.Hour)
		addr := netip.MustParseAddrPort(r.addr).Addr()
		network := "udp4"
		if addr.Is6() {
			network = "udp6"
		}
		for _, port := range []uint16{0, netip.MustParseAddrPort(r.addr).Port(), 443, 65535} {
			got := in(t, cgroup, "route", network, netip.AddrPortFrom(addr, port).String())
			if control := in(t, "", "route", network, netip.AddrPortFrom(addr, port).String()); got != control {
				t.Errorf("probe of %s port %d: %q, unconfined %q", addr, port, got, control)
			}
		}
		if got := in(t, cgroup, "route", network, netip.AddrPortFrom(addr, 53).String()); !strings.HasPrefix(got, "ok") {
			t.Errorf("probe at port 53: %q", got)
		}
		e.lease(t, run, r.addr, ruleset.TCP, 0) // what was answered stays answered
		if got := in(t, cgroup, "route", network, netip.AddrPortFrom(addr, 443).String()); !strings.HasPrefix(got, "ok") {
			t.Errorf("probe after the lease: %q", got)
		}
	}
	for _, synthetic := range []string{"198.18.0.5", "fd56:6172:7665:6c00::5"} {
		addr := netip.MustParseAddr(synthetic)
		if err := e.AllowName(run, addr, []ruleset.PortRange{{First: 443, Last: 443, Protocol: ruleset.TCP}}); err != nil {
			t.Fatal(err)
		}
		network := "udp4"
		if addr.Is6() {
			network = "udp6"
		}
		for _, port := range []uint16{0, 53, 443, 65535} {
			got := in(t, cgroup, "route", network, netip.AddrPortFrom(addr, port).String())
			if control := in(t, "", "route", network, netip.AddrPortFrom(addr, port).String()); got != control {
				t.Errorf("probe of %s port %d: %q, unconfined %q", addr, port, got, control)
			}
		}
	}
	if c, err := e.Counters(run); err != nil || c.Total() != 0 {
		t.Errorf("probes were counted: %+v, %v", c, err)
	}
	// Control: what is sent is judged, and an address that nobody answered is refused.
	if got := in(t, cgroup, "dial", "udp4", tcp4.addr); got != "write EPERM" {
		t.Errorf("a datagram after a probe: %q", got)
	}
	if got := in(t, cgroup, "route", "udp4", "192.0.2.77:443"); got != "EPERM" {
		t.Errorf("an address that was never answered: %q", got)
	}
	first := expectEvent(t, events, func(ev Event) bool { return ev.Kind == EventDenied })
	if first.Hook != "egress" || first.Reason != "no-rule" || first.Address != netip.MustParseAddrPort(tcp4.addr) {
		t.Errorf("the first refusal is %+v; a probe was refused", first)
	}
	if tcp4.settle()+tcp6.settle() != 0 {
		t.Error("a datagram arrived")
	}
}

func TestLeasesAreListedAndEndWithTheRun(t *testing.T) {
	e := newTestEnv(t)
	path, id, err := e.cgroups.Create("run_gone")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeCgroup(t, path) })
	if err := e.AddRun(id, false); err != nil {
		t.Fatal(err)
	}
	_, other := e.newRun(t, "run_other", false)
	before, err := sinceBoot()
	if err != nil {
		t.Fatal(err)
	}
	e.lease(t, id, "192.0.2.1:443", ruleset.TCP, time.Hour)
	e.lease(t, id, "[2001:db8::1]:3478", ruleset.UDP, 0)
	e.lease(t, other, "192.0.2.1:443", ruleset.TCP, time.Hour)
	got, err := e.Leases(id)
	if err != nil || len(got) != 2 {
		t.Fatalf("leases %+v, %v", got, err)
	}
	for _, l := range got {
		if l.Protocol == ruleset.TCP && (l.Address.String() != "192.0.2.1:443" || l.Expires < before+time.Hour) ||
			l.Protocol == ruleset.UDP && l.Address.String() != "[2001:db8::1]:3478" {
			t.Errorf("lease %+v", l)
		}
	}
	// A daemon that starts again knows nothing but the map.
	e.leases = nil
	e.lease(t, other, "192.0.2.1:443", ruleset.TCP, time.Hour)
	if err := e.RestoreLeases(); err != nil {
		t.Fatal(err)
	}
	if err := e.RemoveRun(id); err != nil {
		t.Fatal(err)
	}
	if n := e.entries(t); n != 2 { // the other run's, and the mark of its address
		t.Errorf("%d entries are left", n)
	}
	e.withdraw(t, other, "192.0.2.1:443", ruleset.TCP)
	if n := e.entries(t); n != 0 {
		t.Errorf("%d entries are left", n)
	}
}

// entries counts what is in the kernel's table of leases.
func (e *testEnv) entries(t *testing.T) int {
	t.Helper()
	var key abiVarvelNameKey
	var value abiVarvelLease
	n := 0
	all := e.objects.maps["leases"].Iterate()
	for all.Next(&key, &value) {
		n++
	}
	if err := all.Err(); err != nil && !errors.Is(err, ebpf.ErrIterationAborted) {
		t.Fatal(err)
	}
	return n
}
