package world

import (
	"net/netip"
	"path/filepath"
)

// Host is one machine of the demo, with an address of each family. The addresses
// are from the ranges for documentation (RFC 5737, RFC 3849).
type Host struct{ V4, V6 netip.Addr }

// Addrs returns both addresses.
func (h Host) Addrs() []netip.Addr { return []netip.Addr{h.V4, h.V6} }

// Plan says where everything is. It follows from the folder alone, so that the
// demo and its servers agree on it.
type Plan struct {
	Dir string // everything that the demo writes

	Node       Host // the machine that Varvel governs
	Router     Host // its way to everything else
	Names      Host // the name server
	Prometheus Host
	Git        Host
	Shared     Host // one address that two names share
	Issuer     Host // puts TLS before Varvel's issuer, as an ingress would
	Unlisted   Host // what the agent has no business with
}

// The names of the demo's world. The top-level domain test is reserved for
// tests (RFC 6761, section 6.2).
const (
	Domain         = "demo.test"
	NamePrometheus = "prometheus." + Domain
	NameGit        = "git." + Domain
	NameIssuer     = "issuer." + Domain
	NameAllowed    = "allowed." + Domain
	NameOther      = "other." + Domain // shares NameAllowed's address
	// Exfil is a domain whose every name is answered: a way out, for who is
	// allowed to ask.
	Exfil = "exfil.test"
)

// The ports of the demo's world.
const (
	PortPrometheus = 9090
	PortUnlisted   = 7000
	PortIssuer     = 9471
)

// Audience is whom a token for the git server is made for.
const Audience = "https://" + NameGit

// NewPlan returns the plan of the demo in dir.
func NewPlan(dir string) Plan {
	return Plan{
		Dir:        dir,
		Node:       host(1),
		Router:     host(254),
		Names:      host(53),
		Prometheus: host(10),
		Git:        host(11),
		Shared:     host(20),
		Issuer:     host(12),
		Unlisted:   host(66),
	}
}

// host returns the machine with number n on the demo's only network.
func host(n byte) Host {
	v6 := netip.MustParseAddr("2001:db8::").As16()
	v6[15] = n
	return Host{V4: netip.AddrFrom4([4]byte{192, 0, 2, n}), V6: netip.AddrFrom16(v6)}
}

// Servers returns every machine of the world.
func (p Plan) Servers() []Host {
	return []Host{p.Router, p.Names, p.Prometheus, p.Git, p.Shared, p.Issuer, p.Unlisted}
}

// Zone returns what the name server knows.
func (p Plan) Zone() map[string][]netip.Addr {
	return map[string][]netip.Addr{
		NamePrometheus: {p.Prometheus.V4},
		NameGit:        p.Git.Addrs(),
		NameIssuer:     p.Issuer.Addrs(),
		NameAllowed:    p.Shared.Addrs(),
		NameOther:      p.Shared.Addrs(),
	}
}

// IssuerURL is Varvel's token issuer, as relying parties know it.
const IssuerURL = "https://" + NameIssuer

// IssuerListen is where Varvel's issuer listens on the node, without TLS.
func (p Plan) IssuerListen() string { return netip.AddrPortFrom(p.Node.V4, PortIssuer).String() }

// LogFile returns the log of the server called name.
func (p Plan) LogFile(name string) string { return filepath.Join(p.Dir, "logs", name+".log") }

// File returns a file of the demo.
func (p Plan) File(elem ...string) string {
	return filepath.Join(append([]string{p.Dir}, elem...)...)
}

// The logs that the world's servers keep.
const (
	LogNames    = "names"
	LogShared   = "shared"
	LogGit      = "git"
	LogIssuer   = "issuer"
	LogUnlisted = "unlisted"
)
