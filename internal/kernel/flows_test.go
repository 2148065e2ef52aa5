package kernel

import (
	"net/netip"
	"os/exec"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/varvel/varvel/internal/ruleset"
)

// flowsOf reads what was reached, and returns what one run did, by destination.
func (e *testEnv) flowsOf(t *testing.T, run uint64) map[string]uint64 {
	t.Helper()
	all, err := e.TakeFlows()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]uint64{}
	for _, f := range all {
		if f.First == 0 || f.Last < f.First {
			t.Errorf("times of %+v", f)
		}
		if f.CgroupID == run {
			got[protocolOf(f.Protocol)+" "+f.To.String()] += f.Count
		}
	}
	return got
}

func protocolOf(p uint8) string {
	if p == uint8(ruleset.UDP) {
		return "udp"
	}
	return "tcp"
}

func TestFlowsAreCounted(t *testing.T) {
	e := newTestEnv(t)
	cgroup, run := e.newRun(t, "run_a", false)
	tcp4, tcp6 := receive(t, "tcp4", "192.0.2.1:0"), receive(t, "tcp6", "[2001:db8::1]:0")
	udp4, denied := receive(t, "udp4", "192.0.2.1:0"), receive(t, "udp4", "192.0.2.1:0")
	var set []ruleset.PortRange
	for _, r := range []*receiver{tcp4, tcp6, udp4} {
		port := netip.MustParseAddrPort(r.addr).Port()
		set = append(set, ports(port, port)...)
	}
	e.allow(t, run, set, "192.0.2.1/32", "2001:db8::1/128")
	for range 3 {
		in(t, cgroup, "dial", "tcp4", tcp4.addr)
	}
	in(t, cgroup, "dial", "tcp6", tcp6.addr)
	in(t, cgroup, "again", "connected", udp4.addr, "5")
	in(t, cgroup, "again", "unconnected", udp4.addr, "5")
	in(t, cgroup, "self", "127.0.0.1:0")
	if got := in(t, cgroup, "again", "unconnected", denied.addr, "5"); got != "EPERM" {
		t.Errorf("what is not listed: %q", got)
	}
	want := map[string]uint64{"tcp " + tcp4.addr: 3, "tcp " + tcp6.addr: 1, "udp " + udp4.addr: 2}
	if diff := cmp.Diff(want, e.flowsOf(t, run)); diff != "" {
		t.Error(diff)
	}
	if got := e.flowsOf(t, run); len(got) != 0 {
		t.Errorf("told twice: %v", got)
	}
	if c, err := e.Counters(run); err != nil || c.Flows != 6 || c.FlowsUntold != 0 {
		t.Errorf("counters %+v, %v", c, err)
	}
}

// TestFlowIsKnownAgainAfterAReload: the same destination under new rules is not a
// new one.
func TestFlowIsKnownAgainAfterAReload(t *testing.T) {
	e := newTestEnv(t)
	cgroup, run := e.newRun(t, "run_a", false)
	r := receive(t, "tcp4", "192.0.2.1:0")
	port := netip.MustParseAddrPort(r.addr).Port()
	e.allow(t, run, ports(port, port), "192.0.2.1/32")
	talker := start(t, cgroup, "talk", r.addr)
	for i, prefix := range []string{"192.0.2.0/24", "192.0.2.0/25"} {
		talker.say(t, "hello")
		waitFor(t, "the line to arrive", func() bool { return r.received.Load() >= int64(6*(i+1)) })
		e.allow(t, run, ports(port, port), prefix)
	}
	talker.say(t, "hello")
	waitFor(t, "the last line to arrive", func() bool { return r.received.Load() >= 18 })
	if got := e.flowsOf(t, run)["tcp "+r.addr]; got != 1 {
		t.Errorf("counted %d times", got)
	}
}

// TestFlowsOfOneRunLeaveRoom: a run that goes to very many destinations has its
// flows counted, not all told, and another's are told.
func TestFlowsOfOneRunLeaveRoom(t *testing.T) {
	e := newTestEnv(t)
	// Addresses of this machine, so that nobody has to be asked where they are.
	if out, err := exec.Command("ip", "route", "add", "local", "198.51.0.0/16", "dev", "lo").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	loud, loudRun := e.newRun(t, "run_loud", false)
	quiet, quietRun := e.newRun(t, "run_quiet", false)
	for _, run := range []uint64{loudRun, quietRun} {
		e.allow(t, run, ports(9, 9), "198.51.0.0/16")
	}
	if got := in(t, loud, "spray", "198.51.0.0/16", "20000"); got != "sent 20000" {
		t.Fatal(got)
	}
	if got := in(t, quiet, "spray", "198.51.0.0/16", "10"); got != "sent 10" {
		t.Fatal(got)
	}
	all, err := e.TakeFlows()
	if err != nil {
		t.Fatal(err)
	}
	told := map[uint64]uint64{}
	for _, f := range all {
		told[f.CgroupID] += f.Count
	}
	c, err := e.Counters(loudRun)
	if err != nil || c.Flows != 20000 || c.FlowsUntold == 0 || told[loudRun]+c.FlowsUntold != c.Flows {
		t.Errorf("counters %+v, %v; told %d", c, err, told[loudRun])
	}
	if told[quietRun] != 10 {
		t.Errorf("told %d of the quiet run, want 10", told[quietRun])
	}
}
