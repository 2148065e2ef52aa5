// Package api is the language of the admin API: what goes over the socket, and
// a client that speaks it. Text in these types may come from a workload; who
// prints it escapes it.
package api

import (
	"net/netip"
	"time"

	"github.com/varvel/varvel/internal/admin/health"
	"github.com/varvel/varvel/internal/config"
	"github.com/varvel/varvel/internal/decision"
)

// Status is the state of the node.
type Status struct {
	Version          string           `json:"version"`
	Node             string           `json:"node"`
	Boot             string           `json:"boot,omitempty"`
	TrustDomain      string           `json:"trust_domain"`
	Started          time.Time        `json:"started"`
	Healthy          bool             `json:"healthy"` // nothing is failing
	Findings         []health.Finding `json:"findings"`
	Runs             int              `json:"runs"`
	Agents           int              `json:"agents"`
	Tools            int              `json:"tools"`
	ApprovalsPending int              `json:"approvals_pending"`
	PolicyRevision   string           `json:"policy_revision,omitempty"`
	ConfigDir        string           `json:"config_dir"`
	AuditSeq         uint64           `json:"audit_seq"`          // of the last event
	Controls         []Control        `json:"controls,omitempty"` // how runs are confined on this kernel
}

// Control is one way in which runs are confined, and whether this kernel has it.
type Control struct {
	Name   string `json:"name"`
	Active bool   `json:"active"`
	Detail string `json:"detail,omitempty"`
}

// Run is one live run.
type Run struct {
	ID               string              `json:"id"`
	Agent            string              `json:"agent"`
	Owner            string              `json:"owner,omitempty"`
	Mode             decision.Mode       `json:"mode"`
	Account          string              `json:"account"` // the machine account, a SPIFFE ID
	StartedBy        *decision.LocalUser `json:"started_by,omitempty"`
	Started          time.Time           `json:"started"`
	Tools            []string            `json:"tools"`
	Command          []string            `json:"command"`
	CgroupPath       string              `json:"cgroup_path"`
	CgroupID         uint64              `json:"cgroup_id"`
	ApprovalsPending int                 `json:"approvals_pending"`
	Starting         bool                `json:"starting"` // its command has not begun: it would not outlive the daemon
	Revoked          bool                `json:"revoked"`
	Frozen           bool                `json:"frozen"` // stopped by an operator, by the cgroup's freezer
}

// Agent is one configured agent.
type Agent struct {
	Name   string            `json:"name"`
	Owner  string            `json:"owner,omitempty"`
	Mode   decision.Mode     `json:"mode"`
	Tools  []string          `json:"tools"`
	Egress []EgressRule      `json:"egress"`
	Listen []ListenRule      `json:"listen"`
	Launch config.Principals `json:"launch"`
	Runs   int               `json:"runs"` // live ones
	File   string            `json:"file"`
	Line   int               `json:"line"`
}

// EgressRule is one rule of an agent, as text.
type EgressRule struct {
	Destination string `json:"destination"` // a name, a pattern or a range
	Ports       string `json:"ports"`
	Protocol    string `json:"protocol"`
	Why         string `json:"why,omitempty"`
	File        string `json:"file"`
	Line        int    `json:"line"`
}

// ListenRule is one listen rule of an agent, as text.
type ListenRule struct {
	Port     string   `json:"port"`
	Protocol string   `json:"protocol"`
	From     []string `json:"from"`
	Why      string   `json:"why,omitempty"`
	File     string   `json:"file"`
	Line     int      `json:"line"`
}

// Tool is one configured tool.
type Tool struct {
	Name     string   `json:"name"`
	Hosts    []string `json:"hosts"`
	Client   string   `json:"client"`
	Upstream string   `json:"upstream,omitempty"`
	Audience string   `json:"audience,omitempty"` // of its credential
	Attached bool     `json:"attached"`           // the gateway puts the credential on requests
	Actions  []Action `json:"actions"`
	Agents   []string `json:"agents"` // that may use it
	Revision string   `json:"revision"`
	File     string   `json:"file"`
	Line     int      `json:"line"`
}

// Action is one action of a tool.
type Action struct {
	Name     string        `json:"name"`
	Methods  []string      `json:"methods"`
	Path     string        `json:"path"`
	Risk     decision.Risk `json:"risk"`
	Approval string        `json:"approval,omitempty"`
}

// Lease is one token that is cached at the moment. The token is not in it.
type Lease struct {
	Run      string    `json:"run"`
	Agent    string    `json:"agent"`
	Tool     string    `json:"tool"`
	Audience string    `json:"audience"`
	Expires  time.Time `json:"expires"`
}

// Vote is the body of a request to approve or deny. Preview is the approval's
// preview digest, so that what is approved is what was shown.
type Vote struct {
	Reason   string `json:"reason,omitempty"`
	Preview  string `json:"preview_digest,omitempty"` // required to approve
	Presence string `json:"presence,omitempty"`       // PresenceTerminal or ""
}

// PresenceTerminal says that a person has just typed a code at a terminal.
const PresenceTerminal = "terminal"

// Verdict is the short answer of Why.
type Verdict string

// The verdicts of Why.
const (
	Allowed Verdict = "allowed"
	Denied  Verdict = "denied"
	// Judged means that the destination is reached, and each request is
	// judged by the actions of a tool.
	Judged Verdict = "judged"
)

// Why explains what becomes of a run's connections to a destination.
type Why struct {
	Run         string        `json:"run"`
	Agent       string        `json:"agent"`
	Mode        decision.Mode `json:"mode"`
	Destination Destination   `json:"destination"`
	Inbound     *Inbound      `json:"inbound,omitempty"` // if it was asked about who comes in; then there is no destination
	Verdict     Verdict       `json:"verdict"`
	Sentence    string        `json:"sentence"`
	By          *Source       `json:"by,omitempty"`  // the rule or tool that answers
	Fix         *Fix          `json:"fix,omitempty"` // how an operator would allow it
	Notes       []string      `json:"notes,omitempty"`
}

// Destination is where a connection would go.
type Destination struct {
	Name    string     `json:"name,omitempty"`
	Address netip.Addr `json:"address,omitzero"`
	Port    uint16     `json:"port,omitempty"` // 0: any
}

// Inbound is who would come to a port of a run.
type Inbound struct {
	From     netip.Addr `json:"from"`
	Port     uint16     `json:"port"`
	Protocol string     `json:"protocol"` // "tcp" or "udp"
}

// Source is a place in the configuration.
type Source struct {
	Kind string `json:"kind"` // "rule", "tool" or "policy"
	Text string `json:"text"`
	File string `json:"file,omitempty"`
	Line int    `json:"line,omitempty"`
}

// Fix is text to add to a configuration file.
type Fix struct {
	File string `json:"file"`
	Line int    `json:"line"` // of the key under which the text belongs
	Key  string `json:"key"`
	YAML string `json:"yaml"`
}

// Revoke is the body of a request to revoke a run.
type Revoke struct {
	Reason string `json:"reason,omitempty"`
	Kill   bool   `json:"kill,omitempty"` // end its processes too
}

// Revoked says what was taken from a run.
type Revoked struct {
	Run         string `json:"run"`
	Connections int    `json:"connections"` // that were cut
	Killed      bool   `json:"killed"`
}

// Reload says what is in force after a reload.
type Reload struct {
	PolicyRevision string `json:"policy_revision"`
	Agents         int    `json:"agents"`
	Tools          int    `json:"tools"`
	Runs           int    `json:"runs"` // live runs that got the new configuration
}
