package approval

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/varvel/varvel/internal/decision"
)

var errFull = errors.New("disk is full")

func refuseKind(kind EventKind) func(Change) error {
	return func(c Change) error {
		if c.Event == kind {
			return errFull
		}
		return nil
	}
}

// TestNotRecordedDoesNotHappen has the audit log refuse one transition, then
// accept it.
func TestNotRecordedDoesNotHappen(t *testing.T) {
	ask := func(f *fixture) error {
		_, err := f.Ask(context.Background(), question(nil), held(nil))
		return err
	}
	id := func(f *fixture) string { return f.List(Filter{})[0].ID }
	grant := func(f *fixture) error {
		_, err := f.Approve(context.Background(), id(f), person(somebody, nil), "")
		return err
	}
	deny := func(f *fixture) error {
		_, err := f.Deny(context.Background(), id(f), person(somebody, nil), "")
		return err
	}
	settle := func(f *fixture) error { return f.Settle(context.Background(), id(f), Outcome{Status: 200}) }
	cancel := func(f *fixture) error { return f.CancelRun(context.Background(), "run_01", "The run has ended.") }
	type step = func(*fixture) error
	tests := []struct {
		kind   EventKind
		before []step
		do     step
		stays  State
		then   State
	}{
		{EventRequested, nil, ask, "", Pending},
		{EventGranted, []step{ask}, grant, Pending, Granted},
		{EventDenied, []step{ask}, deny, Pending, Denied},
		{EventClaimed, []step{ask, grant}, ask, Granted, Claimed},
		{EventSettled, []step{ask, grant, ask}, settle, Claimed, Settled},
		{EventCancelled, []step{ask}, cancel, Pending, Cancelled},
	}
	for _, test := range tests {
		for _, where := range []string{"audit", "journal"} {
			t.Run(string(test.kind)+"/"+where, func(t *testing.T) {
				f := newFixture(t, nil)
				for _, step := range test.before {
					if err := step(f); err != nil {
						t.Fatal(err)
					}
				}
				repair := breakIt(f, where, test.kind)
				if err := test.do(f); !errors.Is(err, errFull) {
					t.Fatalf("got %v", err)
				}
				repair()
				f.expectOnly(t, test.stays)
				if voided := f.ledger.count(EventVoided); (voided == 1) != (where == "journal") {
					t.Errorf("voided %d times", voided)
				}
				if err := test.do(f); err != nil {
					t.Fatal(err)
				}
				f.expectOnly(t, test.then)
				want := test.then
				if want == Claimed {
					want = OutcomeUnknown
				}
				f.reopen(t)
				f.expectOnly(t, want)
			})
		}
	}
}

// breakIt makes the next transition fail, and returns what repairs it.
func breakIt(f *fixture, where string, kind EventKind) (repair func()) {
	if where == "audit" {
		f.ledger.refuseWith(refuseKind(kind))
		return func() { f.ledger.refuseWith(nil) }
	}
	f.journal.sync = func(*os.File) error { return errFull }
	return func() { f.journal.sync = (*os.File).Sync }
}

func (f *fixture) expectOnly(t *testing.T, want State) {
	t.Helper()
	list := f.List(Filter{})
	switch {
	case want == "" && len(list) == 0:
	case len(list) != 1 || list[0].State != want:
		t.Fatalf("there is %v, want one that is %s", list, want)
	}
}

func TestStartNeedsTheAuditLog(t *testing.T) {
	f := newFixture(t, nil)
	f.ask(t, decision.StatusPending, question(nil), held(nil))
	f.runs.change(func(f *inForce) { f.dead["run_01"] = true })
	f.Close()
	f.ledger.refuseWith(refuseKind(EventCancelled))
	if _, err := Open(t.Context(), f.cfg); !errors.Is(err, errFull) {
		t.Fatalf("got %v", err)
	}
	f.ledger.refuseWith(nil)
	f.open(t) // the lock was given back
	f.expectOnly(t, Cancelled)
}

func TestRunExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- f.Run(ctx) }()
		id := f.ask(t, decision.StatusPending, question(nil), held(nil)).ApprovalID
		time.Sleep(time.Hour - time.Second)
		f.state(t, id, Pending)
		f.ledger.refuseWith(refuseKind(EventExpired))
		time.Sleep(2 * time.Second)
		synctest.Wait()
		f.state(t, id, Pending)
		f.ledger.refuseWith(nil)
		time.Sleep(retryDelay)
		synctest.Wait()
		f.state(t, id, Expired)
		time.Sleep(retention + 2*time.Hour)
		synctest.Wait()
		if _, err := f.Get(id); !errors.Is(err, ErrNotFound) {
			t.Errorf("it is still there: %v", err)
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// TestOverdueIsNotApproved has nobody run the timer, and the audit log refuse
// to record the end.
func TestOverdueIsNotApproved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil)
		id := f.ask(t, decision.StatusPending, question(nil), held(nil)).ApprovalID
		time.Sleep(time.Hour)
		f.ledger.refuseWith(refuseKind(EventExpired))
		if _, err := f.Approve(t.Context(), id, person(somebody, nil), ""); !errors.Is(err, errFull) {
			t.Errorf("got %v", err)
		}
		if res, err := f.Ask(t.Context(), question(nil), held(nil)); !errors.Is(err, errFull) {
			t.Errorf("got %v, %v", res, err)
		}
	})
}

