package approval

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/varvel/varvel/internal/decision"
)

// ledger is an Events that remembers, and fails when it is told to.
type ledger struct {
	mu      sync.Mutex
	changes []Change
	refuse  func(Change) error
}

func (l *ledger) Note(_ context.Context, c Change) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.refuse != nil {
		if err := l.refuse(c); err != nil {
			return err
		}
	}
	l.changes = append(l.changes, c)
	return nil
}

func (l *ledger) refuseWith(refuse func(Change) error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refuse = refuse
}

func (l *ledger) kinds() []EventKind {
	l.mu.Lock()
	defer l.mu.Unlock()
	var kinds []EventKind
	for _, c := range l.changes {
		kinds = append(kinds, c.Event)
	}
	return kinds
}

func (l *ledger) count(kind EventKind) int {
	n := 0
	for _, k := range l.kinds() {
		if k == kind {
			n++
		}
	}
	return n
}

// inForce is a Runs: every run is alive that is not in dead.
type inForce struct {
	mu           sync.Mutex
	dead         map[string]bool
	policy, tool string
}

func (f *inForce) Alive(run string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.dead[run]
}

func (f *inForce) Current(string, string) (policyRevision, toolRevision string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.policy, f.tool
}

func (f *inForce) change(change func(*inForce)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

// fixture is a store and what is around it.
type fixture struct {
	*Store
	cfg    Config
	ledger *ledger
	runs   *inForce
}

// newFixture opens a store in a new directory. The configuration can be changed.
func newFixture(t testing.TB, change func(*Config)) *fixture {
	t.Helper()
	f := &fixture{ledger: &ledger{}, runs: &inForce{dead: map[string]bool{}, policy: "sha256:p1", tool: "sha256:t1"}}
	f.cfg = Config{
		Dir: t.TempDir(), Expires: time.Hour, MaxPerRun: 4, MaxTotal: 8,
		Events: f.ledger, Runs: f.runs, Log: slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&f.cfg)
	}
	f.open(t)
	t.Cleanup(func() { f.Close() })
	return f
}

func (f *fixture) open(t testing.TB) {
	t.Helper()
	store, err := Open(context.Background(), f.cfg)
	if err != nil {
		t.Fatal(err)
	}
	f.Store = store
}

// reopen is a restart of the daemon.
func (f *fixture) reopen(t testing.TB) {
	t.Helper()
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	f.open(t)
}

const (
	requester = 1000
	somebody  = 1001
	another   = 1002
)

func question(change func(*decision.Request)) decision.Request {
	r := decision.Request{
		ID: "dec_01", Kind: decision.KindHTTP,
		Run:   decision.Run{ID: "run_01", Agent: "billing-bot", Mode: decision.ModeEnforce},
		Actor: decision.Actor{Account: "spiffe://example.org/agent/billing-bot", StartedBy: &decision.LocalUser{UID: requester, Name: "ann"}},
		Tool:  "stripe", Action: "refunds.create", Risk: decision.RiskIrreversible,
		HTTP:   &decision.HTTP{Method: "POST", Authority: "api.stripe.com", Path: "/v1/refunds"},
		Digest: "sha256:d1", ToolRevision: "sha256:t1", Preview: "POST /v1/refunds\namount=5",
	}
	if change != nil {
		change(&r)
	}
	return r
}

func held(change func(*decision.Need)) decision.Verdict {
	n := &decision.Need{Kind: decision.FourEyes, Quorum: 1}
	if change != nil {
		change(n)
	}
	return decision.Verdict{
		Effect: decision.EffectHold, Need: n, Revision: "sha256:p1",
		Reasons: []decision.Reason{{Rule: "http.irreversible", Text: "It cannot be taken back."}},
	}
}

func person(uid uint32, change func(*Approver)) Approver {
	a := Approver{UID: uid, Name: map[uint32]string{0: "root", requester: "ann", somebody: "bob", another: "cy"}[uid],
		Presence: PresenceTerminal, PID: 42, PeerCheck: "/user.slice"}
	if change != nil {
		change(&a)
	}
	return a
}

// ask asks and expects the status.
func (f *fixture) ask(t testing.TB, want decision.Status, r decision.Request, v decision.Verdict) decision.Resolution {
	t.Helper()
	res, err := f.Ask(context.Background(), r, v)
	if err != nil {
		t.Fatal(err)
	}
	if res.Status != want || res.Reason.Rule == "" || res.Reason.Text == "" {
		t.Fatalf("the answer is %+v; want %s and a reason", res, want)
	}
	return res
}

func (f *fixture) approve(t testing.TB, id string, uid uint32) Approval {
	t.Helper()
	a, err := f.Approve(context.Background(), id, person(uid, nil), "looks right")
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (f *fixture) state(t testing.TB, id string, want State) Approval {
	t.Helper()
	a, err := f.Get(id)
	if err != nil || a.State != want {
		t.Fatalf("%s is %s, %v; want %s", id, a.State, err, want)
	}
	return a
}
