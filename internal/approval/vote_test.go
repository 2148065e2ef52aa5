package approval

import (
	"errors"
	"strings"
	"testing"

	"github.com/varvel/varvel/internal/decision"
)

func TestWhoMayApprove(t *testing.T) {
	fourEyes := func(n *decision.Need) {}
	confirm := func(n *decision.Need) { n.Kind = decision.Confirm }
	groups := func(n *decision.Need) { n.Groups = []string{"dba", "sre"} }
	exclude := func(n *decision.Need) { n.Exclude = []string{"bob", "finance"} }
	in := func(groups ...string) func(*Approver) { return func(a *Approver) { a.Groups = groups } }
	rootsRun := func(r *decision.Request) { r.Actor.StartedBy = &decision.LocalUser{UID: 0} }
	nobodysRun := func(r *decision.Request) { r.Actor.StartedBy = nil }
	tests := []struct {
		name     string
		need     func(*decision.Need)
		question func(*decision.Request)
		by       Approver
		want     string // part of the error, or "" if it is granted
	}{
		{"four eyes: somebody else", fourEyes, nil, person(somebody, nil), ""},
		{"four eyes: somebody else, from a script", fourEyes, nil, person(somebody, func(a *Approver) { a.Presence = "" }), ""},
		{"four eyes: the requester", fourEyes, nil, person(requester, nil), "somebody else"},
		{"four eyes: root for another", fourEyes, nil, person(0, nil), ""},
		{"four eyes: root for root", fourEyes, rootsRun, person(0, nil), "somebody else"},
		{"four eyes: requester is not known", fourEyes, nobodysRun, person(somebody, nil), "not known who started"},
		{"no evidence about the process", fourEyes, nil, person(somebody, func(a *Approver) { a.PeerCheck = "" }), "no evidence"},
		{"confirm: the requester at a terminal", confirm, nil, person(requester, nil), ""},
		{"confirm: the requester from a script", confirm, nil, person(requester, func(a *Approver) { a.Presence = "" }), "at a terminal"},
		{"confirm: another presence", confirm, nil, person(requester, func(a *Approver) { a.Presence = "voice" }), "at a terminal"},
		{"confirm: somebody else", confirm, nil, person(somebody, nil), "only who started"},
		{"confirm: root", confirm, nil, person(0, nil), "only who started"},
		{"confirm: requester is not known", confirm, nobodysRun, person(0, nil), "not known who started"},
		{"confirm: no evidence about the process", confirm, nil, person(requester, func(a *Approver) { a.PeerCheck = "" }), "no evidence"},
		{"groups: member", groups, nil, person(somebody, in("users", "sre")), ""},
		{"groups: no member", groups, nil, person(somebody, in("users")), "one of the groups"},
		{"groups: root is no member", groups, nil, person(0, nil), "one of the groups"},
		{"excluded by name", exclude, nil, person(somebody, nil), `"bob" may not`},
		{"excluded by group", exclude, nil, person(another, in("finance")), `"finance" may not`},
		{"not excluded", exclude, nil, person(another, in("sre")), ""},
		{"name is not known, some are excluded", exclude, nil, person(1003, nil), "user name is not known"},
		{"name is not known, nobody is excluded", fourEyes, nil, person(1003, nil), ""},
		{"reason is too long", fourEyes, nil, person(somebody, nil), "longer than"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t, nil)
			id := f.ask(t, decision.StatusPending, question(test.question), held(test.need)).ApprovalID
			reason := "looks right"
			if test.want == "longer than" {
				reason = strings.Repeat("x", maxReason+1)
			}
			a, err := f.Approve(t.Context(), id, test.by, reason)
			if test.want == "" {
				if err != nil || a.State != Granted {
					t.Fatalf("got %s, %v", a.State, err)
				}
				checkVote(t, a.Votes, test.by)
				return
			}
			if !errors.Is(err, ErrNotAllowed) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v; want %q", err, test.want)
			}
			if a := f.state(t, id, Pending); len(a.Votes) != 0 {
				t.Errorf("votes were kept: %v", a.Votes)
			}
		})
	}
}

