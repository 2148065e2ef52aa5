package decision

import (
	"strings"
	"time"
)

// Effect is what a decision says.
type Effect string

// The effects. The zero value is not one of them: an Effect that is not
// exactly EffectAllow means that the action does not happen.
const (
	EffectAllow Effect = "allow"
	EffectDeny  Effect = "deny"
	EffectHold  Effect = "hold"
)

// Reason explains a decision: the id of the rule that spoke, and one sentence.
type Reason struct {
	Rule string `json:"rule"`
	Text string `json:"text"`
}

// Obligation is something that the enforcing layer must do with an allow.
type Obligation struct {
	Name  string `json:"name"`
	Value string `json:"value,omitempty"`
}

// ApprovalKind says who may resolve a held action.
type ApprovalKind string

// The kinds of approval.
const (
	FourEyes ApprovalKind = "four-eyes" // somebody other than the requester
	Confirm  ApprovalKind = "confirm"   // the requester, present at a terminal
)

// Need is what it takes to approve a held action.
type Need struct {
	Kind    ApprovalKind  `json:"kind"`
	Groups  []string      `json:"groups,omitempty"` // local groups; empty: any approver
	Quorum  int           `json:"quorum"`           // at least 1
	Expires time.Duration `json:"expires"`
	Exclude []string      `json:"exclude,omitempty"` // local user names who may not
}

// Verdict is the evaluator's answer.
type Verdict struct {
	Effect      Effect       `json:"effect"`
	Reasons     []Reason     `json:"reasons"`
	Obligations []Obligation `json:"obligations,omitempty"`
	Need        *Need        `json:"need,omitempty"` // present if Effect is hold
	Revision    string       `json:"revision"`       // of the policy that answered
}

// Decision is what the Engine returns. Effect is final: EffectHold means that
// nobody has resolved the action yet, and that it must not happen now.
type Decision struct {
	ID          string       `json:"id"`
	Effect      Effect       `json:"effect"`
	Reasons     []Reason     `json:"reasons"`
	Obligations []Obligation `json:"obligations,omitempty"`
	Revision    string       `json:"revision,omitempty"`
	// Would is the effect that enforce mode would have had, where an agent in
	// observe mode was let through.
	Would Effect `json:"would,omitempty"`
	// ApprovalID names the approval that a held action waits for, or that let
	// an allowed one through.
	ApprovalID string `json:"approval_id,omitempty"`
	// Expires is when a pending approval ends.
	Expires time.Time `json:"expires,omitzero"`
}

// Allowed reports whether the action may happen.
func (d Decision) Allowed() bool { return d.Effect == EffectAllow }

// approvalRules begins the ids of an Approver's reasons.
const approvalRules = "approval."

// Rule returns the id of the rule that decided, or "none": the first one that
// spoke, or the approver's, if it turned a hold into a denial.
func (d Decision) Rule() string {
	if len(d.Reasons) == 0 {
		return "none"
	}
	if last := d.Reasons[len(d.Reasons)-1]; d.Effect == EffectDeny && strings.HasPrefix(last.Rule, approvalRules) {
		return last.Rule
	}
	return d.Reasons[0].Rule
}
