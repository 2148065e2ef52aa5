package policy

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/varvel/varvel/internal/decision"
)

const refuseAll = "package varvel.custom\n" + `deny contains {"rule": "ours.no", "text": "No."}`

func TestReload(t *testing.T) {
	dir := t.TempDir()
	e := newEngine(t, dir)
	first := e.Revision()
	expect := func(effect decision.Effect, revision string) {
		t.Helper()
		v, err := e.Evaluate(t.Context(), request(decision.KindHTTP, nil))
		if err != nil || v.Effect != effect || v.Revision != revision {
			t.Fatalf("got %s of %s, %v; want %s of %s", v.Effect, v.Revision, err, effect, revision)
		}
	}
	expect(decision.EffectAllow, first)

	writePolicy(t, dir, "ours.rego", "package varvel.custom\ndeny := true")
	if err := e.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "ours.rego:2: ") {
		t.Fatalf("a bad policy was loaded: %v", err)
	}
	expect(decision.EffectAllow, first)

	writePolicy(t, dir, "ours.rego", refuseAll)
	if err := e.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	second := e.Revision()
	if second == first {
		t.Fatal("another policy has the same revision")
	}
	expect(decision.EffectDeny, second)
}

func TestRevision(t *testing.T) {
	plain := newEngine(t).Revision()
	one := newEngine(t, writePolicy(t, "", "a.rego", refuseAll)).Revision()
	elsewhere := newEngine(t, writePolicy(t, "", "a.rego", refuseAll)).Revision()
	renamed := newEngine(t, writePolicy(t, "", "b.rego", refuseAll)).Revision()
	tested := newEngine(t, writePolicy(t, writePolicy(t, "", "a.rego", refuseAll), "a_test.rego", "package varvel.custom_test")).Revision()
	switch {
	case !strings.HasPrefix(plain, "sha256:") || len(plain) != len("sha256:")+64:
		t.Errorf("revision is %q", plain)
	case one == plain, one == renamed:
		t.Error("different modules have the same revision")
	case one != elsewhere, one != tested:
		t.Error("the directory's place, or a test, changes the revision")
	}
}

// TestEvaluationEnds runs a rule that would take hours. On a very busy machine the
// time is up before the steps are.
func TestEvaluationEnds(t *testing.T) {
	dir := writePolicy(t, "", "slow.rego", "package varvel.custom\n"+
		`deny contains {"rule": "ours.no", "text": "No."} if {
			some a in numbers.range(1, 10000)
			some b in numbers.range(1, 10000)
			some c in numbers.range(1, 10000)
			a + b + c == 1
		}`)
	e := newEngine(t, dir)
	if _, err := e.Evaluate(t.Context(), request(decision.KindHTTP, nil)); !errors.Is(err, errSteps) && !errors.Is(err, errTime) {
		t.Errorf("it ended with %v", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := e.Evaluate(gone, request(decision.KindHTTP, nil)); !errors.Is(err, context.Canceled) {
		t.Errorf("nobody waits, and it ended with %v", err)
	}
}

// TestBudgetIsAmple has the default policy far from its limit.
func TestBudgetIsAmple(t *testing.T) {
	e := newEngine(t)
	e.steps = maxSteps / 500
	for _, risk := range []decision.Risk{decision.RiskRead, decision.RiskWrite, decision.RiskIrreversible, decision.RiskUnknown} {
		if _, err := e.Evaluate(t.Context(), request(decision.KindHTTP, func(r *decision.Request) { r.Risk = risk })); err != nil {
			t.Error(err)
		}
	}
	e.steps = 10 // control
	if _, err := e.Evaluate(t.Context(), request(decision.KindHTTP, nil)); !errors.Is(err, errSteps) && !errors.Is(err, errTime) {
		t.Errorf("it ended with %v", err)
	}
}

func TestBudgetOfTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(t.Context(), 2048)
		time.Sleep(maxTime + 1)
		for range 2048 {
			if b.Cancelled() {
				break
			}
		}
		if b.spent != errTime {
			t.Errorf("it ended with %v", b.spent)
		}
	})
}

func TestEvaluateWhileReloading(t *testing.T) {
	dir := writePolicy(t, "", "ours.rego", refuseAll)
	e := newEngine(t, dir)
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range 50 {
				if v, err := e.Evaluate(t.Context(), request(decision.KindHTTP, nil)); err != nil || v.Effect != decision.EffectDeny {
					t.Errorf("got %v, %v", v, err)
				}
			}
		})
	}
	for range 10 {
		if err := e.Reload(t.Context()); err != nil {
			t.Error(err)
		}
	}
	group.Wait()
}
