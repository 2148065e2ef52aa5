package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"strings"

	"github.com/varvel/varvel/internal/admin"
	"github.com/varvel/varvel/internal/admin/api"
	"github.com/varvel/varvel/internal/admin/explain"
	"github.com/varvel/varvel/internal/admin/health"
	"github.com/varvel/varvel/internal/admin/metrics"
	"github.com/varvel/varvel/internal/admin/socket"
	"github.com/varvel/varvel/internal/approval"
	"github.com/varvel/varvel/internal/config"
	"github.com/varvel/varvel/internal/launch"
	"github.com/varvel/varvel/internal/workload"
)

// openLaunch listens for those who start runs.
func (n *node) openLaunch(context.Context) error {
	l, err := launch.Listen(filepath.Join(n.Config().Node.RunDir, "launch.sock"))
	if err != nil {
		return err
	}
	n.onStop(closeOnce(l))
	features := launch.Probe()
	if len(features.Missing) > 0 {
		n.degraded(health.ConfinementPartly, "this kernel lacks: "+strings.Join(features.Missing, ", "))
	}
	n.addTask("launcher", func(ctx context.Context) error { return n.launcher.Serve(ctx, l) })
	return nil
}

// openAdmin listens for operators and approvers.
func (n *node) openAdmin(context.Context) error {
	cfg := n.Config().Node
	l, err := socket.Listen(cfg.Admin.Socket, cfg.Admin.Group)
	if err != nil {
		return err
	}
	n.onStop(closeOnce(l))
	n.checkRoles()
	server, err := admin.New(admin.Options{
		Node:    admin.Node{Version: n.Version, ID: n.id, Boot: n.boot, Started: n.started},
		Configs: n, Runs: n.runs, PeerRuns: peerRuns{n}, Approvals: n.approvals, Voter: n.approvals, Audit: n.log,
		Explainer: explain.New(n.egress, n), Reloader: n, Revoker: n, Health: n.health, Log: n.Log,
		AuditSeq: n.log.Head, PolicyRevision: func() string { return n.policy.Load().Revision() },
		Leases: n.leases, Controls: n.controls, Ended: n.endedRun, Refused: n.metrics.AdminRefused,
	})
	if err != nil {
		return err
	}
	n.addTask("admin API", func(ctx context.Context) error { return server.Serve(ctx, l) })
	return nil
}

// endedRun returns a run that has ended, with its agent as it is configured now.
func (n *node) endedRun(id string) (*workload.Run, bool) {
	run, ok := n.runs.Ended(id)
	if !ok {
		return nil, false
	}
	now := *run
	if agent, ok := n.Config().Agents[run.Run.Agent]; ok {
		now.Agent, now.Tools = agent, toolsOf(n.Config(), agent)
	}
	return &now, true
}

// checkRoles tells of users and groups that this node does not know.
func (n *node) checkRoles() {
	if unknown := admin.UnknownPrincipals(n.Config()); len(unknown) > 0 {
		n.degraded(health.RoleUnknown, strings.Join(unknown, ", "))
		return
	}
	n.well(health.RoleUnknown)
}

// peerRuns says whether a process is in a run, by its cgroup.
type peerRuns struct{ n *node }

// InRun implements admin.PeerRuns.
func (p peerRuns) InRun(pid int) (runID string, in bool, err error) {
	dir, err := p.n.cgroups.RunOf(pid)
	if err != nil || dir == "" {
		return "", false, err
	}
	return filepath.Base(dir), true, nil
}

// leases lists the cached tokens, without the tokens.
func (n *node) leases() []api.Lease {
	var out []api.Lease
	for _, l := range n.broker.List() {
		lease := api.Lease{Run: l.Run, Tool: l.Tool, Audience: l.Audience, Expires: l.Expires}
		if run, ok := n.runs.ByID(l.Run); ok {
			lease.Agent = run.Run.Agent
		}
		out = append(out, lease)
	}
	return out
}

// sharedAddresses lists the direct names of agents: their addresses are handed
// out, and an address has other tenants.
func sharedAddresses(cfg *config.Config) []string {
	var shared []string
	for _, agent := range slices.Sorted(maps.Keys(cfg.Agents)) {
		var names []string
		for _, rule := range cfg.Agents[agent].Egress {
			if rule.Direct {
				names = append(names, rule.Name)
			}
		}
		if len(names) > 0 {
			shared = append(shared, agent+" ("+strings.Join(names, " ")+")")
		}
	}
	return shared
}

// confinement lists how runs are confined on this kernel.
func (n *node) confinement() []api.Control {
	features := launch.Probe()
	out := []api.Control{
		{Name: "cgroup-bpf", Active: true, Detail: "connect, sendmsg, bind, socket birth, ingress and egress are judged in the kernel"},
		{Name: "seccomp", Active: true},
		{Name: "namespaces", Active: true, Detail: "mount, PID and IPC"},
		{Name: "landlock", Active: features.LandlockABI > 0, Detail: fmt.Sprintf("ABI %d", features.LandlockABI)},
	}
	out = append(out, api.Control{
		Name: "unix-sockets", Detail: "sockets that exist when a run starts are masked; it can connect to those that its user's programs make later, outside /run and /dev",
	}, api.Control{
		Name: "inbound", Active: true, Detail: "only who the agent's listen names reaches a port of a run, over TCP and UDP",
	}, n.redirection(), n.runInit.control())
	if shared := sharedAddresses(n.Config()); len(shared) > 0 {
		out = append(out, api.Control{
			Name:   "shared-addresses",
			Detail: "what shares an address and port with these direct names can be reached, too: " + strings.Join(shared, ", "),
		})
	}
	for _, name := range features.Missing {
		out = append(out, api.Control{Name: name, Detail: "not offered by this kernel"})
	}
	return out
}

// openMetrics listens for Prometheus.
func (n *node) openMetrics(context.Context) error {
	l, err := net.Listen("tcp", n.Config().Node.Metrics.Listen)
	if err != nil {
		return fmt.Errorf("listen for Prometheus; choose another metrics.listen if the port is taken: %w", err)
	}
	n.onStop(closeOnce(l))
	handler := metrics.Handler(n.registry, n.health, n.Log)
	n.addTask("metrics", func(ctx context.Context) error { return metrics.Serve(ctx, l, handler, n.Log) })
	return nil
}

// sources are asked at each scrape, when every part exists.
func (n *node) sources() metrics.Sources {
	return metrics.Sources{
		Runs:               func() int { return len(n.runs.All()) },
		ApprovalsPending:   func() int { return len(n.approvals.List(approval.Filter{State: approval.Pending})) },
		Leases:             func() int { return n.broker.Leases() },
		GatewayConnections: func() int { return n.gateway.Stats().Open },
		AuditSeq:           func() uint64 { return n.log.Head() },
		DNSQuestions:       n.dnsQuestions,
		KernelDenials:      n.kernelDenials,
		EventsLost:         func() map[string]uint64 { return map[string]uint64{"kernel": n.totals.lost.Load()} },
		Health:             n.health,
	}
}

// dnsQuestions is what the name server has counted since the start, by result.
func (n *node) dnsQuestions() map[string]uint64 {
	out := n.totals.questions()
	out["unknown-peer"] = n.dns.UnknownPeers()
	for _, run := range n.runs.All() {
		if s, ok := n.egress.Stats(run.CgroupID); ok {
			addQuestions(out, s)
		}
	}
	return out
}

var errRestart = errors.New("restart varveld to put it into force")
