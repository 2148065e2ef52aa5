package egress

import (
	"fmt"
	"slices"
	"strings"

	"github.com/varvel/varvel/internal/config"
	"github.com/varvel/varvel/internal/ruleset"
	"github.com/varvel/varvel/internal/tool"
)

// MaxPorts is how many ports one name may have. Each takes an entry of a
// kernel map for each address family.
const MaxPorts = 64

// grant is one reason why a name may be reached. It has a tool or a rule.
type grant struct {
	ports []ruleset.PortRange
	tool  *tool.Tool
	rule  *config.EgressRule
}

// direct reports whether the name's real addresses are handed out.
func (g grant) direct() bool { return g.rule != nil && g.rule.Direct }

// Name is a name and port of a run, and by what it is allowed. Exactly one of
// Tool and Rule is set.
type Name struct {
	Host  string // canonical
	Ports []ruleset.PortRange
	Tool  *tool.Tool
	Rule  *config.EgressRule
}

// nameTable holds the names of one plan. It is never changed after it was made.
type nameTable struct {
	exact    map[string][]grant
	patterns map[string][]patternGrant // by the name after the wildcard
	count    int                       // of rules with a wildcard
	direct   []string                  // names and patterns whose addresses are handed out
}

// patternGrant is a name with a wildcard as its first label, and its grant.
type patternGrant struct {
	pattern string
	grant   grant
}

func (p patternGrant) matches(host string) bool { return config.MatchName(p.pattern, host) }

// newNameTable collects the names of a run's tools and rules. Tools come first:
// where a tool and a rule allow the same port, the tool's actions are judged.
func newNameTable(tools []*tool.Tool, rules []config.EgressRule) (*nameTable, error) {
	t := &nameTable{exact: map[string][]grant{}, patterns: map[string][]patternGrant{}}
	for _, tl := range tools {
		if err := t.addTool(tl); err != nil {
			return nil, fmt.Errorf("tool %s: %w", tl.Name, err)
		}
	}
	for i := range rules {
		if rules[i].Name == "" {
			continue
		}
		if err := t.addRule(&rules[i]); err != nil {
			return nil, fmt.Errorf("%s: %w", rules[i].Pos, err)
		}
	}
	return t, nil
}

func (t *nameTable) addTool(tl *tool.Tool) error {
	for _, h := range tl.Reached() {
		host, ok := CanonicalHost(h.Name)
		if !ok {
			return fmt.Errorf("%q is not a host name", h.Name)
		}
		ports := []ruleset.PortRange{{First: h.Port, Last: h.Port, Protocol: ruleset.TCP}}
		t.exact[host] = append(t.exact[host], grant{ports: ports, tool: tl})
	}
	return nil
}

func (t *nameTable) addRule(r *config.EgressRule) error {
	ports := rulePorts(r)
	protocols, kind := []ruleset.Protocol{ruleset.TCP}, "TCP ports"
	if r.Direct {
		protocols, kind = append(protocols, ruleset.UDP), "ports"
	}
	if n := len(single(ports, protocols...)); n == 0 || n > len(protocols)*MaxPorts {
		return fmt.Errorf("the name %s has %d %s, and a name may have 1 to %d; list its ports", r.Name, n, kind, len(protocols)*MaxPorts)
	}
	g := grant{ports: ports, rule: r}
	if r.Direct {
		t.direct = append(t.direct, r.Name)
	}
	wildcard, base := splitWildcard(r.Name)
	host, ok := CanonicalHost(base)
	switch {
	case !ok:
		return fmt.Errorf("%q is not a host name; a wildcard is a whole first label, *. or **. before a name", r.Name)
	case wildcard != "":
		t.patterns[host] = append(t.patterns[host], patternGrant{wildcard + host, g})
		t.count++
	default:
		t.exact[host] = append(t.exact[host], g)
	}
	return nil
}

// splitWildcard splits a configured name into "*.", "**." or nothing, and the rest.
func splitWildcard(name string) (wildcard, base string) {
	for _, w := range []string{"**.", "*."} {
		if base, ok := strings.CutPrefix(name, w); ok {
			return w, base
		}
	}
	return "", name
}

// grants returns every reason why a canonical host may be reached: the exact
// name first, then wildcards, the longest name after the wildcard first. Equals
// are in the order of the configuration. A name is reached through the gateway or
// directly, never both: the first of them tells, and the others of its kind count.
func (t *nameTable) grants(host string) []grant {
	found := slices.Clip(t.exact[host])
	for _, p := range t.covering(host) {
		found = append(found, p.grant)
	}
	if len(found) == 0 {
		return nil
	}
	direct := found[0].direct()
	return slices.DeleteFunc(slices.Clone(found), func(g grant) bool { return g.direct() != direct })
}

// has reports whether a canonical host may be reached at all.
func (t *nameTable) has(host string) bool {
	_, ok := t.exact[host]
	return ok || len(t.covering(host)) > 0
}

// covering returns the patterns that match a host. It looks at the names that
// the host is below, so the number of patterns does not matter.
func (t *nameTable) covering(host string) []patternGrant {
	var found []patternGrant
	for base := host; t.count > 0; {
		var below bool
		if _, base, below = strings.Cut(base, "."); !below {
			break
		}
		for _, p := range t.patterns[base] {
			if p.matches(host) {
				found = append(found, p)
			}
		}
	}
	return found
}

func (t *nameTable) size() int { return len(t.exact) + t.count }

// at returns by what a port of a canonical host is reached through the gateway.
func (t *nameTable) at(host string, port uint16) (Name, bool) {
	for _, g := range t.grants(host) {
		if !g.direct() && ruleset.AllowsPort(g.ports, port, ruleset.TCP) {
			return Name{Host: host, Ports: g.ports, Tool: g.tool, Rule: g.rule}, true
		}
	}
	return Name{}, false
}

// singlePorts returns the TCP ports of all grants, one range for each port, in
// order.
func singlePorts(grants []grant) []ruleset.PortRange {
	var all []ruleset.PortRange
	for _, g := range grants {
		all = append(all, g.ports...)
	}
	return single(all, ruleset.TCP)
}

// single returns the ports of some protocols, one range for each, in order.
func single(ports []ruleset.PortRange, protocols ...ruleset.Protocol) []ruleset.PortRange {
	var list []ruleset.PortRange
	for _, r := range ruleset.MergePorts(ports) {
		for p := int(r.First); p <= int(r.Last) && slices.Contains(protocols, r.Protocol); p++ {
			list = append(list, ruleset.PortRange{First: uint16(p), Last: uint16(p), Protocol: r.Protocol})
		}
	}
	return list
}
