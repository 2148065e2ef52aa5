package kernel

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/varvel/varvel/internal/ruleset"
)

func ports(first, last uint16) []ruleset.PortRange {
	return []ruleset.PortRange{
		{First: first, Last: last, Protocol: ruleset.TCP}, {First: first, Last: last, Protocol: ruleset.UDP},
	}
}

// allow gives a run a rule set of one port set and some prefixes.
func (e *testEnv) allow(t testing.TB, run uint64, set []ruleset.PortRange, prefixes ...string) {
	t.Helper()
	id := fmt.Sprint(set, prefixes) // equal content, equal id
	rs := &ruleset.RuleSet{ID: id, PortSets: [][]ruleset.PortRange{set}}
	for _, p := range prefixes {
		rs.Entries = append(rs.Entries, ruleset.Entry{Prefix: netip.MustParsePrefix(p)})
	}
	if err := e.LoadRuleSet(rs); err != nil {
		t.Fatal(err)
	}
	if err := e.UseRuleSet(run, id); err != nil {
		t.Fatal(err)
	}
}

// collect gathers events until the test ends.
func (e *testEnv) collect(t testing.TB) <-chan Event {
	t.Helper()
	events := make(chan Event, 1024)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- e.Events(ctx, func(ev Event) { events <- ev }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return events
}

func expectEvent(t testing.TB, events <-chan Event, match func(Event) bool) Event {
	t.Helper()
	timeout := time.After(5 * time.Second)
	for {
		select {
		case ev := <-events:
			if match(ev) {
				return ev
			}
		case <-timeout:
			t.Fatal("no such event came")
		}
	}
}

type destination struct{ name, network, listen, dial string }

// destinations are all the ways to name one listener.
func destinations() []destination {
	return []destination{
		{"tcp4", "tcp4", "192.0.2.1:0", ""},
		{"tcp6", "tcp6", "[2001:db8::1]:0", ""},
		{"tcp mapped", "tcp4", "192.0.2.1:0", "mapped"},
		{"udp4", "udp4", "192.0.2.1:0", ""},
		{"udp6", "udp6", "[2001:db8::1]:0", ""},
		{"udp mapped", "udp4", "192.0.2.1:0", "mapped"},
	}
}

// target returns what to give to the dial action for a receiver.
func (d destination) target(r *receiver) (network, address string) {
	if d.dial != "mapped" {
		return d.network, r.addr
	}
	ap := netip.MustParseAddrPort(r.addr)
	return strings.TrimSuffix(d.network, "4") + "6", "[::ffff:" + ap.Addr().String() + "]:" + portOf(r)
}

func portOf(r *receiver) string {
	_, port, _ := strings.Cut(r.addr[strings.LastIndex(r.addr, ":"):], ":")
	return port
}

func TestUnlistedIsRefusedAndListedArrives(t *testing.T) {
	e := newTestEnv(t)
	cgroup, run := e.newRun(t, "run_a", false)
	events := e.collect(t)
	for _, d := range destinations() {
		e.checkDestination(t, d, "dial", cgroup, run, events)
		if strings.HasPrefix(d.network, "udp") {
			e.checkDestination(t, d, "sendto", cgroup, run, events)
		}
	}
}

// checkDestination tries one way to reach one listener: unlisted, unconfined as
// the control, and listed. It is no subtest, because the network namespace is
// this thread's.
func (e *testEnv) checkDestination(t *testing.T, d destination, action, cgroup string, run uint64, events <-chan Event) {
	t.Helper()
	r := receive(t, d.network, d.listen)
	network, address := d.target(r)
	port := netip.MustParseAddrPort(r.addr).Port()

	e.allow(t, run, ports(port+1, port+1), "192.0.2.0/24", "2001:db8::/32")
	if got := in(t, cgroup, action, network, address); got != "EPERM" {
		t.Errorf("%s %s unlisted: got %q, want EPERM", d.name, action, got)
	}
	if n := r.settle(); n != 0 {
		t.Errorf("%s %s unlisted: %d arrived", d.name, action, n)
	}
	ev := expectEvent(t, events, func(ev Event) bool { return ev.Kind == EventDenied })
	if ev.CgroupID != run || ev.Reason != "no-rule" || ev.Address != netip.MustParseAddrPort(r.addr) {
		t.Errorf("%s %s: event %+v does not name run %d and %s", d.name, action, ev, run, r.addr)
	}

	if got := in(t, "", action, network, address); !strings.HasPrefix(got, "ok") {
		t.Errorf("%s %s control, unconfined: %q", d.name, action, got)
	}
	e.allow(t, run, ports(port, port), "192.0.2.1/32", "2001:db8::/64")
	if got := in(t, cgroup, action, network, address); !strings.HasPrefix(got, "ok") {
		t.Errorf("%s %s listed: %q", d.name, action, got)
	}
	if n := r.settle(); n != 2 {
		t.Errorf("%s %s: %d arrived, want the control and the listed one", d.name, action, n)
	}
}

func TestUnknownRunIsRefused(t *testing.T) {
	e := newTestEnv(t)
	path, _, err := e.cgroups.Create("run_unknown")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeCgroup(t, path) })
	r := receive(t, "tcp4", "192.0.2.1:0")
	if got := in(t, path, "dial", "tcp4", r.addr); got != "EPERM" {
		t.Errorf("got %q, want EPERM", got)
	}
	if n := r.settle(); n != 0 {
		t.Errorf("%d arrived", n)
	}
}

