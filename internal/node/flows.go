package node

import (
	"fmt"
	"net/netip"

	"github.com/varvel/varvel/internal/audit"
	"github.com/varvel/varvel/internal/decision"
	"github.com/varvel/varvel/internal/egress"
	"github.com/varvel/varvel/internal/hostnet"
	"github.com/varvel/varvel/internal/ruleset"
	"github.com/varvel/varvel/internal/workload"
)

// cutDenied destroys the live connections of a run that its plan does not allow,
// and those through the gateway to names that it lost. The kernel's programs
// refuse their next packets already; this ends what only receives, and tells
// both ends. It returns how many there were.
func (n *node) cutDenied(run *workload.Run, plan *egress.Plan) (int, error) {
	if run.Mode == decision.ModeObserve && !run.Revoked {
		return 0, nil
	}
	direct, err := n.namespaces.cut(run, func(s hostnet.Socket) bool { return !n.allowedFlow(run, s, plan.Rules) })
	cut := n.gateway.Recheck(run.ID, run.CgroupID) + direct
	if err != nil {
		return cut, fmt.Errorf("connections that are not allowed any more stay open until their next packet: %w", err)
	}
	return cut, nil
}

// allowedFlow reports whether a socket may keep its peer. What was redirected, and
// what the run says to itself, is on loopback; the gateway judges the former.
func (n *node) allowedFlow(run *workload.Run, s hostnet.Socket, rules *ruleset.RuleSet) bool {
	to := s.Remote.Addr()
	if !s.Connected() || isLoopback(to) {
		return true
	}
	protocol := ruleset.Protocol(s.Protocol)
	return rules.Judge(to, s.Remote.Port(), protocol) || n.kernel.Leased(run.CgroupID, s.Remote, protocol)
}

func isLoopback(a netip.Addr) bool { return a.IsLoopback() || a.IsUnspecified() }

// cutEvent tells how many connections a change has ended.
func cutEvent(run *workload.Run, cut int) *audit.Event {
	return aboutRun(audit.Event{
		Kind: audit.KindConnect, Activity: "cut", Effect: decision.EffectDeny, Count: uint64(cut),
		Message: "Live connections that the run's rules do not allow any more were ended.",
	}, run)
}
