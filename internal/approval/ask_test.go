package approval

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/varvel/varvel/internal/decision"
)

func TestAskWithoutWaiting(t *testing.T) {
	f := newFixture(t, nil)
	first := f.ask(t, decision.StatusPending, question(nil), held(nil))
	if !strings.HasPrefix(first.ApprovalID, "apr_") || len(first.ApprovalID) != len("apr_")+26 {
		t.Errorf("the id is %q", first.ApprovalID)
	}
	again := f.ask(t, decision.StatusPending, question(nil), held(nil))
	if again.ApprovalID != first.ApprovalID {
		t.Error("the same question made a second approval")
	}
	f.approve(t, first.ApprovalID, somebody)
	f.ask(t, decision.StatusGranted, question(nil), held(nil))
	f.ask(t, decision.StatusUsed, question(nil), held(nil))
	if err := f.Settle(t.Context(), first.ApprovalID, Outcome{Status: 200}); err != nil {
		t.Fatal(err)
	}
	f.ask(t, decision.StatusUsed, question(nil), held(nil))
	want := []EventKind{EventRequested, EventGranted, EventClaimed, EventSettled}
	if got := f.ledger.kinds(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("events %v, want %v", got, want)
	}
}

func TestAskWaitsInBand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, func(c *Config) { c.InBand = 20 * time.Second })
		start := time.Now()
		res := f.ask(t, decision.StatusPending, question(nil), held(nil))
		if waited := time.Since(start); waited != 20*time.Second {
			t.Errorf("waited %v", waited)
		}
		go func() {
			time.Sleep(5 * time.Second)
			f.approve(t, res.ApprovalID, somebody)
		}()
		start = time.Now()
		f.ask(t, decision.StatusGranted, question(nil), held(nil))
		if waited := time.Since(start); waited != 5*time.Second {
			t.Errorf("waited %v after the approval", waited)
		}
	})
}

func TestDeniedWhileWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, func(c *Config) { c.InBand = 20 * time.Second })
		go func() {
			time.Sleep(time.Second)
			id := f.List(Filter{})[0].ID
			if _, err := f.Deny(t.Context(), id, person(somebody, nil), "no"); err != nil {
				t.Error(err)
			}
		}()
		f.ask(t, decision.StatusDenied, question(nil), held(nil))
	})
}

// TestCallerIsGone grants an approval for a caller that has hung up: it is not
// used up by nobody.
func TestCallerIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, func(c *Config) { c.InBand = 20 * time.Second })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		res, err := f.Ask(ctx, question(nil), held(nil))
		if err != nil || res.Status != decision.StatusPending {
			t.Fatalf("got %v, %v", res, err)
		}
		f.approve(t, res.ApprovalID, somebody)
		if res, err = f.Ask(ctx, question(nil), held(nil)); err != nil || res.Status != decision.StatusPending {
			t.Fatalf("got %v, %v", res, err)
		}
		f.state(t, res.ApprovalID, Granted)
		f.ask(t, decision.StatusGranted, question(nil), held(nil))
	})
}

// TestOneOfManyWins lets a hundred callers wait for the same approval.
func TestOneOfManyWins(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.InBand = time.Minute })
	var mu sync.Mutex
	got := map[decision.Status]int{}
	var group sync.WaitGroup
	for range 100 {
		group.Go(func() {
			res, err := f.Ask(context.Background(), question(nil), held(nil))
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			got[res.Status]++
		})
	}
	for len(f.List(Filter{})) == 0 {
		time.Sleep(time.Millisecond)
	}
	f.approve(t, f.List(Filter{})[0].ID, somebody)
	group.Wait()
	if got[decision.StatusGranted] != 1 || got[decision.StatusUsed] != 99 {
		t.Errorf("answers: %v", got)
	}
	if n := f.ledger.count(EventRequested); n != 1 {
		t.Errorf("%d approvals were asked for", n)
	}
	if n := f.ledger.count(EventClaimed); n != 1 {
		t.Errorf("%d claims were made", n)
	}
}

func TestDeniedStandsUntilItExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil)
		first := f.ask(t, decision.StatusPending, question(nil), held(nil))
		if _, err := f.Deny(t.Context(), first.ApprovalID, person(somebody, nil), "no"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour - time.Second)
		if res := f.ask(t, decision.StatusDenied, question(nil), held(nil)); res.ApprovalID != first.ApprovalID {
			t.Error("another approval answered")
		}
		time.Sleep(time.Second)
		second := f.ask(t, decision.StatusPending, question(nil), held(nil))
		if a := f.state(t, second.ApprovalID, Pending); a.Previous != first.ApprovalID {
			t.Errorf("it comes after %q, want %q", a.Previous, first.ApprovalID)
		}
	})
}

