package audit

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"time"

	"github.com/varvel/varvel/internal/decision"
)

// Version is the version of the event schema that this package writes. A
// reader refuses newer ones.
const Version = 1

// MaxEvent is how many bytes the canonical JSON of one event may have.
const MaxEvent = 64 << 10

// Event is one audit record. It has a field for each thing that may be said,
// and none for anything else: there is no free-form map that a token could
// slip into. Fields are in the order of their JSON names, and so are those of
// the types below, because that makes the encoding canonical (RFC 8785).
//
// The log fills in Hash, Prev, Seq and V, Boot and Node from the segment, and
// Time where it is zero. Text that a workload has sent is data: whoever prints
// it escapes it.
type Event struct {
	Action         string                `json:"action,omitempty"`
	Activity       Activity              `json:"activity,omitempty"`
	Actor          string                `json:"actor,omitempty"` // the machine account, a SPIFFE ID
	Agent          string                `json:"agent,omitempty"`
	Approval       *Approval             `json:"approval,omitempty"`
	ApprovalID     string                `json:"approval_id,omitempty"`
	Boot           string                `json:"boot,omitempty"`      // the kernel's boot id
	Component      string                `json:"component,omitempty"` // of Varvel; for health, loss and config
	Confidence     *Confidence           `json:"confidence,omitempty"`
	Correlation    string                `json:"correlation,omitempty"` // joins decision, approval and outcome
	Count          uint64                `json:"count,omitempty"`       // how many occurrences this event stands for; 0 is 1
	Counts         map[string]uint64     `json:"counts,omitempty"`      // numbers by code, such as refusals by reason
	Credential     *Credential           `json:"credential,omitempty"`
	DecisionID     string                `json:"decision_id,omitempty"`
	Digest         string                `json:"digest,omitempty"` // "sha256:" and hex, of the canonical request
	DNS            *DNS                  `json:"dns,omitempty"`
	Effect         decision.Effect       `json:"effect,omitempty"`
	Hash           Hash                  `json:"hash,omitzero"` // not part of what is hashed
	HTTP           *HTTP                 `json:"http,omitempty"`
	Kind           Kind                  `json:"kind"`
	ListenSet      string                `json:"listen_set,omitempty"` // id of the compiled listen rules
	Message        string                `json:"message,omitempty"`    // one sentence, written by Varvel
	Mode           decision.Mode         `json:"mode,omitempty"`
	Node           string                `json:"node,omitempty"`
	Obligations    []decision.Obligation `json:"obligations,omitempty"`
	Owner          string                `json:"owner,omitempty"`
	Peer           *Peer                 `json:"peer,omitempty"` // who came in to the target
	Person         *decision.Person      `json:"person,omitempty"`
	PolicyRevision string                `json:"policy_revision,omitempty"`
	Prev           Hash                  `json:"prev,omitzero"`     // not part of the payload
	Preview        string                `json:"preview,omitempty"` // what an approver was shown
	Process        *Process              `json:"process,omitempty"`
	Reasons        []decision.Reason     `json:"reasons,omitempty"`
	Revision       string                `json:"revision,omitempty"` // of the configuration
	Risk           decision.Risk         `json:"risk,omitempty"`
	RuleSet        string                `json:"rule_set,omitempty"` // id of the compiled allowlist
	Run            string                `json:"run,omitempty"`
	Seq            uint64                `json:"seq,omitempty"` // 1 is the first; not part of the payload
	StartedBy      *User                 `json:"started_by,omitempty"`
	Target         *Target               `json:"target,omitempty"`
	Threshold      float64               `json:"threshold,omitempty"`
	Time           time.Time             `json:"time,omitzero"` // UTC
	Tool           string                `json:"tool,omitempty"`
	ToolRevision   string                `json:"tool_revision,omitempty"`
	V              int                   `json:"v"`
	Would          decision.Effect       `json:"would,omitempty"` // what enforce mode would have said
}

// Approval is what is known of an approval, or of an override.
type Approval struct {
	By       *User                 `json:"by,omitempty"` // who voted
	Expires  time.Time             `json:"expires,omitzero"`
	Groups   []string              `json:"groups,omitempty"`
	Kind     decision.ApprovalKind `json:"kind,omitempty"`
	Outcome  string                `json:"outcome,omitempty"`  // of the execution, once settled
	Presence string                `json:"presence,omitempty"` // how it was shown that a person was there
	Quorum   int                   `json:"quorum,omitempty"`
	Reason   string                `json:"reason,omitempty"` // the voter's own words
}

// Confidence is how sure somebody was, from 0 to 1, and who.
type Confidence struct {
	Source string  `json:"source"`
	Value  float64 `json:"value"`
}

// Credential describes a token without holding any part of it.
type Credential struct {
	Audience        string    `json:"audience,omitempty"`
	Expires         time.Time `json:"expires,omitzero"`
	LeaseID         string    `json:"lease_id,omitempty"` // the token's identifier (jti), never the token
	LifetimeSeconds int64     `json:"lifetime_seconds,omitempty"`
}

// DNS is one query and how it was answered.
type DNS struct {
	Answers []netip.Addr `json:"answers,omitempty"`
	Code    string       `json:"code,omitempty"` // NOERROR, NXDOMAIN, …
	Name    string       `json:"name"`
	Type    string       `json:"type,omitempty"` // A, AAAA, …
}

// HTTP is one request and, where known, its response.
type HTTP struct {
	Authority     string `json:"authority,omitempty"`
	Method        string `json:"method,omitempty"`
	Path          string `json:"path,omitempty"`
	Query         string `json:"query,omitempty"`
	RequestBytes  int64  `json:"request_bytes,omitempty"`
	ResponseBytes int64  `json:"response_bytes,omitempty"`
	Status        int    `json:"status,omitempty"`
}

// Process is who acted, as the kernel saw it.
type Process struct {
	Command  []string `json:"command,omitempty"` // argv, bounded
	ExitCode *int     `json:"exit_code,omitempty"`
	Parent   int      `json:"parent,omitempty"`
	PID      int      `json:"pid,omitempty"`     // in the node's PID namespace
	Program  string   `json:"program,omitempty"` // path or comm
	Signal   int      `json:"signal,omitempty"`
	UID      uint32   `json:"uid"`
}

// Target is where an action went.
type Target struct {
	Address  netip.Addr `json:"address,omitzero"`
	Name     string     `json:"name,omitempty"`
	Port     uint16     `json:"port,omitempty"`
	Protocol string     `json:"protocol,omitempty"`
}

// Peer is who has come in from outside, to a port of the run that is the target.
type Peer struct {
	Address netip.Addr `json:"address,omitzero"`
	Port    uint16     `json:"port,omitempty"` // 0: several
}

// User is a user of this node, as the kernel vouches for it.
type User struct {
	Name string `json:"name,omitempty"`
	UID  uint32 `json:"uid"`
}

// Hash is a SHA-256 value of the chain.
type Hash [32]byte

// String returns the hash in hex.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText returns the hash in hex.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads 64 hex digits in lower case and refuses everything else.
func (h *Hash) UnmarshalText(b []byte) error {
	var out Hash
	if n, err := hex.Decode(out[:], truncate(b, 2*len(out))); err != nil || n != len(out) || out.String() != string(b) {
		return fmt.Errorf("not a SHA-256 hash in lower-case hex: %.80q", b)
	}
	*h = out
	return nil
}

func truncate(b []byte, n int) []byte { return b[:min(len(b), n)] }
