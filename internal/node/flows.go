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
	ports, err := n.listeningPorts(run)
	if err != nil {
		return 0, fmt.Errorf("connections that are not allowed any more stay open until their next packet: %w", err)
	}
	direct, err := n.namespaces.cut(run, func(s hostnet.Socket) bool { return !n.allowedFlow(run, s, plan, ports) })
	cut := n.gateway.Recheck(run.ID, run.CgroupID) + direct
	if err != nil {
		return cut, fmt.Errorf("connections that are not allowed any more stay open until their next packet: %w", err)
	}
	return cut, nil
}

// listeningPorts are the ports on which a run takes TCP connections. What has one
// of them at its own end has come in.
func (n *node) listeningPorts(run *workload.Run) (map[uint16]bool, error) {
	ports := map[uint16]bool{}
	_, err := n.namespaces.cut(run, func(s hostnet.Socket) bool { // cuts nothing, but shows all
		if s.Listening() {
			ports[s.Local.Port()] = true
		}
		return false
	})
	return ports, err
}

// allowedFlow reports whether a socket may keep its peer, whoever has begun. What
// was redirected, and what the run says to itself, is on loopback; the gateway
// judges the former. Of a socket whose listener is closed it is not known who has
// begun; the kernel's programs know, and refuse its next packet.
func (n *node) allowedFlow(run *workload.Run, s hostnet.Socket, plan *egress.Plan, listening map[uint16]bool) bool {
	to, proto := s.Remote.Addr(), ruleset.Protocol(s.Protocol)
	if !s.Connected() || isLoopback(to) {
		return true
	}
	if plan.Listen.Judge(to, s.Local.Port(), proto) {
		return true
	}
	if proto == ruleset.TCP && listening[s.Local.Port()] {
		return false // it came in
	}
	return plan.Rules.Judge(to, s.Remote.Port(), proto) || n.kernel.Leased(run.CgroupID, s.Remote, proto)
}

func isLoopback(a netip.Addr) bool { return a.IsLoopback() || a.IsUnspecified() }

// cutEvent tells how many connections a change has ended.
func cutEvent(run *workload.Run, cut int) *audit.Event {
	return aboutRun(audit.Event{
		Kind: audit.KindConnect, Activity: "cut", Effect: decision.EffectDeny, Count: uint64(cut),
		Message: "Live connections that the run's rules do not allow any more were ended.",
	}, run)
}