func TestOtherTransportsAreRefusedAtBirth(t *testing.T) {
	e := newTestEnv(t)
	cgroup, run := e.newRun(t, "run_b", false)
	for name, args := range map[string][]string{
		"raw icmp": {"2", "3", "1"}, "raw 4": {"2", "3", "255"}, "raw 6": {"10", "3", "58"},
		"mptcp": {"2", "1", "262"}, "udplite": {"2", "2", "136"},
	} {
		control := in(t, "", "socket", args...)
		if got := in(t, cgroup, "socket", args...); got != "EPERM" {
			t.Errorf("%s: got %q, want EPERM (unconfined: %q)", name, got, control)
		}
		if control != "ok" {
			t.Logf("%s: this kernel answers %q unconfined, so the refusal proves nothing here", name, control)
		}
	}
	c, err := e.Counters(run)
	if err != nil || c.Refused["protocol"] != 5 {
		t.Errorf("counters %+v, %v; want 5 refused for their protocol", c, err)
	}
}

func TestRuleChangeReachesLiveConnections(t *testing.T) {
	e := newTestEnv(t)
	cgroup, run := e.newRun(t, "run_c", false)
	r := receive(t, "tcp4", "192.0.2.1:0")
	port := netip.MustParseAddrPort(r.addr).Port()
	e.allow(t, run, ports(port, port), "192.0.2.1/32")
	talker := start(t, cgroup, "talk", r.addr)
	talker.say(t, "one")
	waitFor(t, "the first line", func() bool { return r.received.Load() == 4 })

	e.allow(t, run, ports(port, port), "198.51.100.1/32")
	talker.say(t, "two")
	if r.settle(); r.received.Load() != 4 {
		t.Errorf("%d bytes arrived; the second line went out under rules that deny it", r.received.Load())
	}
	e.allow(t, run, ports(port, port), "192.0.2.1/32")
	waitFor(t, "the second line, when the rules allow it again", func() bool { return r.received.Load() == 8 })
}

func TestRulesHoldWithoutTheDaemon(t *testing.T) {
	e := newTestEnv(t)
	cgroup, run := e.newRun(t, "run_d", false)
	listed, unlisted := receive(t, "tcp4", "192.0.2.1:0"), receive(t, "tcp4", "192.0.2.1:0")
	port := netip.MustParseAddrPort(listed.addr).Port()
	e.allow(t, run, ports(port, port), "192.0.2.1/32")
	// What the end of the process would do: every descriptor is closed. The
	// pins remain.
	for _, l := range e.links {
		l.Close()
	}
	for _, p := range e.objects.programs {
		p.Close()
	}
	if got := in(t, cgroup, "dial", "tcp4", unlisted.addr); got != "EPERM" {
		t.Errorf("unlisted: %q", got)
	}
	if got := in(t, cgroup, "dial", "tcp4", listed.addr); !strings.HasPrefix(got, "ok") {
		t.Errorf("listed: %q", got)
	}
}

