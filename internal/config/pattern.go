package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/net/publicsuffix"

	"github.com/varvel/varvel/internal/tool"
)

// MatchName reports whether a host name, lower case and without a trailing
// dot, is covered by the name of an egress rule: "*" stands for exactly one
// label, "**" for one or more, each only at the left.
func MatchName(pattern, name string) bool {
	if base, ok := strings.CutPrefix(pattern, "**."); ok {
		rest, ok := strings.CutSuffix(name, "."+base)
		return ok && rest != ""
	}
	if base, ok := strings.CutPrefix(pattern, "*."); ok {
		label, rest, found := strings.Cut(name, ".")
		return found && label != "" && rest == base
	}
	return pattern == name
}

// parsePattern reads the name of an egress rule.
func parsePattern(s string) (string, error) {
	wildcard, base := cutWildcard(s)
	if err := checkPatternText(s, base); err != nil {
		return "", err
	}
	name, err := tool.ParseName(base)
	if err != nil {
		return "", err
	}
	if wildcard == "" {
		return name, nil
	}
	return wildcard + name, checkBreadth(s, name)
}

// cutWildcard splits a pattern into "*.", "**." or nothing, and the rest.
func cutWildcard(s string) (wildcard, base string) {
	for _, w := range []string{"**.", "*."} {
		if base, ok := strings.CutPrefix(s, w); ok {
			return w, base
		}
	}
	return "", s
}

func checkPatternText(s, base string) error {
	switch {
	case base == "*" || base == "**":
		return problem("name a domain below the wildcard, or use a `cidr` rule", "%q would allow every name", s)
	case strings.Contains(base, "*"):
		return problem("write `*.example.org` for one label, `**.example.org` for one or more", "%q has a wildcard that is not the whole leftmost label", s)
	}
	if addr, err := netip.ParseAddr(base); err == nil && addr.Zone() == "" {
		return problem(fmt.Sprintf("write `cidr: %s` instead of `name`", netip.PrefixFrom(addr, addr.BitLen())), "%q is an address, not a name", s)
	}
	name, port, _ := strings.Cut(base, ":")
	if _, err := tool.ParsePort(port); err == nil {
		return problem(fmt.Sprintf("write `name: %s, ports: [%s]`", name, port), "%q has a port", s)
	}
	return nil
}

// checkBreadth refuses a wildcard directly below a public suffix, where names
// belong to anybody. A single label is refused unless it is known to be
// private, because new top-level domains come faster than lists of them.
func checkBreadth(s, base string) error {
	hint := "write the wildcard below a name that is yours, such as *.example.org"
	if !strings.Contains(base, ".") {
		if slices.Contains(privateTops(), base) {
			return nil
		}
		return problem(hint, "%q would allow names of everybody below .%s", s, base)
	}
	if suffix, icann := publicsuffix.PublicSuffix(base); icann && suffix == base {
		return problem(hint, "%q would allow names of everybody below .%s", s, base)
	}
	return nil
}

// privateTops are top-level names that are not delegated in the public DNS:
// RFC 2606, RFC 6761, RFC 6762 with its appendix G, and .internal, which ICANN
// reserved in 2024.
func privateTops() []string {
	return []string{"corp", "example", "home", "internal", "intranet", "invalid", "lan", "local", "private", "test"}
}
