package config

import (
	"fmt"
	"net/netip"
	"strings"
)

// special is a range that a rule never opens.
type special struct {
	prefix   netip.Prefix
	what     string
	loopback bool
}

// specials returns the ranges that no rule opens: those that mean this node,
// those that carry credentials of the node to whoever asks, and those that
// Varvel itself uses.
func specials() []special {
	return []special{
		{mustPrefix("127.0.0.0/8"), "loopback", true},
		{mustPrefix("::1/128"), "loopback", true},
		{mustPrefix("0.0.0.0/8"), "addresses that mean this host (RFC 1122 section 3.2.1.3)", false},
		{mustPrefix("::/128"), "the unspecified address", false},
		{mustPrefix("169.254.0.0/16"), "link-local addresses, with the metadata service of most clouds", false},
		{mustPrefix("fe80::/10"), "link-local addresses", false},
		{mustPrefix("224.0.0.0/4"), "multicast", false},
		{mustPrefix("ff00::/8"), "multicast", false},
		{mustPrefix("240.0.0.0/4"), "reserved addresses and broadcast (RFC 1112 section 4)", false},
		{mustPrefix("fd00:ec2::/32"), "the metadata service of AWS", false},
		{mustPrefix("fd20:ce::254/128"), "the metadata service of Google Cloud", false},
		{mustPrefix("168.63.129.16/32"), "the host service of Azure", false},
		{mustPrefix("100.100.100.200/32"), "the metadata service of Alibaba Cloud", false},
		{mustPrefix("192.0.0.192/32"), "the metadata service of Oracle Cloud", false},
		{mustPrefix("198.18.0.0/15"), "Varvel's synthetic addresses", false},
		{mustPrefix("fd56:6172:7665:6c00::/64"), "Varvel's synthetic addresses", false},
	}
}

// mustPrefix parses a constant.
func mustPrefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// ForbiddenAddress reports whether addr is one to which no name may lead and
// no rule opens: metadata services, link-local, multicast, reserved, Varvel's
// own synthetic addresses, and loopback. IPv4-mapped IPv6 is judged as IPv4.
// For loopback it reports that too, because a tool with a plain upstream may
// be granted it.
func ForbiddenAddress(addr netip.Addr) (what string, loopback, forbidden bool) {
	addr = addr.Unmap().WithZone("")
	for _, s := range specials() {
		if s.prefix.Contains(addr) {
			return s.what, s.loopback, true
		}
	}
	return "", false, false
}

// parseCIDR reads a range in canonical form.
func parseCIDR(s string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(s); err == nil && addr.Zone() == "" {
		return netip.Prefix{}, problem(fmt.Sprintf("write %q", netip.PrefixFrom(addr, addr.BitLen())), "%q has no prefix length", s)
	}
	p, err := netip.ParsePrefix(s)
	switch {
	case strings.ContainsRune(s, '%'):
		return netip.Prefix{}, problem("remove the rule: link-local addresses, whose scope id says on which link they are, are never opened; use the host's other address", "%q has a scope id", s)
	case err != nil:
		return netip.Prefix{}, problem("write an address and a prefix length, such as 192.0.2.0/24 or 2001:db8::/32", "%q is not an address range", s)
	case p.Addr().Is4In6():
		return netip.Prefix{}, problem(mappedHint(p), "%q is an IPv4 range written as IPv6", s)
	case p.Masked() != p:
		single := netip.PrefixFrom(p.Addr(), p.Addr().BitLen())
		return netip.Prefix{}, problem(fmt.Sprintf("write %q, or %q for the one address", p.Masked(), single), "%q has bits set beyond its prefix length", s)
	}
	return p, nil
}

func mappedHint(p netip.Prefix) string {
	if p.Bits() < 96 {
		return "write the IPv4 range"
	}
	return fmt.Sprintf("write %q", netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96).Masked())
}

// checkGrant refuses a range that overlaps with a special one. Loopback is
// left out if it is granted.
func checkGrant(p netip.Prefix, loopback bool) error {
	for _, s := range specials() {
		if !s.prefix.Overlaps(p) || s.loopback && loopback && covers(s.prefix, p) {
			continue
		}
		if covers(s.prefix, p) {
			return problem(grantHint(s), "%s is never opened: it is part of %s (%s)", p, s.prefix, s.what)
		}
		return problem("list narrower ranges that leave it out", "%s is never opened: it contains %s (%s)", p, s.prefix, s.what)
	}
	return nil
}

func grantHint(s special) string {
	if s.loopback {
		return "only a tool with `upstream: plain` may have loopback in its `within`; a run reaches its own listeners without a rule"
	}
	return "remove the rule"
}

// covers reports whether all of p is in wide.
func covers(wide, p netip.Prefix) bool {
	return wide.Bits() <= p.Bits() && wide.Contains(p.Addr())
}