func checkVote(t *testing.T, votes []Vote, by Approver) {
	t.Helper()
	if len(votes) != 1 {
		t.Fatalf("votes: %v", votes)
	}
	v := votes[0]
	if !v.Approve || v.UID != by.UID || v.Presence != by.Presence || v.PeerCheck != by.PeerCheck || v.PID != by.PID || v.Reason == "" || v.Time.IsZero() {
		t.Errorf("the evidence is %+v", v)
	}
}

func TestQuorum(t *testing.T) {
	f := newFixture(t, nil)
	id := f.ask(t, decision.StatusPending, question(nil), held(func(n *decision.Need) { n.Quorum = 2 })).ApprovalID
	if a := f.approve(t, id, somebody); a.State != Pending {
		t.Fatalf("one of two made it %s", a.State)
	}
	if _, err := f.Approve(t.Context(), id, person(somebody, nil), ""); !errors.Is(err, ErrNotAllowed) {
		t.Errorf("one person voted twice: %v", err)
	}
	f.reopen(t)
	if a := f.approve(t, id, another); a.State != Granted || len(a.Votes) != 2 {
		t.Fatalf("two of two made it %s with %d votes", a.State, len(a.Votes))
	}
	if f.ledger.count(EventVoted) != 1 || f.ledger.count(EventGranted) != 1 {
		t.Errorf("events: %v", f.ledger.kinds())
	}
}

func TestOneDenyIsEnough(t *testing.T) {
	f := newFixture(t, nil)
	id := f.ask(t, decision.StatusPending, question(nil), held(func(n *decision.Need) { n.Quorum = 2 })).ApprovalID
	f.approve(t, id, somebody)
	if a, err := f.Deny(t.Context(), id, person(another, nil), "no"); err != nil || a.State != Denied {
		t.Fatalf("got %s, %v", a.State, err)
	}
	if _, err := f.Approve(t.Context(), id, person(1003, nil), ""); !errors.Is(err, ErrNotOpen) {
		t.Errorf("approved after it was denied: %v", err)
	}
}

func TestWhoMayDeny(t *testing.T) {
	groups := func(n *decision.Need) { n.Groups = []string{"dba"} }
	tests := []struct {
		name string
		need func(*decision.Need)
		by   Approver
		want error
	}{
		{"somebody", nil, person(somebody, nil), nil},
		{"the requester", groups, person(requester, nil), nil},
		{"not in the group", groups, person(somebody, nil), ErrNotAllowed},
		{"no evidence about the process", nil, person(somebody, func(a *Approver) { a.PeerCheck = "" }), ErrNotAllowed},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t, nil)
			id := f.ask(t, decision.StatusPending, question(nil), held(test.need)).ApprovalID
			if _, err := f.Deny(t.Context(), id, test.by, "no"); !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}

func TestDenyWithdrawsWhatIsNotUsed(t *testing.T) {
	f := newFixture(t, nil)
	id := f.ask(t, decision.StatusPending, question(nil), held(nil)).ApprovalID
	f.approve(t, id, somebody)
	if _, err := f.Deny(t.Context(), id, person(another, nil), "on second thoughts"); err != nil {
		t.Fatal(err)
	}
	f.ask(t, decision.StatusDenied, question(nil), held(nil))
}

func TestDenyAfterTheStart(t *testing.T) {
	f := newFixture(t, nil)
	id := f.ask(t, decision.StatusPending, question(nil), held(nil)).ApprovalID
	f.approve(t, id, somebody)
	f.ask(t, decision.StatusGranted, question(nil), held(nil))
	if _, err := f.Deny(t.Context(), id, person(another, nil), "no"); !errors.Is(err, ErrNotOpen) {
		t.Errorf("got %v", err)
	}
	f.state(t, id, Claimed)
}

func TestUnknownApproval(t *testing.T) {
	f := newFixture(t, nil)
	if _, err := f.Approve(t.Context(), "apr_x\x1b[2J", person(somebody, nil), ""); !errors.Is(err, ErrNotFound) || strings.ContainsRune(err.Error(), '\x1b') {
		t.Errorf("got %q", err)
	}
	if err := f.Settle(t.Context(), "apr_x", Outcome{}); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v", err)
	}
}
