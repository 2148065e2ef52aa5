package workload

import (
	"errors"
	"fmt"
	"testing"

	"github.com/varvel/varvel/internal/decision"
	"github.com/varvel/varvel/internal/tool"
)

func run(id string, cgroup uint64) *Run {
	return &Run{Run: decision.Run{ID: id}, CgroupID: cgroup, Tools: []*tool.Tool{{Name: "git"}}}
}

func TestRegistry(t *testing.T) {
	g := NewRegistry()
	a, b := run("run_a", 1), run("run_b", 2)
	for _, r := range []*Run{b, a} {
		if err := g.Add(r); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range []*Run{run("run_a", 3), run("run_c", 2)} {
		if err := g.Add(r); !errors.Is(err, ErrExists) {
			t.Errorf("adding %s in cgroup %d again: %v", r.ID, r.CgroupID, err)
		}
	}
	if got, ok := g.ByCgroup(2); !ok || got != b {
		t.Errorf("cgroup 2 is %v", got)
	}
	if all := g.All(); len(all) != 2 || all[0] != a {
		t.Errorf("all: %v", all)
	}
	g.Remove("run_a")
	if _, ok := g.ByCgroup(1); ok {
		t.Error("a removed run is still found by its cgroup")
	}
	if got, ok := g.Ended("run_a"); !ok || got != a {
		t.Errorf("the ended run is %v", got)
	}
	if got, ok := g.EndedByCgroup(1); !ok || got != a {
		t.Errorf("in cgroup 1 ended %v", got)
	}
	if _, ok := g.Ended("run_b"); ok {
		t.Error("a live run has ended")
	}
}

func TestFewEndedRunsAreRemembered(t *testing.T) {
	g := NewRegistry()
	for i := range 2 * maxEnded {
		id := fmt.Sprintf("run_%d", i)
		if err := g.Add(run(id, uint64(i))); err != nil {
			t.Fatal(err)
		}
		g.Remove(id)
	}
	if _, ok := g.Ended("run_0"); ok || len(g.ended) != maxEnded {
		t.Errorf("%d are remembered", len(g.ended))
	}
}

func TestReplaceNeverBringsBack(t *testing.T) {
	g := NewRegistry()
	if g.Replace(run("run_a", 1)) {
		t.Error("a run that never was is there")
	}
	if err := g.Add(run("run_a", 1)); err != nil {
		t.Fatal(err)
	}
	next := run("run_a", 1)
	if !g.Replace(next) {
		t.Error("a live run was not replaced")
	}
	if got, _ := g.ByCgroup(1); got != next {
		t.Error("the old snapshot is still found")
	}
	if g.Replace(run("run_a", 9)) {
		t.Error("a run moved to another cgroup")
	}
}

func TestToolByName(t *testing.T) {
	r := run("run_a", 1)
	if _, ok := r.Tool("git"); !ok {
		t.Error("its tool is not found")
	}
	if _, ok := r.Tool("other"); ok {
		t.Error("a tool is found that it does not have")
	}
}
