package egress

import (
	"context"
	"fmt"
	"strings"

	"github.com/varvel/varvel/internal/config"
	"github.com/varvel/varvel/internal/decision"
	"github.com/varvel/varvel/internal/ruleset"
	"github.com/varvel/varvel/internal/workload"
)

// Decider judges actions; *decision.Engine is one.
type Decider interface {
	Decide(ctx context.Context, r decision.Request) (decision.Decision, error)
}

// Refusal is a CIDR rule or a direct name that policy left out.
type Refusal struct {
	Rule       *config.EgressRule
	DecisionID string
	Reasons    []decision.Reason
}

// Plan is what one run may reach and who may reach it, made from its agent's configuration. It is
// never changed after it was made.
type Plan struct {
	Rules   *ruleset.RuleSet
	Refused []Refusal
	names   *nameTable

	Listen        *ruleset.RuleSet // who may reach the run: prefixes of peers, ports of the run
	ListenRefused []ListenRefusal
}

// NewPlan puts each CIDR rule and each direct name of the run's agent to the
// decider, because the gateway will not, compiles what it allows, and collects the
// names. A rule that is denied, or about which there is no decision, is left out.
func NewPlan(ctx context.Context, d Decider, run *workload.Run) (*Plan, error) {
	p := &Plan{}
	var allowed []ruleset.Rule
	var names []config.EgressRule
	for i := range run.Agent.Egress {
		rule := &run.Agent.Egress[i]
		if rule.Name != "" && !rule.Direct {
			names = append(names, *rule)
			continue
		}
		verdict, err := d.Decide(ctx, ruleRequest(run, rule))
		if ctx.Err() != nil {
			return nil, fmt.Errorf("judge the rules of agent %s: %w", run.Run.Agent, context.Cause(ctx))
		}
		if err != nil || !verdict.Allowed() {
			p.Refused = append(p.Refused, Refusal{rule, verdict.ID, verdict.Reasons})
			continue
		}
		if rule.Direct {
			names = append(names, *rule)
			continue
		}
		allowed = append(allowed, ruleset.Rule{Prefix: rule.CIDR, Ports: rulePorts(rule), Source: rule.Pos.String()})
	}
	var err error
	if p.Rules, err = ruleset.Compile(allowed); err != nil {
		return nil, fmt.Errorf("compile the rules of agent %s: %w", run.Run.Agent, err)
	}
	if p.names, err = newNameTable(run.Tools, names); err != nil {
		return nil, fmt.Errorf("collect the names of agent %s: %w", run.Run.Agent, err)
	}
	if err := p.planListen(ctx, d, run); err != nil {
		return nil, err
	}
	return p, nil
}

// Name returns by what a host and port may be reached by name, whether the run
// has asked for it or not. It reports false if by nothing.
func (p *Plan) Name(host string, port uint16) (Name, bool) {
	canonical, ok := CanonicalHost(host)
	if !ok {
		return Name{}, false
	}
	return p.names.at(canonical, port)
}

// Direct returns the names of a plan whose real addresses are handed out, as the
// rules have them: what shares such an address and port can be reached, too.
func (p *Plan) Direct() []string { return p.names.direct }

// ruleRequest asks whether a rule may be used without the gateway. The target is
// the first address of the prefix or the name as the rule has it, and the port if
// the rule has one only; the preview has all of it.
func ruleRequest(run *workload.Run, rule *config.EgressRule) decision.Request {
	ports := rulePorts(rule)
	target := decision.Target{Name: rule.Name, Protocol: protocolName(rule)}
	if rule.Name == "" {
		target.Address = rule.CIDR.Masked().Addr()
	}
	if len(ports) == 1 && ports[0].First == ports[0].Last {
		target.Port = ports[0].First
	}
	return decision.Request{
		Kind: decision.KindConnect, Run: run.Run, Actor: run.Actor,
		Action: "connect", Risk: decision.RiskRead, Target: target,
		Preview: preview(rule, ports),
	}
}

func preview(rule *config.EgressRule, ports []ruleset.PortRange) string {
	var b strings.Builder
	what := rule.Name
	if what == "" {
		what = rule.CIDR.String()
	}
	fmt.Fprintf(&b, "%s %s", what, protocolName(rule))
	for _, r := range ports[:min(len(ports), ruleset.MaxRanges)] {
		if r.First == r.Last {
			fmt.Fprintf(&b, " %d", r.First)
			continue
		}
		fmt.Fprintf(&b, " %d-%d", r.First, r.Last)
	}
	return b.String()
}

// protocolName returns one of the values of config.EgressRule.Protocol.
func protocolName(rule *config.EgressRule) string {
	if rule.Protocol == "" {
		return config.ProtocolTCP
	}
	return rule.Protocol
}

// rulePorts returns what a rule allows as ranges with a protocol. A CIDR rule
// without ports means all of them. A protocol that is not known means none:
// configuration refuses it, and here it fails closed.
func rulePorts(rule *config.EgressRule) []ruleset.PortRange {
	var protocols []ruleset.Protocol
	switch protocolName(rule) {
	case config.ProtocolTCP:
		protocols = []ruleset.Protocol{ruleset.TCP}
	case config.ProtocolUDP:
		protocols = []ruleset.Protocol{ruleset.UDP}
	case config.ProtocolAny:
		protocols = []ruleset.Protocol{ruleset.TCP, ruleset.UDP}
	}
	var ranges []ruleset.PortRange
	for _, proto := range protocols {
		for _, p := range rule.Ports {
			ranges = append(ranges, ruleset.PortRange{First: p.First, Last: p.Last, Protocol: proto})
		}
		if len(rule.Ports) == 0 && rule.Name == "" {
			ranges = append(ranges, ruleset.PortRange{First: 0, Last: 65535, Protocol: proto})
		}
	}
	return ranges
}
