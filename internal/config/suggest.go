package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Destination is where a program wanted to go.
type Destination struct {
	Name     string     // "" if only the address is known
	Addr     netip.Addr // not valid if only the name is known
	Port     uint16
	Protocol string // ProtocolTCP or ProtocolUDP
}

// String returns the destination as people write it.
func (d Destination) String() string {
	if d.Name != "" {
		return fmt.Sprintf("%s:%d/%s", d.Name, d.Port, d.Protocol)
	}
	return fmt.Sprintf("%s/%s", netip.AddrPortFrom(d.Addr, d.Port), d.Protocol)
}

// Allows reports whether the rule alone lets the destination through. A rule
// with a name is asked for the name, a rule with a range for the address.
func (r EgressRule) Allows(d Destination) bool {
	if r.Protocol != ProtocolAny && r.Protocol != d.Protocol || !hasPort(r.Ports, d.Port) {
		return false
	}
	if r.Name != "" {
		return d.Name != "" && MatchName(r.Name, strings.ToLower(d.Name))
	}
	return d.Addr.IsValid() && r.CIDR.Contains(d.Addr.Unmap().WithZone(""))
}

// Suggestion is a change of the configuration that would allow a destination.
type Suggestion struct {
	File string `json:"file"`
	Line int    `json:"line"`
	// Replace says that YAML takes the place of the line. Otherwise YAML goes
	// after it.
	Replace bool   `json:"replace,omitempty"`
	YAML    string `json:"yaml"`           // without a line break at the end
	Note    string `json:"note,omitempty"` // what else to know, or ""
}

// Suggest returns the line that would allow an agent to reach a destination,
// and where to write it. A name is preferred to an address. The error says why
// there is no such line, for people: the destination is allowed already, or it
// is one that no rule opens.
func (c *Config) Suggest(agent string, d Destination) (Suggestion, error) {
	a, ok := c.Agents[agent]
	if !ok {
		return Suggestion{}, fmt.Errorf("there is no agent %q", agent)
	}
	if err := c.allowedAlready(a, d); err != nil {
		return Suggestion{}, err
	}
	rule, err := ruleFor(d)
	if err != nil {
		return Suggestion{}, err
	}
	s := a.placeRule(rule)
	s.Note = join(s.Note, c.toolNote(d))
	return s, nil
}

// allowedAlready returns an error that names what allows the destination.
func (c *Config) allowedAlready(a *Agent, d Destination) error {
	for _, name := range a.Tools {
		if t, ok := c.Tools[name]; ok && d.Protocol == ProtocolTCP && t.HasHost(strings.ToLower(d.Name), d.Port) {
			return fmt.Errorf("%s belongs to tool %q (%s), which agent %q may use; what is refused there is an action", d, name, t.Pos, a.Name)
		}
	}
	for _, rule := range a.Egress {
		if rule.Allows(d) {
			return fmt.Errorf("%s is allowed by the rule at %s", d, rule.Pos)
		}
	}
	return nil
}

// ruleFor returns the rule that allows exactly one destination, in YAML.
func ruleFor(d Destination) (string, error) {
	ports, err := parsePorts(fmt.Sprint(d.Port))
	if err != nil {
		return "", err
	}
	if d.Name != "" && d.Protocol == ProtocolTCP {
		name, err := parsePattern(d.Name)
		return fmt.Sprintf("{ name: %s, ports: [%s] }", scalarFor(name), ports), err
	}
	if d.Name != "" && d.Protocol == ProtocolUDP && !d.Addr.IsValid() {
		name, err := parsePattern(d.Name)
		return fmt.Sprintf("{ name: %s, ports: [%s], protocol: udp, direct: true }", scalarFor(name), ports), err
	}
	return rangeRuleFor(d, ports)
}

// scalarFor quotes what YAML would not take for text, such as 1.5e3 or null.
func scalarFor(s string) string {
	var v any
	if err := yaml.Unmarshal([]byte(s), &v); err != nil || v != s {
		return strconv.Quote(s)
	}
	return s
}

func rangeRuleFor(d Destination, ports PortRange) (string, error) {
	switch {
	case d.Protocol != ProtocolTCP && d.Protocol != ProtocolUDP:
		return "", fmt.Errorf("%q cannot be allowed: only tcp and udp are", d.Protocol)
	case !d.Addr.IsValid():
		return "", fmt.Errorf("%s has neither a name nor an address", d)
	}
	addr := d.Addr.Unmap().WithZone("")
	prefix := netip.PrefixFrom(addr, addr.BitLen())
	if err := checkGrant(prefix, false); err != nil {
		return "", err
	}
	protocol := ""
	if d.Protocol != ProtocolTCP {
		protocol = ", protocol: " + d.Protocol
	}
	return fmt.Sprintf("{ cidr: %q, ports: [%s]%s }", prefix, ports, protocol), nil
}

// placeRule finds where one more rule goes in the agent's document.
func (a *Agent) placeRule(rule string) Suggestion {
	at, s := a.places.egress, Suggestion{File: a.Pos.File}
	margin := strings.Repeat(" ", a.places.indent)
	switch {
	case at.line == 0:
		s.Line, s.YAML = a.places.end, margin+"egress:\n"+margin+"  - "+rule
	case at.empty:
		s.Line, s.Replace, s.YAML = at.line, true, margin+"egress:\n"+margin+"  - "+rule
	case at.flow:
		s.Line, s.YAML, s.Note = at.line, rule, "put it into the brackets of `egress`, after a comma"
	default:
		s.Line, s.YAML = at.line, strings.Repeat(" ", at.indent)+"- "+rule
	}
	return s
}

// toolNote names the tools that have the destination as a host.
func (c *Config) toolNote(d Destination) string {
	var names []string
	for name, t := range c.Tools {
		if d.Protocol == ProtocolTCP && t.HasHost(strings.ToLower(d.Name), d.Port) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	slices.Sort(names)
	return "better: add " + strings.Join(names, " or ") + " to the agent's `tools`, so that its actions are judged one by one"
}

func join(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "; " + b
}
