package config

import (
	"net/netip"
	"path"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/varvel/varvel/internal/decision"
	"github.com/varvel/varvel/internal/ruleset"
)

// places remembers where an agent's parts are written.
type places struct {
	keys   map[string]Position
	tools  []Position // of Agent.Tools
	egress anchor
	indent int // of the agent's keys, in columns
	end    int // last line of the agent's document
}

// anchor is where one more egress rule can be written.
type anchor struct {
	line   int  // after this line
	indent int  // of the dash, in columns
	flow   bool // the list is written with brackets
	empty  bool // there is no rule yet
}

// agent reads an agent's document.
func (r *reader) agent(n *yaml.Node) *Agent {
	a := &Agent{Mode: decision.ModeEnforce, Pos: r.at(n)}
	found := r.object(n, "agent", fields{
		"agent": func(key string, v *yaml.Node) {
			a.Pos = r.at(v)
			r.text(keep(&a.Name, parseName))(key, v)
		},
		"owner":       r.text(keep(&a.Owner, parseLabel)),
		"mode":        r.text(keep(&a.Mode, oneOf(decision.ModeEnforce, decision.ModeObserve))),
		"tools":       r.list(r.toolName(a)),
		"egress":      r.egress(a),
		"wildcards":   r.wildcards(&a.Wildcards),
		"listen":      r.listen(a),
		"environment": r.part(fields{"pass": r.list(r.text(collect(&a.Environment.Pass, parseVariable)))}),
		"files": r.part(fields{
			"deny_read": r.list(r.text(collect(&a.Files.DenyRead, parseFileRule))),
			"read_only": r.list(r.text(collect(&a.Files.ReadOnly, parseFileRule))),
		}),
		"launch": r.principals(&a.Launch),
	})
	a.places.keys = map[string]Position{}
	for key, node := range found {
		a.places.keys[key] = r.at(node)
	}
	a.places.end, a.places.indent = lastLine(n), n.Column-1
	return a
}

// toolName reads one item of the agent's tools and keeps its place.
func (r *reader) toolName(a *Agent) field {
	return func(key string, n *yaml.Node) {
		before := len(a.Tools)
		r.text(collect(&a.Tools, parseName))(key, n)
		if len(a.Tools) > before {
			a.places.tools = append(a.places.tools, r.at(n))
		}
	}
}

func (r *reader) egress(a *Agent) field {
	return func(key string, n *yaml.Node) {
		a.places.egress = anchor{line: lastLine(n), indent: n.Column - 1, flow: n.Style&yaml.FlowStyle != 0, empty: len(n.Content) == 0}
		r.list(func(_ string, item *yaml.Node) {
			a.Egress = append(a.Egress, r.rule(item))
		})(key, n)
	}
}

// rule reads one egress rule.
func (r *reader) rule(n *yaml.Node) EgressRule {
	rule := EgressRule{Protocol: ProtocolTCP, Pos: r.at(n)}
	found := r.object(n, "egress rule", fields{
		"name":     r.text(keep(&rule.Name, parsePattern)),
		"cidr":     r.text(keep(&rule.CIDR, parseCIDR)),
		"ports":    r.list(r.scalar("a port or a range", collect(&rule.Ports, parsePorts))),
		"protocol": r.text(keep(&rule.Protocol, oneOf(ProtocolTCP, ProtocolUDP, ProtocolAny))),
		"within":   r.list(r.text(collect(&rule.Within, parseCIDR))),
		"via":      r.text(keep(&rule.Via, parseVia)),
		"opaque":   r.truth(&rule.Opaque),
		"direct":   r.truth(&rule.Direct),
		"why":      r.text(keep(&rule.Why, parseLabel)),
	})
	if n.Kind != yaml.MappingNode {
		return rule
	}
	rule.Ports = joinPorts(rule.Ports)
	switch {
	case found["name"] != nil && found["cidr"] != nil:
		r.fail(n, "write two rules; to bind a name to a range use `within`", "an egress rule has both `name` and `cidr`")
	case found["name"] != nil:
		r.checkNameRule(n, found, rule)
	case found["cidr"] != nil:
		r.checkRangeRule(n, found, &rule)
	default:
		r.fail(n, "add `name: api.example.org` or `cidr: 192.0.2.0/24`", "an egress rule has neither `name` nor `cidr`")
	}
	return rule
}