// TestUsedStandsAfterItExpires counts from the start of the action.
func TestUsedStandsAfterItExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil)
		id := f.ask(t, decision.StatusPending, question(nil), held(nil)).ApprovalID
		f.approve(t, id, somebody)
		time.Sleep(59 * time.Minute)
		f.ask(t, decision.StatusGranted, question(nil), held(nil))
		time.Sleep(100 * time.Hour)
		f.ask(t, decision.StatusUsed, question(nil), held(nil)) // its outcome is awaited
		if err := f.Settle(t.Context(), id, Outcome{Status: 500}); err != nil {
			t.Fatal(err)
		}
		f.ask(t, decision.StatusPending, question(nil), held(nil))
	})
}

func TestExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, func(c *Config) { c.InBand = time.Minute })
		short := held(func(n *decision.Need) { n.Expires = 10 * time.Second })
		start := time.Now()
		res := f.ask(t, decision.StatusExpired, question(nil), short)
		if waited := time.Since(start); waited != 10*time.Second {
			t.Errorf("waited %v", waited)
		}
		f.state(t, res.ApprovalID, Expired)
		if _, err := f.Approve(t.Context(), res.ApprovalID, person(somebody, nil), ""); !errors.Is(err, ErrNotOpen) {
			t.Errorf("approved after the end: %v", err)
		}
	})
}

func TestGrantedExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil)
		first := f.ask(t, decision.StatusPending, question(nil), held(nil)).ApprovalID
		f.approve(t, first, somebody)
		time.Sleep(time.Hour)
		second := f.ask(t, decision.StatusPending, question(nil), held(nil)).ApprovalID
		if first == second {
			t.Error("an overdue approval answered")
		}
		f.state(t, first, Expired)
	})
}

// TestBoundToTheRequest changes one thing at a time: what was approved does not
// let anything else through.
func TestBoundToTheRequest(t *testing.T) {
	tests := map[string]func(*decision.Request){
		"run":    func(r *decision.Request) { r.Run.ID = "run_02" },
		"digest": func(r *decision.Request) { r.Digest = "sha256:d2" },
		"tool":   func(r *decision.Request) { r.Tool = "ledger" },
		"action": func(r *decision.Request) { r.Action = "refunds.delete" },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, nil)
			id := f.ask(t, decision.StatusPending, question(nil), held(nil)).ApprovalID
			f.approve(t, id, somebody)
			if other := f.ask(t, decision.StatusPending, question(change), held(nil)); other.ApprovalID == id {
				t.Error("the same approval answers")
			}
			f.ask(t, decision.StatusGranted, question(nil), held(nil)) // control
		})
	}
}

func TestPolicyOrToolChanges(t *testing.T) {
	tests := map[string]struct {
		inForce  func(*inForce)
		question func(*decision.Request)
		revision string
	}{
		"policy": {func(f *inForce) { f.policy = "sha256:p2" }, nil, "sha256:p2"},
		"tool":   {func(f *inForce) { f.tool = "sha256:t2" }, func(r *decision.Request) { r.ToolRevision = "sha256:t2" }, "sha256:p1"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, nil)
			first := f.ask(t, decision.StatusPending, question(nil), held(nil)).ApprovalID
			f.approve(t, first, somebody)
			f.runs.change(test.inForce)
			v := held(nil)
			v.Revision = test.revision
			second := f.ask(t, decision.StatusPending, question(test.question), v).ApprovalID
			if a := f.state(t, second, Pending); a.Previous != first {
				t.Errorf("it comes after %q", a.Previous)
			}
			if a := f.state(t, first, Cancelled); a.Note == "" {
				t.Error("it is not said why")
			}
		})
	}
}

// TestPolicyChangesBeforeTheClaim has the question judged by a policy that is
// no longer in force when the answer is used.
func TestPolicyChangesBeforeTheClaim(t *testing.T) {
	for name, change := range map[string]func(*inForce){
		"policy": func(f *inForce) { f.policy = "sha256:p2" },
		"tool":   func(f *inForce) { f.tool = "" },
		"run":    func(f *inForce) { f.dead["run_01"] = true },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, nil)
			id := f.ask(t, decision.StatusPending, question(nil), held(nil)).ApprovalID
			f.approve(t, id, somebody)
			f.runs.change(change)
			f.ask(t, decision.StatusExpired, question(nil), held(nil))
			f.state(t, id, Cancelled)
		})
	}
}

