// Package tool is the catalogue of what agents may use: the hosts of a tool,
// how the gateway speaks to them, the credential that it attaches, and the
// actions with their risk classes. It matches a request to an action. Values
// are made by package config and are never changed afterwards.
package tool

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/varvel/varvel/internal/decision"
)

// How a client inside a run speaks to a tool.
const (
	ClientHTTP = "http" // plain HTTP; the gateway matches actions and injects credentials
	ClientPass = "pass" // TLS that the gateway passes on after it has compared the SNI with the name
)

// How the gateway reaches the upstream.
const (
	UpstreamTLS   = "tls"   // TLS, with the name verified
	UpstreamPlain = "plain" // no TLS; only to addresses in Tool.Within
)

// ViaWorkload says that a host is dialled from the network namespace of the run.
const ViaWorkload = "workload"

// DefaultMaxBody is the limit of a request body, in bytes, for an action that
// sets none.
const DefaultMaxBody = 1 << 20

// Position is a place in a configuration file. Line counts from 1; 0 means the
// file as a whole.
type Position struct {
	File string
	Line int
}

// String returns file:line, or the file alone if there is no line.
func (p Position) String() string {
	if p.Line == 0 {
		return p.File
	}
	return p.File + ":" + strconv.Itoa(p.Line)
}

// Tool is a named thing that an agent may use.
type Tool struct {
	Name     string         `json:"name"`
	Hosts    []Host         `json:"hosts"`
	Client   string         `json:"client"`             // ClientHTTP or ClientPass
	Upstream string         `json:"upstream,omitempty"` // UpstreamTLS or UpstreamPlain; "" with ClientPass
	Within   []netip.Prefix `json:"within,omitempty"`   // where the hosts may resolve to, if private or plain
	Via      string         `json:"via,omitempty"`      // ViaWorkload, or "": dialled from the node's network namespace
	CAFile   string         `json:"ca_file,omitempty"`  // PEM roots for the upstream, besides the system's

	Credential *Credential `json:"credential,omitempty"` // nil if the tool has none
	Actions    []Action    `json:"actions,omitempty"`

	// Revision is "sha256:" and the hex digest of the definition. See Seal.
	Revision string   `json:"revision,omitempty"`
	Pos      Position `json:"-"` // of the tool's name
}

// Host is a name and a port. The name is lower case ASCII, without a trailing
// dot, and never a wildcard or an address.
type Host struct {
	Name string `json:"name"`
	Port uint16 `json:"port"`
}

// String returns name:port.
func (h Host) String() string { return fmt.Sprintf("%s:%d", h.Name, h.Port) }

// Credential says which token a tool needs and what becomes of it.
type Credential struct {
	Issuer Issuer `json:"issuer"`
	// Attach is how the gateway puts the token on a request. If it is nil, the
	// program gets the token from the endpoint, and the gateway adds nothing.
	Attach *Attach `json:"attach,omitempty"`
}

// Issuer describes a token of the embedded issuer.
type Issuer struct {
	Audience string        `json:"audience"`
	Lifetime time.Duration `json:"lifetime"`
}

// Attach is a header of the upstream request that carries the token.
type Attach struct {
	Header string `json:"header"` // canonical form, as in http.Header
	Value  string `json:"value"`  // contains TokenPlaceholder once
}

// Action is one named operation of a tool.
type Action struct {
	Name string        `json:"name"`
	HTTP HTTP          `json:"http"`
	Risk decision.Risk `json:"risk"`
	// Threshold is the confidence, from 0 to 1, that lets a write go without a
	// person. 1 if the operator set none.
	Threshold float64 `json:"threshold"`
	// Approval is what the operator chose, or "" for the policy's default.
	Approval decision.ApprovalKind `json:"approval,omitempty"`
	// DigestHeaders are the request headers that an approval covers, besides
	// method, authority, path, query, body, Content-Type and Content-Encoding.
	// Canonical form.
	DigestHeaders []string `json:"digest_headers,omitempty"`
	MaxBody       int64    `json:"max_body"` // bytes
	Pos           Position `json:"-"`
}

// HTTP tells which requests are an action.
type HTTP struct {
	Methods []string `json:"methods"` // upper case
	Path    Template `json:"path"`
}

// Ports of the two schemes of HTTP (RFC 9110, sections 4.2.1 and 4.2.2).
const (
	portHTTP  = 80
	portHTTPS = 443
)

// Reached returns the hosts and ports at which programs reach the tool: those of
// its definition, and port 80 of a host that the gateway upgrades to TLS at 443,
// so that http://HOST/ works.
func (t *Tool) Reached() []Host {
	if t.Client != ClientHTTP || t.Upstream != UpstreamTLS {
		return t.Hosts
	}
	all := slices.Clone(t.Hosts)
	for _, h := range t.Hosts {
		plain := Host{Name: h.Name, Port: portHTTP}
		if h.Port == portHTTPS && !slices.Contains(all, plain) {
			all = append(all, plain)
		}
	}
	return all
}

// HasHost reports whether the tool is reached at name and port.
func (t *Tool) HasHost(name string, port uint16) bool {
	return slices.Contains(t.Reached(), Host{Name: name, Port: port})
}

// UpstreamPort is the upstream's port for one at which the tool is reached.
func (t *Tool) UpstreamPort(name string, port uint16) uint16 {
	if port == portHTTP && !slices.Contains(t.Hosts, Host{Name: name, Port: portHTTP}) {
		return portHTTPS
	}
	return port
}
