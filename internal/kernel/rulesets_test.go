package kernel

import (
	"net/netip"
	"testing"
	"time"

	"github.com/varvel/varvel/internal/ruleset"
)

func oneRule(id string, port uint16) *ruleset.RuleSet {
	return &ruleset.RuleSet{
		ID: id, PortSets: [][]ruleset.PortRange{ports(port, port)},
		Entries: []ruleset.Entry{{Prefix: netip.MustParsePrefix("192.0.2.1/32")}, {Prefix: netip.MustParsePrefix("2001:db8::/64")}},
	}
}

func TestRuleSetsAreSharedAndSwept(t *testing.T) {
	e := newTestEnv(t)
	_, a := e.newRun(t, "run_a", false)
	_, b := e.newRun(t, "run_b", false)
	for _, run := range []uint64{a, b} {
		e.allow(t, run, ports(1, 1), "192.0.2.1/32")
	}
	if n := len(e.sets.byID); n != 1 {
		t.Errorf("%d rule sets are loaded for two runs with equal rules", n)
	}
	// Between load and use, its last user may go: it must not be unloaded then.
	if err := e.LoadRuleSet(oneRule("next", 2)); err != nil {
		t.Fatal(err)
	}
	if err := e.sets.sweep(time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := e.UseRuleSet(a, "next"); err != nil {
		t.Errorf("a rule set that was just loaded is gone: %v", err)
	}
	e.allow(t, a, ports(3, 3), "192.0.2.1/32")
	if err := e.sets.sweep(time.Now().Add(2 * idleTime)); err != nil {
		t.Fatal(err)
	}
	if _, ok := e.sets.byID["next"]; ok || len(e.sets.byID) != 2 {
		t.Errorf("after the sweep there are %d rule sets", len(e.sets.byID))
	}
	if n := len(e.sets.ports.known); n != 2 {
		t.Errorf("%d port sets are kept for two rule sets", n)
	}
}

func TestFullTableRefusesAndLeavesNothing(t *testing.T) {
	e := newTestEnv(t)
	_, run := e.newRun(t, "run_a", false)
	rs := oneRule("wide", 1)
	for range ruleset.MaxRanges {
		rs.PortSets[0] = append(rs.PortSets[0], ruleset.PortRange{First: 9, Last: 9, Protocol: ruleset.TCP})
	}
	if err := e.LoadRuleSet(rs); err == nil {
		t.Error("a port set with too many ranges was loaded")
	}
	if len(e.sets.byIndex) != 0 || len(e.sets.ports.known) != 0 {
		t.Error("something of a refused rule set is left")
	}
	if err := e.UseRuleSet(run, "wide"); err == nil {
		t.Error("a rule set that is not loaded was used")
	}
}
