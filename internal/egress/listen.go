package egress

import (
	"context"
	"fmt"

	"github.com/varvel/varvel/internal/config"
	"github.com/varvel/varvel/internal/decision"
	"github.com/varvel/varvel/internal/ruleset"
	"github.com/varvel/varvel/internal/workload"
)

// Gate is where it is enforced who may reach what a run listens on.
type Gate interface {
	// UseListen gives a run the grants of its listen rules, in one step. The prefixes
	// of the rule set are those of peers, its ports are the run's. An empty one
	// grants nothing. An error means that the old ones rule.
	UseListen(cgroupID uint64, rs *ruleset.RuleSet) error
}

// ListenRefusal is a listen rule that policy left out of what is granted.
type ListenRefusal struct {
	Rule       *config.ListenRule
	DecisionID string
	Reasons    []decision.Reason
}

// planListen puts each listen rule of the run's agent to the decider, and compiles
// what it allows.
func (p *Plan) planListen(ctx context.Context, d Decider, run *workload.Run) (err error) {
	var allowed []config.ListenRule
	for i := range run.Agent.Listen {
		rule := &run.Agent.Listen[i]
		verdict, err := d.Decide(ctx, listenRequest(run, rule))
		if ctx.Err() != nil {
			return fmt.Errorf("judge the listen rules of agent %s: %w", run.Run.Agent, context.Cause(ctx))
		}
		if err != nil || !verdict.Allowed() {
			p.ListenRefused = append(p.ListenRefused, ListenRefusal{rule, verdict.ID, verdict.Reasons})
			continue
		}
		allowed = append(allowed, *rule)
	}
	if p.Listen, err = ruleset.Compile(config.ListenRules(allowed)); err != nil {
		return fmt.Errorf("compile the listen rules of agent %s: %w", run.Run.Agent, err)
	}
	return nil
}

// listenRequest asks whether a listen rule may be granted. The target is the first
// address that may connect, and the run's port if the rule has one only; the
// preview has all of it.
func listenRequest(run *workload.Run, rule *config.ListenRule) decision.Request {
	target := decision.Target{Protocol: rule.Protocol}
	if len(rule.From) > 0 {
		target.Address = rule.From[0].Masked().Addr()
	}
	if rule.Port.First == rule.Port.Last {
		target.Port = rule.Port.First
	}
	return decision.Request{
		Kind: decision.KindConnect, Run: run.Run, Actor: run.Actor,
		Action: "accept", Risk: decision.RiskRead, Target: target,
		Preview: fmt.Sprintf("listen %s %s from %v", rule.Port, rule.Protocol, rule.From),
	}
}