func TestObserveLetsThroughAndTells(t *testing.T) {
	e := newTestEnv(t)
	cgroup, run := e.newRun(t, "run_e", true)
	events := e.collect(t)
	r := receive(t, "tcp4", "192.0.2.1:0")
	if got := in(t, cgroup, "dial", "tcp4", r.addr); !strings.HasPrefix(got, "ok") {
		t.Errorf("observe: %q", got)
	}
	ev := expectEvent(t, events, func(ev Event) bool { return ev.Kind == EventWouldDeny })
	if ev.CgroupID != run || ev.Reason != "no-rule" {
		t.Errorf("event %+v", ev)
	}
}

func TestReconnectedSocketIsJudgedAgain(t *testing.T) {
	e := newTestEnv(t)
	cgroup, run := e.newRun(t, "run_f", false)
	listed, unlisted := receive(t, "udp4", "192.0.2.1:0"), receive(t, "udp4", "192.0.2.1:0")
	port := netip.MustParseAddrPort(listed.addr).Port()
	e.allow(t, run, ports(port, port), "192.0.2.1/32")
	if got := in(t, "", "reconnect", listed.addr, unlisted.addr); got != "ok" {
		t.Errorf("control: %q", got)
	}
	if got := in(t, cgroup, "reconnect", listed.addr, unlisted.addr); got != "EPERM" {
		t.Errorf("got %q, want EPERM", got)
	}
	if n := unlisted.settle(); n != 1 {
		t.Errorf("%d arrived, want the control only", n)
	}
}

func TestFlushWaitsForWhatWasSent(t *testing.T) {
	e := newTestEnv(t)
	cgroup, _ := e.newRun(t, "run_g", false)
	if err := e.Flush(t.Context()); err != nil {
		t.Errorf("nobody reads: %v", err)
	}
	events := e.collect(t)
	e.awaitReaders(t)
	for range 20 {
		in(t, cgroup, "dial", "tcp4", "192.0.2.1:9")
		if err := e.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		denied := 0
		for len(events) > 0 {
			if ev := <-events; ev.Kind == EventDenied {
				denied++
			}
		}
		if denied != 1 {
			t.Fatalf("%d denials were handled before Flush returned, want 1", denied)
		}
	}
}

// TestRoutingHeaderIsRefused: the socket's peer is allowed, but the packet goes
// where its routing header says.
func TestRoutingHeaderIsRefused(t *testing.T) {
	e := newTestEnv(t)
	cgroup, run := e.newRun(t, "run_h", false)
	r := receive(t, "tcp6", "[2001:db8::1]:0")
	port := netip.MustParseAddrPort(r.addr).Port()
	e.allow(t, run, ports(port, port), "2001:db8::1/128")
	control := in(t, "", "routed", r.addr)
	if strings.HasPrefix(control, "option") {
		t.Skipf("this kernel does not take a routing header from a program: %s", control)
	}
	if got := in(t, cgroup, "dial", "tcp6", r.addr); !strings.HasPrefix(got, "ok") {
		t.Errorf("without the header: %q", got)
	}
	before := r.settle()
	if got := in(t, cgroup, "routed", r.addr); got == "ok" {
		t.Error("a connection with a routing header was made")
	}
	if c, err := e.Counters(run); err != nil || c.Refused["malformed"] == 0 || r.settle() != before {
		t.Errorf("counters %+v, %v; %d arrived (unconfined: %q)", c, err, r.settle()-before, control)
	}
}

func TestLoopbackDoesNotLeaveTheMachine(t *testing.T) {
	e := newTestEnv(t)
	cgroup, run := e.newRun(t, "run_i", false)
	if control := in(t, "", "bounddev", "veth0", "127.0.0.1:0"); control != "ok" {
		t.Skipf("this kernel does not send loopback addresses through another device: %s", control)
	}
	if got := in(t, cgroup, "bounddev", "veth0", "127.0.0.1:0"); got != "EPERM" {
		t.Errorf("got %q, want EPERM", got)
	}
	if got := in(t, cgroup, "bounddev", "lo", "127.0.0.1:0"); got != "ok" {
		t.Errorf("through lo: %q", got)
	}
	if c, err := e.Counters(run); err != nil || c.Refused["loopback-foreign"] == 0 {
		t.Errorf("counters %+v, %v", c, err)
	}
}
