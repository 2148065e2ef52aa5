package node

import (
	"errors"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/varvel/varvel/internal/admin/health"
	"github.com/varvel/varvel/internal/audit"
	"github.com/varvel/varvel/internal/kernel"
	"github.com/varvel/varvel/internal/ruleset"
	"github.com/varvel/varvel/internal/workload"
)

// opens reports whether all of these runs may connect to an address and port by their
// rules, and fails the test if some may and some may not.
func (r *rig) opens(runs []*workload.Run, to string) bool {
	r.t.Helper()
	dst, yes := netip.MustParseAddrPort(to), 0
	for _, run := range runs {
		if plan, ok := r.egress.Plan(run.CgroupID); ok && plan.Rules.Judge(dst.Addr(), dst.Port(), ruleset.TCP) {
			yes++
		}
	}
	if yes != 0 && yes != len(runs) {
		r.t.Errorf("%d of %d runs may reach %s", yes, len(runs), to)
	}
	return yes > 0
}

func (r *rig) reload(want int) error {
	r.t.Helper()
	out, err := r.Reload(r.t.Context())
	if err == nil && out.Runs != want {
		r.t.Errorf("the reload was for %d runs instead of %d", out.Runs, want)
	}
	return err
}

// ruleSets returns the rule set events in the log, by run.
func (r *rig) ruleSets() map[string][]string {
	r.t.Helper()
	all := map[string][]string{}
	for e, err := range r.log.Query(r.t.Context(), audit.Filter{Kind: audit.KindRuleSet}) {
		if err != nil {
			r.t.Fatal(err)
		}
		all[e.Run] = append(all[e.Run], e.RuleSet)
	}
	return all
}

// TestReloadOfManyRuns changes, breaks and removes the agent of many live runs.
func TestReloadOfManyRuns(t *testing.T) {
	r := newRig(t, agentText(10, 1))
	runs := r.start("bot", 300)
	if !r.opens(runs, "198.51.0.1:1") {
		t.Fatal("control: the first rules are not in force")
	}
	synced := r.log.Stats().Syncs
	r.configure("agents.d/bot.yaml", agentText(10, 2))
	if err := r.reload(len(runs)); err != nil {
		t.Fatal(err)
	}
	if r.opens(runs, "198.51.0.1:1") || !r.opens(runs, "198.51.0.1:2") {
		t.Error("the second rules are not in force")
	}
	if n := r.log.Stats().Syncs - synced; n > uint64(len(runs))/2 {
		t.Errorf("%d calls of fsync for a reload of %d runs", n, len(runs))
	}
	recorded := r.ruleSets()
	one := runs[0] // enough to see that the event is the run's; the numbers are below
	plan, _ := r.egress.Plan(one.CgroupID)
	if all := recorded[one.ID]; !slices.Contains(all, plan.Rules.ID) {
		t.Fatalf("%s: the rule set in force is not among the recorded %q", one.ID, all)
	}
	for _, run := range runs {
		if len(recorded[run.ID]) != 2 {
			t.Fatalf("%s has %d records of two rule sets", run.ID, len(recorded[run.ID]))
		}
	}

	// A bad file changes nothing for any of them.
	r.configure("agents.d/bot.yaml", agentText(10, 3)+"nonsense: true\n")
	if err := r.reload(0); err == nil || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("a bad file: %v", err)
	}
	if !r.opens(runs, "198.51.0.1:2") || r.opens(runs, "198.51.0.1:3") {
		t.Error("a bad file has changed the rules")
	}

	// One is revoked: no reload gives it anything back.
	if err := r.kernel.Revoke(runs[0].CgroupID); err != nil {
		t.Fatal(err)
	}
	gone := *runs[0]
	gone.Revoked = true
	r.runs.Replace(&gone)
	r.configure("agents.d/bot.yaml", agentText(10, 3))
	if err := r.reload(len(runs) - 1); err != nil {
		t.Fatal(err)
	}
	if r.opens(runs[:1], "198.51.0.1:3") || !r.opens(runs[1:], "198.51.0.1:3") {
		t.Error("a revoked run has new rules, or others do not")
	}

	// The agent is gone: its runs live on and may reach nothing.
	r.configure("agents.d/bot.yaml", strings.Replace(agentText(0, 1), "bot", "other", 1))
	if err := r.reload(len(runs) - 1); err != nil {
		t.Fatal(err)
	}
	if r.opens(runs[1:], "198.51.0.1:3") {
		t.Error("runs of an agent that is gone have rules")
	}
}

