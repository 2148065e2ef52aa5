package node

import (
	"context"
	"time"

	"github.com/varvel/varvel/internal/audit"
	"github.com/varvel/varvel/internal/decision"
	"github.com/varvel/varvel/internal/kernel"
)

// flowPeriod is how often what was reached by a rule is written down. It is short
// beside the minute for which the kernel remembers a run that has ended.
const flowPeriod = 10 * time.Second

// watchFlows records what the kernel has let out by rules, until ctx ends and once
// more then. That it may was recorded, durably, with the rule set.
func (n *node) watchFlows(ctx context.Context) error {
	tick := time.NewTicker(flowPeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			n.tellFlows(context.WithoutCancel(ctx))
			return nil
		case <-tick.C:
			n.tellFlows(ctx)
		}
	}
}

func (n *node) tellFlows(ctx context.Context) {
	flows, err := n.kernel.TakeFlows()
	if err != nil {
		n.Log.Error("what runs have reached could not be read", "error", err)
	}
	for _, f := range flows {
		if e := n.flowEvent(f); e != nil {
			n.record(ctx, e, decision.Appended)
		}
	}
}

// flowEvent is nil for a run that ended long ago, whose end is recorded.
func (n *node) flowEvent(f kernel.Flow) *audit.Event {
	run, ok := n.runs.ByCgroup(f.CgroupID)
	if !ok {
		if run, ok = n.runs.EndedByCgroup(f.CgroupID); !ok {
			return nil
		}
	}
	e := audit.Event{
		Kind: audit.KindFlow, Effect: decision.EffectAllow, Component: "kernel", Count: f.Count,
		Target: &audit.Target{Address: f.To.Addr(), Port: f.To.Port(), Protocol: protocolName(f.Protocol)},
	}
	if f.Inbound {
		e.Activity = "accept"
		e.Target = &audit.Target{Port: f.To.Port(), Protocol: protocolName(f.Protocol)}
		e.Peer = &audit.Peer{Address: f.To.Addr()}
	}
	if plan, ok := n.egress.Plan(f.CgroupID); ok {
		e.RuleSet = plan.Rules.ID
		if f.Inbound {
			e.RuleSet = plan.Listen.ID
		}
	}
	return aboutRun(e, run)
}
