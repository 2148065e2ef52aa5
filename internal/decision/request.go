// Package decision is where an action is judged. It holds the words that every
// layer shares (Request, Decision, Reason, Obligation), the three interfaces
// that the layers implement (Evaluator, Approver, Recorder) and the Engine that
// calls them in the one order that is safe: evaluate, ask, record, return.
//
// It imports the standard library only, and nothing of Varvel.
package decision

import (
	"net/netip"
	"time"
)

// Kind names what sort of action a Request is.
type Kind string

// The kinds of action that Varvel judges. The policy input has one shape for
// all of them; fields that a kind does not use are absent.
const (
	KindConnect    Kind = "connect"    // a rule set or a name to be dialled
	KindHTTP       Kind = "http"       // one HTTP request of a tool
	KindCredential Kind = "credential" // a token to be minted
)

// Risk is the risk class of an action, as the operator declared it. The zero
// value is RiskUnknown, and what is unknown is denied.
type Risk string

// The risk classes, from harmless to final.
const (
	RiskUnknown      Risk = ""
	RiskRead         Risk = "read"         // changes nothing
	RiskWrite        Risk = "write"        // changes something, reversibly
	RiskIrreversible Risk = "irreversible" // cannot be taken back
)

// Mode says whether an agent's denials bite.
type Mode string

// The modes of an agent.
const (
	ModeEnforce Mode = "enforce" // what policy denies does not happen
	ModeObserve Mode = "observe" // what policy would deny is recorded and happens
)

// Run identifies one execution of an agent.
type Run struct {
	ID    string `json:"id"`    // run_ followed by a ULID
	Agent string `json:"agent"` // the agent's configured name
	Owner string `json:"owner,omitempty"`
	Node  string `json:"node,omitempty"`
	Boot  string `json:"boot,omitempty"` // the kernel's boot id
	Mode  Mode   `json:"mode"`
}

// Actor says who acts: the machine account, and the person on whose behalf it
// acts if a verified delegation exists.
type Actor struct {
	Account string  `json:"account"` // spiffe://TRUST_DOMAIN/agent/NAME
	Person  *Person `json:"person,omitempty"`
	// StartedBy is the local user whose process asked for the run, from the
	// kernel's peer credentials. It is evidence, not delegation.
	StartedBy *LocalUser `json:"started_by,omitempty"`
}

// Person is a verified human, by issuer and subject, never by e-mail.
type Person struct {
	Issuer  string `json:"iss"`
	Subject string `json:"sub"`
}

// LocalUser is a user of this node, as the kernel vouches for it.
type LocalUser struct {
	UID  uint32 `json:"uid"`
	Name string `json:"name,omitempty"`
}

// Target is where an action goes.
type Target struct {
	Name     string     `json:"name,omitempty"` // lower case, no trailing dot
	Address  netip.Addr `json:"address,omitzero"`
	Port     uint16     `json:"port,omitempty"`
	Protocol string     `json:"protocol,omitempty"` // tcp or udp
}

// HTTP holds the parts of an HTTP request that a policy may look at. Values
// are what the gateway will send, after canonicalisation.
type HTTP struct {
	Method    string `json:"method"`
	Authority string `json:"authority"`
	Path      string `json:"path"`
	Query     string `json:"query,omitempty"`
	BodySize  int64  `json:"body_size,omitempty"` // bytes; -1 if it was not read
}

// Credential describes a token that is asked for.
type Credential struct {
	Audience string        `json:"audience"`
	Lifetime time.Duration `json:"lifetime"`
}

// Confidence is how sure somebody is that the action is right, from 0 to 1.
type Confidence struct {
	Value  float64 `json:"value"`
	Source string  `json:"source"` // agent, history or operator
}

// Request is one action that somebody wants to do. Identity in it comes from
// the kernel; what the workload sent is data in HTTP, Credential and Preview.
type Request struct {
	ID     string `json:"id"` // dec_ and a ULID; the Engine fills it in
	Kind   Kind   `json:"kind"`
	Run    Run    `json:"run"`
	Actor  Actor  `json:"actor"`
	Tool   string `json:"tool,omitempty"`
	Action string `json:"action,omitempty"` // "" if no action of the tool matches
	Risk   Risk   `json:"risk,omitempty"`
	Target Target `json:"target"`

	HTTP       *HTTP       `json:"http,omitempty"`
	Credential *Credential `json:"credential,omitempty"`

	// Threshold is the confidence that lets a write go without a person; 1 if
	// the action sets none.
	Threshold  float64     `json:"threshold,omitempty"`
	Confidence *Confidence `json:"confidence,omitempty"`
	// ApprovalKind is what the operator configured for the action, or "" for
	// the policy's default.
	ApprovalKind ApprovalKind `json:"approval_kind,omitempty"`

	// Digest is "sha256:" and the hex digest of the canonical request. An
	// approval binds to it. A request without a digest cannot be held.
	Digest string `json:"digest,omitempty"`
	// ToolRevision is the digest of the tool's definition.
	ToolRevision string `json:"tool_revision,omitempty"`
	// Preview is what a person is shown: bounded and escaped by its maker.
	Preview string    `json:"preview,omitempty"`
	Time    time.Time `json:"time"`
}
