package egress

import (
	"net/netip"

	"github.com/varvel/varvel/internal/ruleset"
)

// Datapath is where plans are enforced. testutil.ConformDatapath is the contract
// as a test; each implementation must pass it.
type Datapath interface {
	// LoadRuleSet makes a rule set available to all runs. Loading one that is there, by
	// its ID, does nothing. An error means that nothing of it is used.
	LoadRuleSet(rs *ruleset.RuleSet) error
	// UseRuleSet gives a run a loaded rule set, in one step: each judgement is
	// by the old set or by the new one. An error means that the old one rules.
	UseRuleSet(cgroupID uint64, id string) error
	// AllowName lets a run connect to a synthetic address over TCP, at the given
	// single ports, MaxPorts at most; the connection is redirected to the
	// gateway. It adds to what was said of the address before. Nothing takes
	// that back: what the plan in force does not grant, Controller.Lookup
	// refuses.
	AllowName(cgroupID uint64, addr netip.Addr, ports []ruleset.PortRange) error
}

// PeerFinder says whose socket has sent a datagram.
type PeerFinder interface {
	// PeerOf returns the cgroup id of the run whose socket at remote speaks to
	// our socket at local. It answers from what the kernel has noted, never
	// from what the datagram holds.
	PeerOf(local, remote netip.AddrPort) (cgroupID uint64, ok bool)
}

// KnownName is a host, and the synthetic addresses that stand for it in one run.
type KnownName struct {
	Host   string // canonical
	V4, V6 netip.Addr
}

// NameKeeper keeps names for a later daemon.
type NameKeeper interface {
	// KeepName returns nil only if the name outlives this process. It is called
	// once for each name of a run, before anybody is told of its addresses.
	KeepName(run string, n KnownName) error
}
