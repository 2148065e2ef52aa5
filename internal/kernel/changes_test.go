package kernel

import (
	"net/netip"
	"testing"
	"time"
)

// manyRuns makes so many runs known that have no cgroup.
func (e *testEnv) manyRuns(t testing.TB, count int) []uint64 {
	t.Helper()
	ids := make([]uint64, count)
	for i := range ids {
		ids[i] = 1<<50 + uint64(i)
		if err := e.AddRun(ids[i], false); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		for _, id := range ids {
			if err := e.RemoveRun(id); err != nil && !e.ended {
				t.Error(err)
			}
		}
	})
	return ids
}

// TestThousandRunsShareTheirRules: and a change for all of them has open sockets
// judged anew once.
func TestThousandRunsShareTheirRules(t *testing.T) {
	e := newTestEnv(t)
	ids := e.manyRuns(t, 1000)
	for i, id := range []string{"first", "second"} {
		before := e.node.Generation
		c := e.Begin()
		for _, run := range ids {
			if err := e.LoadRuleSet(oneRule(id, uint16(1+i))); err != nil {
				t.Fatal(err)
			}
			if err := c.UseRuleSet(run, id); err != nil {
				t.Fatal(err)
			}
		}
		if e.node.Generation != before {
			t.Errorf("open sockets were judged anew before the end")
		}
		// The old set may be in open sockets, so it must not be unloaded yet.
		if err := e.sets.sweep(time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		if len(e.sets.byID) != 1+i {
			t.Errorf("%d rule sets are loaded while sockets are judged by %d", len(e.sets.byID), 1+i)
		}
		if err := c.End(); err != nil {
			t.Fatal(err)
		}
		if e.node.Generation != before+1 {
			t.Errorf("the generation has grown by %d for 1,000 runs", e.node.Generation-before)
		}
		if err := e.sets.sweep(time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		if len(e.sets.byID) != 1 || len(e.sets.ports.known) != 1 {
			t.Errorf("1,000 runs with equal rules have %d rule sets and %d port sets", len(e.sets.byID), len(e.sets.ports.known))
		}
	}
	if users := e.sets.byID["second"].users; users != len(ids) {
		t.Errorf("the rule set has %d users", users)
	}
	before := e.node.Generation
	c := e.Begin()
	if err := c.UseRuleSet(ids[0], "second"); err != nil {
		t.Fatal(err)
	}
	if err := c.PruneNames(ids[0], func(netip.AddrPort) bool { return false }); err != nil {
		t.Fatal(err)
	}
	if err := c.End(); err != nil || e.node.Generation != before {
		t.Errorf("a change of nothing had sockets judged anew: %v", err)
	}
}

// TestRevokeDoesNotWaitForChanges: nor is it undone by their end.
func TestRevokeDoesNotWaitForChanges(t *testing.T) {
	e := newTestEnv(t)
	ids := e.manyRuns(t, 2)
	if err := e.LoadRuleSet(oneRule("first", 1)); err != nil {
		t.Fatal(err)
	}
	c := e.Begin()
	for _, run := range ids {
		if err := c.UseRuleSet(run, "first"); err != nil {
			t.Fatal(err)
		}
	}
	before := e.node.Generation
	if err := e.Revoke(ids[0]); err != nil {
		t.Fatal(err)
	}
	if e.node.Generation == before {
		t.Error("what a revoked run has open is not judged anew")
	}
	if err := c.End(); err != nil {
		t.Fatal(err)
	}
	if e.runs[ids[0]].Ruleset != 0 || e.runs[ids[1]].Ruleset == 0 {
		t.Errorf("the runs have the rule sets %d and %d", e.runs[ids[0]].Ruleset, e.runs[ids[1]].Ruleset)
	}
}
