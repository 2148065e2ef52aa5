package chaos

import (
	"fmt"
	"net/netip"
)

// The machines, by the last number of their addresses.
const (
	hostNode      = 1 // what runs and the daemon send from
	hostOutsiders = 2 // the same machine: what processes outside runs send from
	hostListed    = 10
	hostUnlisted  = 66
	hostNames     = 53
	hostAlpha     = 20
	hostBeta      = 21
)

const (
	port      = 7000
	otherPort = 7001 // of the listed host: open there, but nobody may reach it
	exfil     = "exfil.test"
)

// The agents. Each may reach one name of its own.
const (
	alpha = "alpha"
	beta  = "beta"
)

// outsiders is who processes outside runs say that they are.
const outsiders = "outsiders"

// nameOf is the name that an agent may reach. The top-level domain test is
// reserved for tests (RFC 6761, section 6.2).
func nameOf(agent string) string { return agent + ".chaos.test" }

// hostOf is where that name leads.
func hostOf(agent string) byte {
	if agent == beta {
		return hostBeta
	}
	return hostAlpha
}

// v4 and v6 are the addresses of a machine, from the ranges for documentation
// (RFC 5737, RFC 3849).
func v4(host byte) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, host}) }

func v6(host byte) netip.Addr {
	a := netip.MustParseAddr("2001:db8::").As16()
	a[15] = host
	return netip.AddrFrom16(a)
}

// hostAt is the machine at an address, 0 for one that there is not.
func hostAt(a netip.Addr) byte {
	raw := a.As16()
	host := raw[15]
	if a = a.Unmap(); a == v4(host) || a == v6(host) {
		return host
	}
	return 0
}

// addresses are the lines of ip(8) that give an end of the wire its addresses.
func addresses(hosts ...byte) []string {
	var lines []string
	for _, h := range hosts {
		lines = append(lines, fmt.Sprintf("address add %s/24 dev wire", v4(h)),
			// Nobody else is on the wire, so there is no duplicate to wait for.
			fmt.Sprintf("address add %s/64 dev wire nodad", v6(h)))
	}
	return lines
}

// hidden makes an address one that is used only by who asks for it. Without it,
// the kernel might choose it for somebody else. IPv4 has the first address of a
// network for that (ip-address(8), preferred_lft).
func hidden(lines []string) []string {
	for i := range lines {
		lines[i] += " preferred_lft 0"
	}
	return lines
}

// agentFile is the configuration of an agent. The extra rule is what reloads
// change.
func agentFile(agent string, extraPort int) string {
	return fmt.Sprintf(`agent: %s
owner: chaos
egress:
  - { cidr: %s/32, ports: [%d], protocol: any }
  - { cidr: "%s/128", ports: [%[3]d], protocol: any }
  - { name: %[5]s, ports: [%[3]d], opaque: true }
  - { cidr: 192.0.2.99/32, ports: [%[6]d] }
`, agent, v4(hostListed), port, v6(hostListed), nameOf(agent), extraPort)
}
