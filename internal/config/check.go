package config

import (
	"fmt"
	"maps"
	"slices"

	"github.com/varvel/varvel/internal/tool"
)

// check finds what is wrong between documents.
func (l *loader) check() {
	if n := l.cfg.Node; n.Metrics.Listen == n.Issuer.Listen {
		l.problems.add(n.Pos, "give them different ports", "`metrics.listen` and `issuer.listen` are both %s", n.Metrics.Listen)
	}
	for _, name := range slices.Sorted(maps.Keys(l.cfg.Agents)) {
		l.checkAgent(l.cfg.Agents[name])
	}
	for _, a := range l.nameless {
		l.checkAgent(a)
	}
}

func (l *loader) checkAgent(a *Agent) {
	names := slices.Sorted(maps.Keys(l.cfg.Tools))
	for i, name := range a.Tools {
		t, ok := l.cfg.Tools[name]
		if !ok {
			l.problems.add(a.places.tools[i], missingToolHint(name, names), "%s uses tool %q, which is not defined", a.title(), name)
			continue
		}
		l.checkToolOverlap(a, i, t)
		l.checkRuleOverlap(a, t)
	}
	l.checkRules(a)
	l.checkListen(a)
}

// title names the agent in a sentence, also if its name was refused.
func (a *Agent) title() string {
	if a.Name == "" {
		return "the agent"
	}
	return fmt.Sprintf("agent %q", a.Name)
}

func missingToolHint(name string, names []string) string {
	if len(names) == 0 {
		return "define it in tools.d/" + name + ".yaml"
	}
	return didYouMean(name, names)
}

// checkToolOverlap finds a host that an earlier tool of the agent has, too.
func (l *loader) checkToolOverlap(a *Agent, i int, t *tool.Tool) {
	for _, earlier := range a.Tools[:i] {
		other, ok := l.cfg.Tools[earlier]
		if !ok {
			continue
		}
		told := map[string]bool{} // one problem a name is enough
		for _, h := range t.Reached() {
			if !told[h.Name] && other.HasHost(h.Name, h.Port) {
				told[h.Name] = true
				l.problems.add(a.places.tools[i], "remove the host from one of them, or join their actions in one tool", "tools %q (%s) and %q (%s) of %s overlap: both have %s", other.Name, other.Pos, t.Name, t.Pos, a.title(), h)
			}
		}
	}
}

// checkRuleOverlap finds egress rules that would open a tool's host past its
// actions.
func (l *loader) checkRuleOverlap(a *Agent, t *tool.Tool) {
	for _, rule := range a.Egress {
		told := map[string]bool{}
		for _, h := range t.Reached() {
			if rule.Name == "" || told[h.Name] || !MatchName(rule.Name, h.Name) {
				continue
			}
			if rule.Direct && rule.Name == h.Name {
				told[h.Name] = true
				l.problems.add(rule.Pos, "remove `direct` or the rule, or remove the tool from the agent", "the rule for %q is `direct`, and tool %q (%s) of %s has that name: what is reached directly is not judged by action", rule.Name, t.Name, t.Pos, a.title())
				continue
			}
			if hasPort(rule.Ports, h.Port) {
				told[h.Name] = true
				l.problems.add(rule.Pos, "remove the port or narrow the name in the rule, or remove the tool from the agent", "the rule for %q overlaps with tool %q (%s) of %s: both have %s", rule.Name, t.Name, t.Pos, a.title(), h)
			}
		}
	}
}

// checkRules finds two rules for the same name and port, which could differ in
// what else they say.
func (l *loader) checkRules(a *Agent) {
	byName := map[string][]EgressRule{}
	for _, rule := range a.Egress {
		if rule.Name == "" {
			continue
		}
		for _, other := range byName[rule.Name] {
			if rule.Direct != other.Direct {
				l.problems.add(rule.Pos, "make both `direct` or neither", "%s has a rule for %q that is `direct` and one that is not; first at %s", a.title(), rule.Name, other.Pos)
				continue
			}
			if port, both := commonPort(rule.Ports, other.Ports); both && commonProtocol(rule, other) {
				l.problems.add(rule.Pos, "join the two rules", "%s has two rules for %q, port %d; first at %s", a.title(), rule.Name, port, other.Pos)
			}
		}
		byName[rule.Name] = append(byName[rule.Name], rule)
	}
}

// commonProtocol reports whether two rules speak of one protocol.
func commonProtocol(a, b EgressRule) bool {
	return a.Protocol == b.Protocol || a.Protocol == ProtocolAny || b.Protocol == ProtocolAny
}
