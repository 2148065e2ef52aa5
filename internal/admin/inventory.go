package admin

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/varvel/varvel/internal/admin/api"
	"github.com/varvel/varvel/internal/approval"
	"github.com/varvel/varvel/internal/config"
	"github.com/varvel/varvel/internal/tool"
	"github.com/varvel/varvel/internal/workload"
)

func (s *Server) status(*request) (any, error) {
	cfg := s.opts.Configs.Config()
	n := s.opts.Node
	st := api.Status{
		Version: n.Version, Node: n.ID, Boot: n.Boot, Started: n.Started, TrustDomain: cfg.Node.TrustDomain,
		Healthy: s.opts.Health.OK(), Findings: s.opts.Health.Findings(),
		Runs: len(s.opts.Runs.All()), Agents: len(cfg.Agents), Tools: len(cfg.Tools), ConfigDir: cfg.Dir,
		ApprovalsPending: len(s.opts.Approvals.List(approval.Filter{State: approval.Pending})),
	}
	if s.opts.AuditSeq != nil {
		st.AuditSeq = s.opts.AuditSeq()
	}
	if s.opts.PolicyRevision != nil {
		st.PolicyRevision = s.opts.PolicyRevision()
	}
	if s.opts.Controls != nil {
		st.Controls = s.opts.Controls()
	}
	return st, nil
}

func (s *Server) runs(r *request) (any, error) {
	list := []api.Run{}
	for _, run := range s.opts.Runs.All() {
		if r.who.sees(run.Actor.StartedBy) {
			list = append(list, s.viewRun(run))
		}
	}
	return list, nil
}

func (s *Server) run(r *request) (any, error) {
	run, err := s.findRun(r, r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	return s.viewRun(run), nil
}

// findRun returns a run that the peer may see. To others it does not exist.
func (s *Server) findRun(r *request, id string) (*workload.Run, error) {
	run, ok := s.opts.Runs.ByID(id)
	if !ok || !r.who.sees(run.Actor.StartedBy) {
		return nil, problem(http.StatusNotFound, api.CodeNotFound, fmt.Sprintf("There is no live run %.60q.", id),
			"List the live runs with: varvel runs. What ended is in: varvel audit --run ID")
	}
	return run, nil
}

func (s *Server) viewRun(run *workload.Run) api.Run {
	return api.Run{
		ID: run.Run.ID, Agent: run.Run.Agent, Owner: run.Owner, Mode: run.Mode,
		Account: run.Actor.Account, StartedBy: run.Actor.StartedBy, Started: run.Started,
		Tools: toolNames(run.Tools), Command: orEmpty(run.Command), CgroupPath: run.CgroupPath, CgroupID: run.CgroupID,
		ApprovalsPending: len(s.opts.Approvals.List(approval.Filter{Run: run.Run.ID, State: approval.Pending})),
		Starting:         !run.Begun, Revoked: run.Revoked, Frozen: workload.Frozen(run.CgroupPath),
	}
}

func toolNames(tools []*tool.Tool) []string {
	names := []string{}
	for _, t := range tools {
		names = append(names, t.Name)
	}
	return names
}

// orEmpty makes JSON of no elements [] and not null.
func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func (s *Server) agents(*request) (any, error) {
	cfg := s.opts.Configs.Config()
	live := map[string]int{}
	for _, run := range s.opts.Runs.All() {
		live[run.Run.Agent]++
	}
	list := []api.Agent{}
	for _, name := range slices.Sorted(maps.Keys(cfg.Agents)) {
		a := cfg.Agents[name]
		list = append(list, api.Agent{
			Name: a.Name, Owner: a.Owner, Mode: a.Mode, Tools: orEmpty(a.Tools), Egress: viewRules(a.Egress), Listen: viewListen(a.Listen),
			Launch: config.Principals{Users: orEmpty(a.Launch.Users), Groups: orEmpty(a.Launch.Groups)},
			Runs:   live[name], File: a.Pos.File, Line: a.Pos.Line,
		})
	}
	return list, nil
}

func viewRules(rules []config.EgressRule) []api.EgressRule {
	list := []api.EgressRule{}
	for _, r := range rules {
		dest := r.Name
		if dest == "" {
			dest = r.CIDR.String()
		}
		var ports []string
		for _, p := range r.Ports {
			ports = append(ports, p.String())
		}
		list = append(list, api.EgressRule{
			Destination: dest, Ports: strings.Join(ports, ","), Protocol: r.Protocol,
			Why: r.Why, File: r.Pos.File, Line: r.Pos.Line,
		})
	}
	return list
}

func viewListen(rules []config.ListenRule) []api.ListenRule {
	list := []api.ListenRule{}
	for _, r := range rules {
		from := []string{}
		for _, p := range r.From {
			from = append(from, p.String())
		}
		list = append(list, api.ListenRule{
			Port: r.Port.String(), Protocol: r.Protocol, From: from, Why: r.Why, File: r.Pos.File, Line: r.Pos.Line,
		})
	}
	return list
}

func (s *Server) tools(*request) (any, error) {
	cfg := s.opts.Configs.Config()
	list := []api.Tool{}
	for _, name := range slices.Sorted(maps.Keys(cfg.Tools)) {
		list = append(list, viewTool(cfg, cfg.Tools[name]))
	}
	return list, nil
}

func viewTool(cfg *config.Config, t *tool.Tool) api.Tool {
	v := api.Tool{
		Name: t.Name, Hosts: []string{}, Client: t.Client, Upstream: t.Upstream, Revision: t.Revision,
		Actions: []api.Action{}, Agents: []string{}, File: t.Pos.File, Line: t.Pos.Line,
	}
	for _, h := range t.Hosts {
		v.Hosts = append(v.Hosts, h.String())
	}
	if c := t.Credential; c != nil {
		v.Audience, v.Attached = c.Issuer.Audience, c.Attach != nil
	}
	for _, a := range t.Actions {
		v.Actions = append(v.Actions, api.Action{
			Name: a.Name, Methods: orEmpty(a.HTTP.Methods), Path: string(a.HTTP.Path), Risk: a.Risk, Approval: string(a.Approval),
		})
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Agents)) {
		if slices.Contains(cfg.Agents[name].Tools, t.Name) {
			v.Agents = append(v.Agents, name)
		}
	}
	return v
}

func (s *Server) leases(*request) (any, error) {
	if s.opts.Leases == nil {
		return nil, problem(http.StatusNotImplemented, api.CodeNotAvailable, "This daemon has no broker.", "")
	}
	return orEmpty(s.opts.Leases()), nil
}