func TestCancelRun(t *testing.T) {
	f := newFixture(t, nil)
	started := f.ask(t, decision.StatusPending, question(nil), held(nil)).ApprovalID
	f.approve(t, started, somebody)
	f.ask(t, decision.StatusGranted, question(nil), held(nil))
	open := f.ask(t, decision.StatusPending, question(func(r *decision.Request) { r.Digest = "sha256:d2" }), held(nil)).ApprovalID
	other := f.ask(t, decision.StatusPending, question(func(r *decision.Request) { r.Run.ID = "run_02" }), held(nil)).ApprovalID
	if err := f.CancelRun(t.Context(), "run_01", "The run has ended."); err != nil {
		t.Fatal(err)
	}
	f.state(t, started, Claimed)
	f.state(t, open, Cancelled)
	f.state(t, other, Pending)
}

func TestSettleOnce(t *testing.T) {
	f := newFixture(t, nil)
	id := f.ask(t, decision.StatusPending, question(nil), held(nil)).ApprovalID
	if err := f.Settle(t.Context(), id, Outcome{}); !errors.Is(err, ErrNotOpen) {
		t.Errorf("settled before it was started: %v", err)
	}
	f.approve(t, id, somebody)
	f.ask(t, decision.StatusGranted, question(nil), held(nil))
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.Settle(gone, id, Outcome{Error: "connection reset\x1b[2J" + strings.Repeat("x", 2*maxReason)}); err != nil {
		t.Fatal(err)
	}
	a := f.state(t, id, Settled)
	if a.Outcome == nil || len(a.Outcome.Error) > maxReason || strings.ContainsRune(a.Outcome.Error, '\x1b') {
		t.Errorf("the outcome is %+v", a.Outcome)
	}
	if err := f.Settle(t.Context(), id, Outcome{}); !errors.Is(err, ErrNotOpen) {
		t.Errorf("settled twice: %v", err)
	}
}

func TestHooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var open []int
		var resolved []State
		var waited time.Duration
		f := newFixture(t, func(c *Config) {
			c.Hooks.Open = func(n int) { open = append(open, n) }
			c.Hooks.Resolved = func(s State, d time.Duration) { resolved, waited = append(resolved, s), d }
		})
		id := f.ask(t, decision.StatusPending, question(nil), held(nil)).ApprovalID
		time.Sleep(3 * time.Second)
		f.approve(t, id, somebody)
		f.ask(t, decision.StatusGranted, question(nil), held(nil))
		if len(open) != 3 || open[1] != 1 || open[2] != 0 {
			t.Errorf("open: %v", open)
		}
		if len(resolved) != 1 || resolved[0] != Granted || waited != 3*time.Second {
			t.Errorf("resolved: %v after %v", resolved, waited)
		}
	})
}

func TestList(t *testing.T) {
	f := newFixture(t, nil)
	long := question(func(r *decision.Request) {
		r.Preview = strings.Repeat("é", maxPreview) + "\x1b[2J"
		r.HTTP.Query = strings.Repeat("q", 2*maxField)
	})
	first := f.ask(t, decision.StatusPending, long, held(nil)).ApprovalID
	second := f.ask(t, decision.StatusPending, question(func(r *decision.Request) { r.Run.ID = "run_02" }), held(nil)).ApprovalID
	if list := f.List(Filter{}); len(list) != 2 {
		t.Fatalf("listed %d", len(list))
	}
	list := f.List(Filter{Run: "run_01", State: Pending})
	if len(list) != 1 || list[0].ID != first || len(list[0].Request.Preview) > listedPreview || !list[0].Cut {
		t.Errorf("listed %v", list)
	}
	if list := f.List(Filter{Limit: 1}); len(list) != 1 {
		t.Errorf("listed %d", len(list))
	}
	whole := f.state(t, first, Pending)
	if len(whole.Request.Preview) > maxPreview || len(whole.Request.HTTP.Query) > maxField || !whole.Cut {
		t.Error("what is kept is not bounded")
	}
	if short := f.state(t, second, Pending); short.Cut || short.PreviewDigest == whole.PreviewDigest {
		t.Error("a short request was cut, or the digest is not of the preview")
	}
	if long.HTTP.Query != strings.Repeat("q", 2*maxField) {
		t.Error("the caller's request was changed")
	}
}

func TestConfig(t *testing.T) {
	good := newFixture(t, nil).cfg
	for name, change := range map[string]func(*Config){
		"no directory": func(c *Config) { c.Dir = "" },
		"no events":    func(c *Config) { c.Events = nil },
		"no runs":      func(c *Config) { c.Runs = nil },
		"no logger":    func(c *Config) { c.Log = nil },
		"waiting":      func(c *Config) { c.InBand = -1 },
		"expiry":       func(c *Config) { c.Expires = 0 },
		"run's limit":  func(c *Config) { c.MaxPerRun = 0 },
		"node's limit": func(c *Config) { c.MaxTotal = 0 },
	} {
		bad := good
		bad.Dir = t.TempDir()
		change(&bad)
		if _, err := Open(t.Context(), bad); err == nil {
			t.Errorf("%s: it opens", name)
		}
	}
}

// TestHealth shows that a journal which cannot be written is told until it can
// be, without another question, and that nothing is lost meanwhile.
func TestHealth(t *testing.T) {
	f := newFixture(t, nil)
	f.ask(t, decision.StatusPending, question(nil), held(nil))
	if err := f.Health(t.Context()); err != nil {
		t.Errorf("control: %v", err)
	}
	repair := breakIt(f, "journal", EventGranted)
	id := f.List(Filter{})[0].ID
	if _, err := f.Approve(t.Context(), id, person(somebody, nil), ""); !errors.Is(err, errFull) || !errors.Is(f.Health(t.Context()), errFull) {
		t.Errorf("approved: %v, health: %v", err, f.Health(t.Context()))
	}
	repair()
	if err := f.Health(t.Context()); err != nil {
		t.Errorf("after the repair: %v", err)
	}
	f.reopen(t)
	f.expectOnly(t, Pending)
}