func (r *reader) checkNameRule(n *yaml.Node, found map[string]*yaml.Node, rule EgressRule) {
	switch count := countPorts(rule.Ports); {
	case emptyList(n, "ports"):
		r.fail(n, "add `ports: [443]`", "a rule for a name needs `ports`")
	case count > maxNamePorts:
		r.fail(found["ports"], "list the ports that are used, or allow the range of addresses with `cidr`", "a rule for a name has at most %d ports, this one has %d", maxNamePorts, count)
	}
	if rule.Protocol != ProtocolTCP && !rule.Direct {
		r.fail(found["protocol"], "add `direct: true`, which hands out the name's real addresses, or allow the address with a `cidr` rule", "names are allowed over tcp only, not %s", rule.Protocol)
	}
	if rule.Direct {
		r.checkDirectRule(found, rule)
	}
	r.checkGrants(n, "within", rule.Within, false)
}

// checkDirectRule refuses what a name that is not reached through the gateway
// cannot have.
func (r *reader) checkDirectRule(found map[string]*yaml.Node, rule EgressRule) {
	if rule.Opaque {
		r.fail(found["opaque"], "remove it", "`opaque` is for names that are reached through the gateway, and a `direct` one is not")
	}
	if hasPort(rule.Ports, dnsPort) {
		r.fail(found["ports"], "remove the port", "port %d of every address is Varvel's name server, so a `direct` name cannot have it", dnsPort)
	}
}

func (r *reader) checkRangeRule(n *yaml.Node, found map[string]*yaml.Node, rule *EgressRule) {
	for _, key := range []string{"within", "opaque", "direct", "via"} {
		if found[key] != nil {
			r.fail(found[key], "remove it", "`%s` is for rules with a name", key)
		}
	}
	if found["ports"] == nil {
		rule.Ports = []PortRange{{First: 1, Last: 65535}}
	} else if emptyList(n, "ports") {
		r.fail(found["ports"], "list ports, or remove the key to allow all of them", "`ports` is empty")
	}
	limit := ruleset.MaxRanges
	if rule.Protocol == ProtocolAny {
		limit /= 2 // each range counts once for tcp and once for udp
	}
	if len(rule.Ports) > limit {
		r.fail(found["ports"], "join neighbouring ports to ranges", "a rule has at most %d ranges of ports, this one has %d", limit, len(rule.Ports))
	}
	if rule.CIDR.IsValid() {
		if err := checkGrant(rule.CIDR, false); err != nil {
			r.invalid(found["cidr"], "cidr", err)
		}
	}
}

// checkGrants refuses what no rule opens, each at its own line.
func (r *reader) checkGrants(n *yaml.Node, key string, prefixes []netip.Prefix, loopback bool) {
	for _, p := range prefixes {
		if err := checkGrant(p, loopback); err != nil {
			r.invalid(itemAt(n, key, p.String()), key, err)
		}
	}
}

// valueOf returns the value of a key of the mapping n, or nil.
func valueOf(n *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

// emptyList reports whether a key is missing or a list without items.
func emptyList(n *yaml.Node, key string) bool {
	v := valueOf(n, key)
	return v == nil || v.Kind == yaml.SequenceNode && len(v.Content) == 0
}

// itemAt returns the item with that text in the list of a key, or n itself.
func itemAt(n *yaml.Node, key, text string) *yaml.Node {
	if v := valueOf(n, key); v != nil {
		for _, item := range v.Content {
			if item.Value == text {
				return item
			}
		}
	}
	return n
}

// parseVariable reads the name of an environment variable, or a prefix.
func parseVariable(s string) (string, error) {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_"
	name := strings.TrimSuffix(s, "*")
	switch {
	case s == "*":
		return "", problem("list the variables that the program needs, such as [LANG, TERM, \"APP_*\"]", "%q would pass every variable, with the secrets", s)
	case name == "", strings.Trim(name, letters+"0123456789") != "", !strings.ContainsRune(letters, rune(name[0])):
		return "", problem("write a name, or a prefix such as \"APP_*\"", "%q is not the name of a variable", s)
	}
	return s, nil
}

// parseFileRule reads an absolute path, or a directory followed by /**.
func parseFileRule(s string) (string, error) {
	dir, whole := strings.CutSuffix(s, "/**")
	if strings.ContainsAny(dir, "*?[") {
		return "", problem("write a file, or a directory followed by /** for everything below it", "%q has a pattern that is not supported", s)
	}
	if whole && dir == "" {
		return "", problem("name a directory", "%q would cover the whole file system", s)
	}
	if whole {
		s = dir
	}
	clean, err := parseAbsolute(s)
	if err != nil || !whole {
		return clean, err
	}
	return path.Join(clean, "**"), nil
}

// lastLine is the last line that a node covers.
func lastLine(n *yaml.Node) int {
	last := n.Line
	if n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
		last += strings.Count(n.Value, "\n")
	}
	for _, c := range n.Content {
		last = max(last, lastLine(c))
	}
	return last
}
