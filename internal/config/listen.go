package config

import (
	"net/netip"

	"go.yaml.in/yaml/v3"

	"github.com/varvel/varvel/internal/ruleset"
	"github.com/varvel/varvel/internal/tool"
)

// ListenRule grants peers a port that a run listens on.
type ListenRule struct {
	Port     PortRange
	From     []netip.Prefix // of the peers; masked, never empty
	Protocol string         // ProtocolTCP, ProtocolUDP or ProtocolAny
	Why      string         // for people
	Pos      Position
}

// maxListen is how many listen rules an agent may have.
const maxListen = 256

func (r *reader) listen(a *Agent) field {
	return func(key string, n *yaml.Node) {
		r.list(func(_ string, item *yaml.Node) {
			if len(a.Listen) == maxListen {
				r.fail(item, "join neighbouring ports to a range, and sources of one port to a list", "an agent has at most %d listen rules", maxListen)
			}
			a.Listen = append(a.Listen, r.listenRule(item))
		})(key, n)
	}
}

// listenRule reads one listen rule.
func (r *reader) listenRule(n *yaml.Node) ListenRule {
	rule := ListenRule{Protocol: ProtocolTCP, Pos: r.at(n)}
	found := r.object(n, "listen rule", fields{
		"port":     r.scalar("a port or a range", keep(&rule.Port, parseListenPort)),
		"from":     r.list(r.text(collect(&rule.From, parseCIDR))),
		"protocol": r.text(keep(&rule.Protocol, oneOf(ProtocolTCP, ProtocolUDP, ProtocolAny))),
		"why":      r.text(keep(&rule.Why, parseLabel)),
	})
	if n.Kind != yaml.MappingNode {
		return rule
	}
	if found["port"] == nil {
		r.fail(n, "add `port: 8080`, or a range: `port: 8080-8090`", "a listen rule has no `port`")
	}
	if emptyList(n, "from") {
		r.fail(n, "add who may connect: `from: [192.0.2.0/24]`; loopback needs no rule for the run itself", "a listen rule has no `from`")
	}
	for _, p := range rule.From {
		if err := checkPeers(p); err != nil {
			r.invalid(itemAt(n, "from", p.String()), "from", err)
		}
	}
	return rule
}

// parseListenPort reads one port, or a range. Every port can be granted, 53 too:
// it is the run's own.
func parseListenPort(s string) (PortRange, error) {
	if p, err := tool.ParsePort(s); err == nil {
		return PortRange{First: p, Last: p}, nil
	}
	return parsePorts(s)
}

// checkPeers refuses a range of peers that nobody can come from, or whose
// addresses say nothing about who they are. A range that is wider is fine.
func checkPeers(p netip.Prefix) error {
	for _, s := range specials() {
		if s.loopback || !covers(s.prefix, p) {
			continue
		}
		return problem("remove it", "%s can be nobody who connects: it is part of %s (%s)", p, s.prefix, s.what)
	}
	return nil
}

// checkListen compiles the listen rules of an agent, to find what fits no rule set.
func (l *loader) checkListen(a *Agent) {
	rules := ListenRules(a.Listen)
	if _, err := ruleset.Compile(rules); err != nil && len(a.Listen) > 0 {
		l.problems.add(a.Where("listen"), "join neighbouring ports to ranges", "the listen rules of %s do not fit: %v", a.title(), err)
	}
}

// ListenRules returns what listen rules grant, as rules whose prefixes are those of
// peers and whose ports are the run's.
func ListenRules(list []ListenRule) []ruleset.Rule {
	var rules []ruleset.Rule
	for _, l := range list {
		for _, from := range l.From {
			rules = append(rules, ruleset.Rule{Prefix: from, Ports: l.ranges(), Source: l.Pos.String()})
		}
	}
	return rules
}

// ranges are the ports with their protocols. A protocol that is not known means
// none.
func (l ListenRule) ranges() []ruleset.PortRange {
	var ranges []ruleset.PortRange
	if l.Protocol == ProtocolTCP || l.Protocol == ProtocolAny {
		ranges = append(ranges, ruleset.PortRange{First: l.Port.First, Last: l.Port.Last, Protocol: ruleset.TCP})
	}
	if l.Protocol == ProtocolUDP || l.Protocol == ProtocolAny {
		ranges = append(ranges, ruleset.PortRange{First: l.Port.First, Last: l.Port.Last, Protocol: ruleset.UDP})
	}
	return ranges
}

// Grants reports whether the rule lets a peer reach a port over a protocol.
func (l ListenRule) Grants(peer netip.Addr, port uint16) bool {
	for _, from := range l.From {
		if from.Contains(peer) {
			return l.Port.Contains(port)
		}
	}
	return false
}