func TestPolicyChangesBeforeTheVote(t *testing.T) {
	f := newFixture(t, nil)
	id := f.ask(t, decision.StatusPending, question(nil), held(nil)).ApprovalID
	f.runs.change(func(f *inForce) { f.policy = "sha256:p2" })
	if _, err := f.Approve(t.Context(), id, person(somebody, nil), ""); !errors.Is(err, ErrNotOpen) {
		t.Errorf("got %v", err)
	}
	f.state(t, id, Cancelled)
}

func TestTooManyOfARun(t *testing.T) {
	f := newFixture(t, nil)
	for i := range f.cfg.MaxPerRun {
		f.ask(t, decision.StatusPending, question(func(r *decision.Request) { r.Digest = fmt.Sprint(i) }), held(nil))
	}
	last := question(func(r *decision.Request) { r.Digest = "one more" })
	if res := f.ask(t, decision.StatusDenied, last, held(nil)); res.Reason.Rule != "approval.too-many" {
		t.Errorf("denied by %q", res.Reason.Rule)
	}
	f.ask(t, decision.StatusPending, question(func(r *decision.Request) { r.Digest = "0" }), held(nil))      // joins
	f.ask(t, decision.StatusPending, question(func(r *decision.Request) { r.Run.ID = "run_02" }), held(nil)) // another run
}

// TestRefusalsAreBoundedToo has every question of a run denied at once, so that
// few are open at any time.
func TestRefusalsAreBoundedToo(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.MaxPerRun = 1 })
	for i := range keptPerOpen {
		res := f.ask(t, decision.StatusPending, question(func(r *decision.Request) { r.Digest = fmt.Sprint(i) }), held(nil))
		if _, err := f.Deny(t.Context(), res.ApprovalID, person(somebody, nil), "no"); err != nil {
			t.Fatal(err)
		}
	}
	res := f.ask(t, decision.StatusDenied, question(func(r *decision.Request) { r.Digest = "one more" }), held(nil))
	if res.Reason.Rule != "approval.too-many" {
		t.Errorf("denied by %q", res.Reason.Rule)
	}
}

func TestTooManyOfTheNode(t *testing.T) {
	f := newFixture(t, nil)
	for i := range f.cfg.MaxTotal {
		f.ask(t, decision.StatusPending, question(func(r *decision.Request) { r.Run.ID = fmt.Sprint("run_", i) }), held(nil))
	}
	res := f.ask(t, decision.StatusDenied, question(func(r *decision.Request) { r.Run.ID = "run_last" }), held(nil))
	if res.Reason.Rule != "approval.node-full" {
		t.Errorf("denied by %q", res.Reason.Rule)
	}
}

func TestRunThatHasEnded(t *testing.T) {
	f := newFixture(t, nil)
	f.runs.change(func(f *inForce) { f.dead["run_01"] = true })
	if res := f.ask(t, decision.StatusDenied, question(nil), held(nil)); res.Reason.Rule != "approval.run-ended" {
		t.Errorf("denied by %q", res.Reason.Rule)
	}
}

func TestQuestionsThatCannotBeAsked(t *testing.T) {
	tests := map[string]func(*decision.Request, *decision.Verdict){
		"no digest":     func(r *decision.Request, _ *decision.Verdict) { r.Digest = "" },
		"no run":        func(r *decision.Request, _ *decision.Verdict) { r.Run.ID = "" },
		"no revision":   func(_ *decision.Request, v *decision.Verdict) { v.Revision = "" },
		"no need":       func(_ *decision.Request, v *decision.Verdict) { v.Need = nil },
		"no kind":       func(_ *decision.Request, v *decision.Verdict) { v.Need.Kind = "" },
		"nobody":        func(_ *decision.Request, v *decision.Verdict) { v.Need.Quorum = 0 },
		"two requester": func(_ *decision.Request, v *decision.Verdict) { v.Need.Kind, v.Need.Quorum = decision.Confirm, 2 },
		"negative time": func(_ *decision.Request, v *decision.Verdict) { v.Need.Expires = -1 },
	}
	f := newFixture(t, nil)
	for name, change := range tests {
		r, v := question(nil), held(nil)
		change(&r, &v)
		if res, err := f.Ask(t.Context(), r, v); err == nil {
			t.Errorf("%s: got %v", name, res)
		}
	}
	if len(f.List(Filter{})) != 0 {
		t.Error("something was asked")
	}
}
