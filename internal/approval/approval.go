// Package approval finds a person for a held action. A Store keeps each
// approval from the first question until the action's outcome is known, bound to
// the exact request: who is granted runs what was approved, once.
//
// Every transition is told to Events and written to the store's own journal,
// both durably, before it takes effect. If either fails, it does not happen.
package approval

import (
	"context"
	"errors"
	"time"

	"github.com/varvel/varvel/internal/decision"
)

// Errors that callers tell apart. They are returned wrapped.
var (
	ErrNotFound   = errors.New("no such approval")
	ErrNotOpen    = errors.New("approval is not open")
	ErrNotAllowed = errors.New("approver is not allowed")
)

// State is where an approval stands.
type State string

// The states. Pending leads to granted, and granted to claimed, settled; every
// other state is an end.
const (
	Pending        State = "pending"         // waits for people
	Granted        State = "granted"         // approved, not started
	Claimed        State = "claimed"         // started; its outcome is awaited
	Settled        State = "settled"         // started and ended
	Denied         State = "denied"          // a person said no
	Expired        State = "expired"         // nobody approved it, or nobody used it, in time
	Cancelled      State = "cancelled"       // the run ended, or policy or tool changed
	OutcomeUnknown State = "outcome-unknown" // started; the daemon ended before the outcome was known
)

// open reports whether the action may still be approved or started.
func (s State) open() bool { return s == Pending || s == Granted }

func (s State) known() bool {
	switch s {
	case Pending, Granted, Claimed, Settled, Denied, Expired, Cancelled, OutcomeUnknown:
		return true
	}
	return false
}

// Presence says how a person showed to be there.
type Presence string

// PresenceTerminal is a person at an interactive terminal. It is weaker than
// a fresh sign-in: a program that holds the terminal can feign it.
const PresenceTerminal Presence = "terminal"

// Approver is who approves or denies. The caller has taken all of it from the
// kernel and the user database, not from what the person sent.
type Approver struct {
	UID      uint32
	Name     string
	Groups   []string
	Presence Presence
	PID      int
	// PeerCheck is the evidence that the caller's process is in no run, for
	// example the cgroup it was found in. Without it nobody approves or denies.
	PeerCheck string
}

// Vote is one person's answer.
type Vote struct {
	Approve   bool      `json:"approve"`
	UID       uint32    `json:"uid"`
	Name      string    `json:"name,omitempty"`
	Presence  Presence  `json:"presence,omitempty"`
	PID       int       `json:"pid,omitempty"`
	PeerCheck string    `json:"peer_check"`
	Reason    string    `json:"reason,omitempty"`
	Time      time.Time `json:"time"`
}

// Outcome is how a started action ended.
type Outcome struct {
	Status int    `json:"status,omitempty"` // of the protocol, for HTTP the status code; 0 if there is none
	Error  string `json:"error,omitempty"`  // why there is no status
}

// Approval is one held action and what became of it. Values are copies; to
// alter one alters nothing in the Store, but its slices and pointers are shared
// and must not be written to.
type Approval struct {
	ID    string `json:"id"` // apr_ followed by a ULID
	State State  `json:"state"`
	// Request is what would run. Its long fields are cut: Cut says so.
	Request        decision.Request  `json:"request"`
	Cut            bool              `json:"cut,omitempty"`
	PreviewDigest  string            `json:"preview_digest"` // "sha256:" and hex, of Request.Preview as kept here
	Reasons        []decision.Reason `json:"reasons"`        // why it is held
	Need           decision.Need     `json:"need"`
	PolicyRevision string            `json:"policy_revision"`
	// Previous is the approval of the same request that this one comes after.
	Previous string    `json:"previous,omitempty"`
	Created  time.Time `json:"created"`
	Expires  time.Time `json:"expires"`
	Changed  time.Time `json:"changed"`
	Claimed  time.Time `json:"claimed,omitzero"`
	Votes    []Vote    `json:"votes,omitempty"`
	Outcome  *Outcome  `json:"outcome,omitempty"`
	// Note says why it was cancelled.
	Note string `json:"note,omitempty"`
}

// key is what an approval is bound to.
type key struct {
	run, digest, policy, toolRevision, tool, action string
}

func keyOf(r decision.Request, policyRevision string) key {
	return key{
		run: r.Run.ID, digest: r.Digest, policy: policyRevision,
		toolRevision: r.ToolRevision, tool: r.Tool, action: r.Action,
	}
}

func (a Approval) key() key { return keyOf(a.Request, a.PolicyRevision) }

// answers reports whether a repeated question is answered by a, at now, rather
// than by a new approval. A refusal stands as long as the approval would have;
// a started action as long again, counted from its start, and always while its
// outcome is awaited.
func (a Approval) answers(now time.Time) bool {
	switch a.State {
	case Pending, Granted, Denied:
		return now.Before(a.Expires)
	case Claimed:
		return true
	case Settled, OutcomeUnknown:
		return now.Before(a.Claimed.Add(a.Expires.Sub(a.Created)))
	default:
		return false
	}
}

// approvals counts the people who approved.
func (a Approval) approvals() int {
	n := 0
	for _, v := range a.Votes {
		if v.Approve {
			n++
		}
	}
	return n
}

// EventKind names a transition.
type EventKind string

// The transitions that are told to Events.
const (
	EventRequested      EventKind = "requested"
	EventVoted          EventKind = "voted" // an approval that does not make the quorum yet
	EventGranted        EventKind = "granted"
	EventDenied         EventKind = "denied"
	EventExpired        EventKind = "expired"
	EventCancelled      EventKind = "cancelled"
	EventClaimed        EventKind = "claimed"
	EventSettled        EventKind = "settled"
	EventOutcomeUnknown EventKind = "outcome-unknown"
	// EventVoided says that the transition which was told just before did not
	// take effect.
	EventVoided EventKind = "voided"
)

// Change is one transition.
type Change struct {
	Event    EventKind
	From     State // "" if the approval is new
	Approval Approval
	Vote     *Vote // the vote that caused it, if one did
	Time     time.Time
}

// Events keeps transitions. Note returns nil only after c is kept durably; the
// transition takes effect after that. An error means that it does not happen.
// Calls come one at a time, and must not call the Store.
type Events interface {
	Note(ctx context.Context, c Change) error
}

// Runs knows what is in force now. Its methods must not call the Store.
type Runs interface {
	// Alive reports whether the run exists and has not ended.
	Alive(runID string) bool
	// Current returns the revision of the policy, and that of the tool as the
	// run may use it; "" if it may not, or if tool is "".
	Current(runID, tool string) (policyRevision, toolRevision string)
}
