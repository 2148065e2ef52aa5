// Package ruleset is the compiled allowlist that user space and the kernel
// share: pure data and its reference judgement. It imports the standard
// library only, so that egress can make rule sets and kernel can load them
// without knowing each other.
package ruleset

import "net/netip"

// Protocol is a transport that a rule may allow. The values are those of the
// IP header (IANA protocol numbers).
type Protocol uint8

// The transports that Varvel lets out.
const (
	TCP Protocol = 6
	UDP Protocol = 17
)

// PortRange allows the ports First to Last, both included, over Protocol.
type PortRange struct {
	First, Last uint16
	Protocol    Protocol
}

// MaxRanges is how many ranges one port set may have (bpf/lib/abi.h,
// VARVEL_PORT_RANGES).
const MaxRanges = 16

// Entry allows the ports of one port set to the addresses of Prefix. The
// prefix is masked; IPv4 is never written as IPv4-mapped IPv6.
type Entry struct {
	Prefix  netip.Prefix
	PortSet uint32 // index into RuleSet.PortSets
}

// RuleSet is the compiled allowlist of one policy revision. Compile has made
// it so that the entry with the longest matching prefix alone answers: its
// port set contains those of all wider prefixes around it.
type RuleSet struct {
	ID       string // hex SHA-256 of the content; equal content, equal id
	Entries  []Entry
	PortSets [][]PortRange
}