// TestReloadsAtOnce: the last state of the files is in force afterwards, for runs that
// were started meanwhile too.
func TestReloadsAtOnce(t *testing.T) {
	r := newRig(t, agentText(3, 1))
	runs := r.start("bot", 50)
	r.configure("agents.d/bot.yaml", agentText(3, 2))
	old := r.Config()
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			if _, err := r.Reload(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if r.opens(runs, "198.51.0.1:1") || !r.opens(runs, "198.51.0.1:2") {
		t.Error("after four reloads at once, the rules are not those of the files")
	}
	late, err := r.newRun(old, old.Agents["bot"], 65534, []string{"true"})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.govern(t.Context(), late, true); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.release(late) }()
	if !r.opens([]*workload.Run{late}, "198.51.0.1:1") {
		t.Fatal("control: the late run does not have the old rules")
	}
	r.reapplyOne(t.Context(), late)
	if r.opens([]*workload.Run{late}, "198.51.0.1:1") || !r.opens([]*workload.Run{late}, "198.51.0.1:2") {
		t.Error("a run that was being started has the old rules")
	}
}

// TestFullTableIsTold: as long as it is full and no longer, whatever else ends.
func TestFullTableIsTold(t *testing.T) {
	r := newRig(t, agentText(1, 1))
	runs := r.start("bot", 9)
	told := func() bool {
		r.lookAtTables()
		for _, f := range r.health.Findings() {
			if f.Code == health.KernelMapFull {
				return true
			}
		}
		return false
	}
	ports := []ruleset.PortRange{{First: 1, Last: 64, Protocol: ruleset.TCP}}
	fill := func(run *workload.Run) (err error) {
		for addr := netip.MustParseAddr("198.18.128.0"); err == nil; addr = addr.Next() {
			err = r.kernel.AllowName(run.CgroupID, addr, ports)
		}
		return err
	}
	if err := fill(runs[0]); !errors.Is(err, kernel.ErrShare) || told() {
		t.Errorf("one run has its share: %v; told: %v", err, told())
	}
	for _, run := range runs[1:8] {
		_ = fill(run)
	}
	if !told() {
		t.Error("a full table is not told")
	}
	if err := r.kernel.RemoveRun(runs[8].CgroupID); err != nil { // it has nothing there
		t.Fatal(err)
	}
	if !told() {
		t.Error("the end of another run has made the finding go")
	}
	if err := r.kernel.RemoveRun(runs[0].CgroupID); err != nil {
		t.Fatal(err)
	}
	if told() {
		t.Error("the finding stays although there is room")
	}
}

// BenchmarkMemoryOfARun reports what the daemon's heap grows by for a run.
func BenchmarkMemoryOfARun(b *testing.B) {
	const count = 500
	for b.Loop() {
		r := newRig(b, agentText(100, 1))
		r.start("bot", 10)
		before := heap()
		runs := r.start("bot", count)
		b.ReportMetric(float64(heap()-before)/count, "B/run")
		runtime.KeepAlive(runs)
	}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestReplaceLeavesWhatHasHappened: a plan is made of a run as it was. That it has
// begun meanwhile stays, and so does that it was revoked.
func TestReplaceLeavesWhatHasHappened(t *testing.T) {
	r := newRig(t, agentText(1, 1))
	run := r.start("bot", 1)[0]
	planned, begun := *run, *run
	planned.Begun, begun.Begun = false, true
	r.runs.Replace(&begun)
	if now, ok := r.runs.ByID(run.ID); !r.replace(&planned) || !ok || !planned.Begun {
		t.Errorf("replaced by %+v, and was %+v", planned, now)
	}
	revoked := begun
	revoked.Revoked = true
	r.runs.Replace(&revoked)
	if now, _ := r.runs.ByID(run.ID); r.replace(&planned) || !now.Revoked {
		t.Errorf("a revoked run was replaced by a plan: %+v", now)
	}
}
