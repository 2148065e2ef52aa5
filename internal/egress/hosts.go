package egress

import (
	"net/netip"
	"strings"
)

// maxServers is how many nameserver lines count (MAXNS in resolv.conf(5)).
const maxServers = 3

// parseHosts reads a hosts file (hosts(5)): on each line an address and its
// names. Lines that cannot be read are passed over, as libc does.
func parseHosts(content []byte) map[string][]netip.Addr {
	hosts := map[string][]netip.Addr{}
	for line := range strings.Lines(string(content)) {
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		addr, err := netip.ParseAddr(fields[0])
		if err != nil {
			continue
		}
		for _, field := range fields[1:] {
			if name, ok := CanonicalHost(field); ok {
				hosts[name] = append(hosts[name], addr.Unmap())
			}
		}
	}
	return hosts
}

// parseResolvConf returns the name servers of a resolv.conf (resolv.conf(5)).
// Without one, it is the name server on this node, as libc has it.
func parseResolvConf(content []byte) []netip.AddrPort {
	var servers []netip.AddrPort
	for line := range strings.Lines(string(content)) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "nameserver" || len(servers) == maxServers {
			continue
		}
		if addr, err := netip.ParseAddr(fields[1]); err == nil {
			servers = append(servers, netip.AddrPortFrom(addr, 53))
		}
	}
	if len(servers) == 0 {
		servers = append(servers, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 53))
	}
	return servers
}
