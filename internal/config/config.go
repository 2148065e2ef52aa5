// Package config reads the configuration of a node: strict YAML, with
// defaults, and with every problem at once, each at its file and line.
package config

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/varvel/varvel/internal/decision"
	"github.com/varvel/varvel/internal/tool"
)

// Position is a place in a configuration file.
type Position = tool.Position

// Config is the configuration of one node. It is never changed after Load.
type Config struct {
	Dir    string // as given to Load
	Node   Node
	Agents map[string]*Agent
	Tools  map[string]*tool.Tool
}

// Node is the node's own part, from varvel.yaml.
type Node struct {
	TrustDomain string // of SPIFFE IDs, as in spiffe://TRUST_DOMAIN/agent/NAME
	StateDir    string // absolute; what survives a restart of the node
	RunDir      string // absolute; sockets
	Admin       Admin
	Metrics     Metrics
	Issuer      Issuer
	Policy      Policy
	Approval    Approval
	Roles       map[string]Principals // by role name; see Roles
	Cgroup      string                // where cgroup2 is mounted; "": found by the daemon
	BPFFS       string                // where bpffs is mounted
	DNS         DNS
	Audit       Audit
	Pos         Position // of the node's document
}

// Admin is the operator's API.
type Admin struct {
	Socket string // path of the unix socket
	Group  string // local group that may connect; "": root only
}

// Metrics is the Prometheus endpoint.
type Metrics struct {
	Listen string // address:port
}

// Issuer is the embedded token issuer.
type Issuer struct {
	URL           string        // the iss claim; without a slash at the end
	Listen        string        // address:port of discovery and keys
	KeyLifetime   time.Duration // how long a key signs
	TokenLifetime time.Duration // default and upper limit of a token's life
}

// Policy names the operator's own Rego.
type Policy struct {
	Dirs []string // absolute, or relative to the working directory like Config.Dir; they exist
}

// Approval bounds how long held actions wait.
type Approval struct {
	InBand     time.Duration // how long the program's own request is parked
	Expires    time.Duration // after which an unanswered approval is gone
	MaxPending int           // per run
}

// DNS says where allowed names are resolved.
type DNS struct {
	Upstreams []string      // address:port, in order
	Timeout   time.Duration // of one question to one upstream
}

// Audit sizes the local log.
type Audit struct {
	SegmentSize ByteSize // of one file of the log
	Reserve     ByteSize // kept free on the file system
	MaxSize     ByteSize // of all files; 0: bounded by the file system and Reserve
}

// Principals are local users and groups, by name.
type Principals struct {
	Users  []string
	Groups []string
}

// Empty reports whether nobody is named.
func (p Principals) Empty() bool { return len(p.Users) == 0 && len(p.Groups) == 0 }

// Roles returns the names of the roles, from the least powerful.
func Roles() []string { return []string{"viewer", "auditor", "approver", "operator"} }

// Agent is a named, configured workload.
type Agent struct {
	Name        string
	Owner       string
	Mode        decision.Mode
	Tools       []string // names; each is in Config.Tools
	Egress      []EgressRule
	Wildcards   Wildcards
	Listen      []ListenRule
	Environment Environment
	Files       Files
	Launch      Principals // who may start it, besides root
	Pos         Position   // of the agent's name

	places places
}

// Environment says which variables reach the agent.
type Environment struct {
	Pass []string // names, or prefixes that end with *
}

// Files are the agent's own file rules. A path is absolute and clean, or such
// a path followed by /** for a whole directory.
type Files struct {
	DenyRead []string
	ReadOnly []string
}

// EgressRule allows destinations, by name or by range.
type EgressRule struct {
	Name     string         // host name or pattern ("*.x", "**.x"); "" if CIDR is set
	CIDR     netip.Prefix   // masked; the zero value if Name is set
	Ports    []PortRange    // sorted, disjoint, never empty: 1-65535 if the operator gave none
	Protocol string         // ProtocolTCP, ProtocolUDP or ProtocolAny; names that are not Direct: ProtocolTCP
	Within   []netip.Prefix // private ranges to which Name may resolve
	Via      string         // Name only: tool.ViaWorkload, or "": dialled from the node's network namespace
	Opaque   bool           // Name only: pass bytes that are not TLS, too
	Direct   bool           // Name only: hand out the name's real addresses, as short leases
	Why      string         // for people
	Pos      Position
}

// The values of EgressRule.Protocol.
const (
	ProtocolTCP = "tcp"
	ProtocolUDP = "udp"
	ProtocolAny = "any" // TCP and UDP
)

// PortRange is the ports First to Last, both included.
type PortRange struct {
	First, Last uint16
}

// String returns 443 or 8000-8100.
func (r PortRange) String() string {
	if r.First == r.Last {
		return fmt.Sprint(r.First)
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

// Contains reports whether port is in the range.
func (r PortRange) Contains(port uint16) bool { return r.First <= port && port <= r.Last }

// Where returns the place of one of the agent's keys, as in "egress" or
// "files", or of the agent itself if it does not have that key.
func (a *Agent) Where(key string) Position {
	if p, ok := a.places.keys[key]; ok {
		return p
	}
	return a.Pos
}
